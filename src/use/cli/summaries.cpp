#include "cli/summaries.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "allocate/safety.h"
#include "base/units.h"
#include "cli/console.h"
#include "report/safety.h"

namespace sluice::cli {
namespace {

constexpr size_t kWarningsEach = 4;      // of a kind, on a terminal
constexpr size_t kJsonEntriesMax = 100;  // of a list that may be as long as the model

std::vector<report::ConcentratedError> concentrated_errors(const verify::VerifyReport& report) {
  std::vector<report::ConcentratedError> errors;
  for (const verify::ConcentratedError& error : report.concentrated)
    errors.push_back({error.tensor, error.has_experts ? std::optional(error.expert) : std::nullopt,
                      error.share, error.white_share});
  return errors;
}

std::string warnings_text(const std::vector<report::Warning>& warnings) {
  std::string text;
  for (const report::Warning& warning : warnings)
    text += warning.subject.empty()
                ? fmt::format("  … {}\n", warning.message)
                : fmt::format("  warning: {}: {}\n", warning.subject, warning.message);
  return text;
}

Json safety_json(const allocate::SafetyReport& safety) {
  Json near_floor = Json::array(), weak_experts = Json::array();
  for (size_t i = 0; i < std::min(safety.near_floor.size(), kJsonEntriesMax); ++i)
    near_floor.push_back(
        {{"tensor", safety.near_floor[i].tensor}, {"sqnr_db", safety.near_floor[i].sqnr_db}});
  for (size_t i = 0; i < std::min(safety.weak_experts.size(), kJsonEntriesMax); ++i) {
    const allocate::WeakExpert& weak = safety.weak_experts[i];
    weak_experts.push_back(
        {{"tensor", weak.tensor},
         {"expert", weak.expert},
         {"sqnr_db", weak.sqnr_db},
         {"stack_sqnr_db", std::isfinite(weak.stack_sqnr_db) ? Json(weak.stack_sqnr_db) : Json()}});
  }
  return {{"floor_db", safety.floor_db},
          {"near_floor_count", safety.near_floor.size()},
          {"near_floor", std::move(near_floor)},
          {"weak_expert_count", safety.weak_experts.size()},
          {"weak_experts", std::move(weak_experts)}};
}

}  // namespace

std::string predicted_kl_text(const allocate::Plan& plan) {
  const auto& kl = plan.data().predicted_kl;
  return kl ? fmt::format("{:.4g} nats per token", *kl) : "";
}

std::string format_and_encoder(const numerics::QuantFormat& format, numerics::Encoder encoder) {
  if (format.mode == numerics::QuantMode::kFloat) return numerics::format_text(format);
  return fmt::format("{} {}", numerics::format_text(format), numerics::encoder_name(encoder));
}

std::string db_text(double db) {
  return std::isinf(db) && db > 0 ? "exact" : fmt::format("{:.2f} dB", db);
}

std::string plan_tables(const allocate::Plan& plan) {
  const allocate::PlanData& data = plan.data();
  const auto elements = static_cast<double>(data.elements);
  Table formats({Align::kLeft, Align::kRight, Align::kRight, Align::kRight});
  formats.add({"bits/group", "modules", "weights", "bytes"});
  for (const allocate::FormatShare& share : allocate::format_shares(plan))
    formats.add({format_and_encoder(share.format, share.encoder), fmt::format("{}", share.modules),
                 fmt::format("{:.1f} %", 100 * static_cast<double>(share.elements) / elements),
                 bytes_text(share.bytes)});
  Table roles({Align::kLeft, Align::kRight, Align::kRight, Align::kRight, Align::kRight});
  roles.add({"role", "modules", "bytes", "SQNR", "worst"});
  for (const allocate::RoleSummary& role : allocate::role_summaries(plan))
    roles.add({role.role, fmt::format("{}", role.modules), bytes_text(role.bytes),
               db_text(role.sqnr_db), db_text(role.worst_sqnr_db)});
  return formats.text("  ") + "\n" + roles.text("  ");
}

Json plan_summary_json(const allocate::Plan& plan) {
  const allocate::PlanData& data = plan.data();
  Json formats = Json::array();
  for (const allocate::FormatShare& share : allocate::format_shares(plan))
    formats.push_back({{"format", numerics::format_text(share.format)},
                       {"encoder", numerics::encoder_name(share.encoder)},
                       {"modules", share.modules},
                       {"elements", share.elements},
                       {"bytes", share.bytes}});
  Json roles = Json::array();
  for (const allocate::RoleSummary& role : allocate::role_summaries(plan))
    roles.push_back({{"role", role.role},
                     {"modules", role.modules},
                     {"elements", role.elements},
                     {"bytes", role.bytes},
                     {"sqnr_db", std::isfinite(role.sqnr_db) ? Json(role.sqnr_db) : Json()},
                     {"worst_tensor", role.worst_tensor}});
  Json summary{{"budget_bytes", data.budget_bytes},
               {"weight_file_bytes", data.exact_bytes},
               {"bits_per_weight", allocate::bits_per_weight(plan)},
               {"objective", data.objective},
               {"cost", data.cost},
               {"bound", data.bound},
               {"gap", data.gap()},
               {"formats", std::move(formats)},
               {"roles", std::move(roles)},
               {"safety", safety_json(allocate::safety_report(plan))}};
  if (data.predicted_kl) summary["predicted_kl"] = *data.predicted_kl;
  return summary;
}

std::string safety_text(const allocate::Plan& plan, const verify::VerifyReport* report) {
  std::string text = warnings_text(report::plan_warnings(plan, kWarningsEach));
  const bool directions = report != nullptr && report->directions_measured > 0;
  if (directions)
    text += warnings_text(report::error_warnings(concentrated_errors(*report), kWarningsEach));
  return text.empty() ? fmt::format("  {}\n", report::safe_text(plan, directions)) : text;
}

std::string verify_text(const verify::VerifyReport& report, const std::string& out) {
  std::string text;
  if (report.passed()) {
    text = fmt::format(
        "verified {}: {} tensors in {} {}, {} of {} modules proved byte for byte{}, {} within the "
        "budget of {}\n",
        out, report.tensors, report.shards, report.shards == 1 ? "shard" : "shards",
        report.reencoded_modules, report.modules,
        report.lossless_modules > 0
            ? fmt::format(" ({} moved without loss)", report.lossless_modules)
            : std::string(),
        bytes_text(report.weight_file_bytes), bytes_text(report.budget_bytes));
    Table roles({Align::kLeft, Align::kRight, Align::kRight, Align::kRight, Align::kLeft});
    roles.add({"role", "modules", "SQNR", "worst", "in"});
    for (const verify::RoleQuality& role : report.roles)
      roles.add({role.role, fmt::format("{}", role.modules), db_text(sqnr_db(role.error)),
                 db_text(role.worst_sqnr_db), role.worst_tensor});
    text += roles.text("  ");
    text += warnings_text(report::error_warnings(concentrated_errors(report), kWarningsEach));
    if (!report.source_read)
      text +=
          "Every block was proved against its source while it was converted; what lies on disk was "
          "read back and has the digests of what was proved. The source was not read once more.\n";
    return text;
  }
  for (const verify::Finding& finding : report.findings)
    text += fmt::format("{}: {}\n", finding.subject, finding.message);
  if (report.finding_count > report.findings.size())
    text += fmt::format("… and {} more\n", report.finding_count - report.findings.size());
  return text + fmt::format("{} FAILED verification: {} findings\n", out, report.finding_count);
}

Json verify_json(const verify::VerifyReport& report) {
  Json findings = Json::array();
  for (const verify::Finding& finding : report.findings)
    findings.push_back({{"subject", finding.subject}, {"message", finding.message}});
  Json roles = Json::array();
  for (const verify::RoleQuality& role : report.roles) {
    const double db = sqnr_db(role.error);
    roles.push_back({{"role", role.role},
                     {"modules", role.modules},
                     {"sqnr_db", std::isfinite(db) ? Json(db) : Json()},
                     {"worst_tensor", role.worst_tensor}});
  }
  Json concentrated = Json::array();
  for (const verify::ConcentratedError& error : report.concentrated) {
    Json entry{
        {"tensor", error.tensor}, {"share", error.share}, {"white_noise_share", error.white_share}};
    if (error.has_experts) entry["expert"] = error.expert;
    concentrated.push_back(std::move(entry));
  }
  Json json{{"passed", report.passed()},
            {"finding_count", report.finding_count},
            {"findings", std::move(findings)},
            {"modules", report.modules},
            {"reencoded_modules", report.reencoded_modules},
            {"lossless_modules", report.lossless_modules},
            {"tensors", report.tensors},
            {"shards", report.shards},
            {"weight_file_bytes", report.weight_file_bytes},
            {"budget_bytes", report.budget_bytes},
            {"roles", std::move(roles)},
            {"directions_measured", report.directions_measured},
            {"concentrated", std::move(concentrated)}};
  if (!report.source_read) json["proved_while_converting"] = true;
  return json;
}

}  // namespace sluice::cli
