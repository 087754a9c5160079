// How much a module's error matters: the weights αᵢ of the objective Σ αᵢ·NRMSEᵢ². A table by role
// and depth, or measured per module; data, read from text, never code.
// docs/allocation.md#sensitivity
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "allocate/candidate.h"
#include "base/digest.h"
#include "base/error.h"

namespace sluice::allocate {

// α = alpha + alpha_per_layer · layers, in units of an ordinary linear layer in mid-depth.
struct RoleWeight {
  double alpha = 1;
  double alpha_per_layer = 0;
};

// Value. All weights are finite and ≥ 0.
struct SensitivityTable {
  std::string name;
  std::map<std::string, RoleWeight, std::less<>> roles;
  RoleWeight fallback;  // roles that are not listed
  double first_layer_factor = 1;
  double last_layer_factor = 1;
  // Item::tensor_name → α, used as it is: measured sensitivities.
  std::map<std::string, double, std::less<>> modules;
  // Whether weights are nats of KL divergence for each unit of NRMSE², so that a plan's cost
  // predicts its divergence from the original; else their unit means nothing.
  bool in_nats = false;
  Digest digest;  // of the table's content

  std::string id() const;  // "prior-1@0123456789abcdef"
};

// Errors: kCorrupt, naming label and key.
Result<SensitivityTable> parse_sensitivity(std::string_view text, std::string_view label);

// The table built into the program: a data-free prior by role and depth.
SensitivityTable builtin_sensitivity();

// One weight per item; 0 for modules that are not quantizable. An embedding without a head beside
// it is also the head (tied), and carries both weights. docs/allocation.md#sensitivity
std::vector<double> module_weights(const SensitivityTable& table, std::span<const Item> items);

}  // namespace sluice::allocate
