// Verification in parts: each leaves its report beside the output until they are joined.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <map>

#include "base/json.h"
#include "verify/output.h"
#include "verify/verify.h"

namespace sluice::verify {
namespace {

constexpr uint64_t kReportBytesMax = 64ull << 20;

std::string report_path(std::string out) {
  while (out.size() > 1 && out.back() == '/') out.pop_back();
  return out + ".verify";
}

Json report_to_json(const VerifyReport& report, const Digest& output) {
  Json findings = Json::array(), roles = Json::array();
  for (const Finding& finding : report.findings)
    findings.push_back({{"subject", finding.subject}, {"message", finding.message}});
  for (const RoleQuality& role : report.roles)
    roles.push_back({{"role", role.role},
                     {"modules", role.modules},
                     {"squared_error", role.error.squared_error},
                     {"squared_weight", role.error.squared_weight},
                     {"error_max", role.error.error_max},
                     {"exact", std::isinf(role.worst_sqnr_db)},
                     {"worst_sqnr_db", std::isinf(role.worst_sqnr_db) ? 0 : role.worst_sqnr_db},
                     {"worst_tensor", role.worst_tensor}});
  Json concentrated = Json::array();
  for (const ConcentratedError& entry : report.concentrated)
    concentrated.push_back({{"tensor", entry.tensor},
                            {"has_experts", entry.has_experts},
                            {"expert", entry.expert},
                            {"share", entry.share},
                            {"white_share", entry.white_share}});
  return {{"output", output.hex()},
          {"findings", std::move(findings)},
          {"finding_count", report.finding_count},
          {"modules", report.modules},
          {"tensors", report.tensors},
          {"shards", report.shards},
          {"weight_file_bytes", report.weight_file_bytes},
          {"budget_bytes", report.budget_bytes},
          {"reencoded_modules", report.reencoded_modules},
          {"lossless_modules", report.lossless_modules},
          {"roles", std::move(roles)},
          {"directions_measured", report.directions_measured},
          {"concentrated", std::move(concentrated)}};
}

Result<uint64_t> count_at(const Json& json, std::string_view key, std::string_view label) {
  SLUICE_ASSIGN(const int64_t value, json_int(json, key, 0, INT64_MAX, label));
  return static_cast<uint64_t>(value);
}

Result<RoleQuality> role_from_json(const Json& json, std::string_view label) {
  RoleQuality role;
  SLUICE_ASSIGN(role.role, json_string(json, "role", label));
  SLUICE_ASSIGN(role.modules, count_at(json, "modules", label));
  SLUICE_ASSIGN(role.error.squared_error, json_number(json, "squared_error", label));
  SLUICE_ASSIGN(role.error.squared_weight, json_number(json, "squared_weight", label));
  SLUICE_ASSIGN(role.error.error_max, json_number(json, "error_max", label));
  SLUICE_ASSIGN(const bool exact, json_bool(json, "exact", label));
  SLUICE_ASSIGN(role.worst_sqnr_db, json_number(json, "worst_sqnr_db", label));
  if (exact) role.worst_sqnr_db = std::numeric_limits<double>::infinity();
  SLUICE_ASSIGN(role.worst_tensor, json_string(json, "worst_tensor", label));
  return role;
}

Result<ConcentratedError> concentrated_from_json(const Json& json, std::string_view label) {
  ConcentratedError entry;
  SLUICE_ASSIGN(entry.tensor, json_string(json, "tensor", label));
  SLUICE_ASSIGN(entry.has_experts, json_bool(json, "has_experts", label));
  SLUICE_ASSIGN(const int64_t expert, json_int(json, "expert", 0, UINT32_MAX, label));
  entry.expert = static_cast<uint32_t>(expert);
  SLUICE_ASSIGN(entry.share, json_number(json, "share", label));
  SLUICE_ASSIGN(entry.white_share, json_number(json, "white_share", label));
  return entry;
}

Result<VerifyReport> report_from_json(const Json& json, std::string_view label) {
  VerifyReport report;
  SLUICE_ASSIGN(const Json* findings, json_array(json, "findings", label));
  for (const Json& entry : *findings) {
    Finding finding;
    SLUICE_ASSIGN(finding.subject, json_string(entry, "subject", label));
    SLUICE_ASSIGN(finding.message, json_string(entry, "message", label));
    report.findings.push_back(std::move(finding));
  }
  SLUICE_ASSIGN(report.finding_count, count_at(json, "finding_count", label));
  SLUICE_ASSIGN(report.modules, count_at(json, "modules", label));
  SLUICE_ASSIGN(report.tensors, count_at(json, "tensors", label));
  SLUICE_ASSIGN(report.shards, count_at(json, "shards", label));
  SLUICE_ASSIGN(report.weight_file_bytes, count_at(json, "weight_file_bytes", label));
  SLUICE_ASSIGN(report.budget_bytes, count_at(json, "budget_bytes", label));
  SLUICE_ASSIGN(report.reencoded_modules, count_at(json, "reencoded_modules", label));
  SLUICE_ASSIGN(report.lossless_modules, count_at(json, "lossless_modules", label));
  SLUICE_ASSIGN(const Json* roles, json_array(json, "roles", label));
  for (const Json& entry : *roles) {
    SLUICE_ASSIGN(RoleQuality role, role_from_json(entry, label));
    report.roles.push_back(std::move(role));
  }
  SLUICE_ASSIGN(report.directions_measured, count_at(json, "directions_measured", label));
  SLUICE_ASSIGN(const Json* concentrated, json_array(json, "concentrated", label));
  for (const Json& entry : *concentrated) {
    SLUICE_ASSIGN(ConcentratedError error, concentrated_from_json(entry, label));
    report.concentrated.push_back(std::move(error));
  }
  return report;
}

// What all parts say of the output as a whole is equal; findings and roles are each part's own.
void join(VerifyReport& whole, VerifyReport&& part) {
  whole.finding_count += part.finding_count;
  whole.reencoded_modules += part.reencoded_modules;
  whole.lossless_modules += part.lossless_modules;
  whole.directions_measured += part.directions_measured;
  std::ranges::move(part.concentrated, std::back_inserter(whole.concentrated));
  for (Finding& finding : part.findings)
    if (whole.findings.size() < kFindingsMax) whole.findings.push_back(std::move(finding));
  std::map<std::string, RoleQuality> roles;
  for (const RoleQuality& role : whole.roles) roles[role.role] = role;
  for (const RoleQuality& role : part.roles) {
    const auto [entry, added] = roles.try_emplace(role.role, role);
    if (added) continue;
    RoleQuality& sum = entry->second;
    sum.modules += role.modules;
    sum.error.merge(role.error);
    if (role.worst_sqnr_db < sum.worst_sqnr_db) {
      sum.worst_sqnr_db = role.worst_sqnr_db;
      sum.worst_tensor = role.worst_tensor;
    }
  }
  whole.roles.clear();
  for (const auto& [name, role] : roles) whole.roles.push_back(role);
}

Result<Digest> record_digest(io::Storage& storage, const std::string& out) {
  SLUICE_ASSIGN(const auto source, storage.open_source(out + "/sluice.json"));
  SLUICE_ASSIGN(const std::string text, io::read_text(*source, source->size()));
  return digest_of(text);
}

}  // namespace

Result<VerifyReport> verify_part(io::Storage& storage, const io::Checkpoint& checkpoint,
                                 const std::string& out, const VerifyOptions& options) {
  const std::string path = stream::part_path(report_path(out), options.part);
  SLUICE_ASSIGN(VerifyReport report, verify(storage, checkpoint, out, options));
  SLUICE_ASSIGN(const Digest output, record_digest(storage, out));
  SLUICE_TRY(
      io::write_file_atomically(storage, path, dump_json(report_to_json(report, output)) + "\n"));
  return report;
}

Result<bool> has_verified_parts(io::Storage& storage, const std::string& out) {
  SLUICE_ASSIGN(const uint32_t count, stream::count_parts(storage, report_path(out)));
  return count > 0;
}

Result<VerifyReport> merge_verified_parts(io::Storage& storage, const std::string& out) {
  SLUICE_ASSIGN(const uint32_t count, stream::count_parts(storage, report_path(out)));
  SLUICE_ASSIGN(const Digest expected, record_digest(storage, out));
  std::vector<stream::Part> incomplete;
  VerifyReport whole;
  for (uint32_t index = 0; index < count; ++index) {
    const stream::Part part{index, count};
    const std::string path = stream::part_path(report_path(out), part);
    if (!storage.exists(path)) {
      incomplete.push_back(part);
      continue;
    }
    SLUICE_ASSIGN(const auto source, storage.open_source(path));
    SLUICE_ASSIGN(const std::string text, io::read_text(*source, kReportBytesMax));
    SLUICE_ASSIGN(const Json json, parse_json(text, path));
    SLUICE_ASSIGN(const std::string output, json_string(json, "output", path));
    if (output != expected.hex())
      return fail(ErrorCode::kInvalidArgument,
                  "{} was written for another output than {} is now; remove it", path, out);
    SLUICE_ASSIGN(VerifyReport report, report_from_json(json, path));
    if (index == 0)
      whole = std::move(report);
    else
      join(whole, std::move(report));
  }
  SLUICE_TRY(stream::all_complete(out, incomplete));
  for (uint32_t index = 0; index < count; ++index)
    SLUICE_TRY(storage.remove(stream::part_path(report_path(out), {index, count})));
  return whole;
}

}  // namespace sluice::verify
