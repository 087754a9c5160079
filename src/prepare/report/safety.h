// What to know before trusting a small model: modules near the SQNR floor, experts far below their
// stack, errors that lie in a few directions. One sentence each, the same for the page and for a
// terminal.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "report/input.h"

namespace sluice::report {

struct Warning {
  std::string subject;  // tensor; empty: what was left out of a long list
  std::string message;
};

// The first `each` of every kind, and how many more there are. Predicted, from the plan alone.
std::vector<Warning> plan_warnings(const allocate::Plan& plan, size_t each);
// Measured on the output.
std::vector<Warning> error_warnings(std::span<const ConcentratedError> errors, size_t each);

// A sentence where there is nothing to warn of: what was looked at. directions: whether errors'
// directions were.
std::string safe_text(const allocate::Plan& plan, bool directions);

// The section of the page; "" without a plan.
std::string safety_section(const ReportInput& input);

}  // namespace sluice::report
