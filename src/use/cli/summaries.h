// What commands say of plans and of verified outputs: as text with tables, and as JSON.
#pragma once

#include <string>

#include "allocate/plan.h"
#include "base/json.h"
#include "verify/verify.h"

namespace sluice::cli {

// "4/64 best".
std::string format_and_encoder(const numerics::QuantFormat& format, numerics::Encoder encoder);
// "21.83 dB", "exact".
std::string db_text(double db);

// "0.0123 nats per token"; empty where nothing predicts it.
std::string predicted_kl_text(const allocate::Plan& plan);
// Shares of each format, and modules by role, as tables.
std::string plan_tables(const allocate::Plan& plan);
Json plan_summary_json(const allocate::Plan& plan);
// What to know before trusting it; report: of its output, nullptr where there is none yet.
std::string safety_text(const allocate::Plan& plan, const verify::VerifyReport* report);

std::string verify_text(const verify::VerifyReport& report, const std::string& out);
Json verify_json(const verify::VerifyReport& report);

}  // namespace sluice::cli
