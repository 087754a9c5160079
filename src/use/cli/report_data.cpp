#include "cli/report_data.h"

#include <cmath>
#include <filesystem>

#include "base/sealed_json.h"
#include "base/units.h"
#include "cli/model.h"
#include "cli/summaries.h"
#include "sluice_version.h"
#include "verify/output.h"

namespace sluice::cli {
namespace {

using report::ReportInput;

constexpr size_t kCurvePoints = 50;
constexpr uint64_t kSmallFileBytesMax = 64ull << 20;
constexpr uint64_t kPlanBytesMax = 256ull << 20;

Result<std::string> read_file(Context& context, const std::string& path, uint64_t bytes_max) {
  SLUICE_ASSIGN(const auto source, context.storage->open_source(path));
  return io::read_text(*source, bytes_max);
}

Result<Json> read_json_file(Context& context, const std::string& path) {
  SLUICE_ASSIGN(const std::string text, read_file(context, path, kSmallFileBytesMax));
  return parse_json(text, path);
}

std::string base_name(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path.substr(path.find_last_of('/') + 1);
}

Result<uint64_t> count_at(const Json& object, std::string_view key, std::string_view label) {
  SLUICE_ASSIGN(const int64_t count, json_int(object, key, 0, INT64_MAX, label));
  return static_cast<uint64_t>(count);
}

Status add_findings(const Json& record, const std::string& path, report::Verification& found) {
  SLUICE_ASSIGN(const Json* findings, json_array(record, "findings", path));
  for (const Json& finding : *findings) {
    report::Verification::Finding entry;
    SLUICE_ASSIGN(entry.subject, json_string(finding, "subject", path));
    SLUICE_ASSIGN(entry.message, json_string(finding, "message", path));
    found.findings.push_back(std::move(entry));
  }
  return {};
}

// Absent in what earlier versions recorded.
Status add_concentrated(const Json& record, const std::string& path, report::Verification& found) {
  if (json_find(record, "concentrated") == nullptr) return {};
  SLUICE_ASSIGN(found.directions_measured, count_at(record, "directions_measured", path));
  SLUICE_ASSIGN(const Json* errors, json_array(record, "concentrated", path));
  for (const Json& error : *errors) {
    report::ConcentratedError entry;
    SLUICE_ASSIGN(entry.tensor, json_string(error, "tensor", path));
    SLUICE_ASSIGN(entry.share, json_number(error, "share", path));
    SLUICE_ASSIGN(entry.white_share, json_number(error, "white_noise_share", path));
    if (json_find(error, "expert") != nullptr) {
      SLUICE_ASSIGN(const int64_t expert, json_int(error, "expert", 0, UINT32_MAX, path));
      entry.expert = static_cast<uint32_t>(expert);
    }
    if (!(entry.white_share > 0))
      return fail(ErrorCode::kCorrupt, "{}: white_noise_share of {} should be positive", path,
                  entry.tensor);
    found.concentrated.push_back(std::move(entry));
  }
  return {};
}

// verify.json; stale when sluice.json is no longer the one it was recorded beside.
Result<report::Verification> read_verification(Context& context, const std::string& folder) {
  const std::string path = folder + "/verify.json";
  SLUICE_ASSIGN(const Json record, read_json_file(context, path));
  SLUICE_TRY(json_int(record, "version", 1, 1, path));
  SLUICE_TRY(check_seal(record, path));
  report::Verification found;
  SLUICE_ASSIGN(found.passed, json_bool(record, "passed", path));
  SLUICE_ASSIGN(found.finding_count, count_at(record, "finding_count", path));
  SLUICE_ASSIGN(found.modules, count_at(record, "modules", path));
  SLUICE_ASSIGN(found.reencoded_modules, count_at(record, "reencoded_modules", path));
  SLUICE_ASSIGN(found.tensors, count_at(record, "tensors", path));
  SLUICE_ASSIGN(found.shards, count_at(record, "shards", path));
  SLUICE_ASSIGN(found.weight_file_bytes, count_at(record, "weight_file_bytes", path));
  SLUICE_TRY(add_findings(record, path, found));
  SLUICE_TRY(add_concentrated(record, path, found));
  SLUICE_ASSIGN(const std::string digest, json_string(record, "record_xxh3", path));
  SLUICE_ASSIGN(const std::string text, read_file(context, folder + "/sluice.json", kPlanBytesMax));
  found.stale = digest != digest_of(text).hex();
  return found;
}

// Errors of the output as written, module by module.
Status add_measured(const Json& record, const std::string& path, ReportInput& input) {
  SLUICE_ASSIGN(const Json* modules, json_object(record, "modules", path));
  for (const auto& [name, entry] : modules->items()) {
    numerics::ErrorStats stats;
    SLUICE_ASSIGN(stats.squared_error, json_number(entry, "squared_error", path));
    SLUICE_ASSIGN(stats.squared_weight, json_number(entry, "squared_weight", path));
    SLUICE_ASSIGN(stats.error_max, json_number(entry, "error_max", path));
    input.measured.emplace(name, stats);
  }
  return {};
}

// A budget as it would be typed: "80MB" where that is what it is.
std::string budget_argument(uint64_t bytes) {
  for (const auto& [unit, name] : {std::pair{1'000'000'000ull, "GB"}, std::pair{1'000'000ull, "MB"},
                                   std::pair{1'000ull, "kB"}})
    if (bytes >= unit && bytes % unit == 0) return fmt::format("{}{}", bytes / unit, name);
  return fmt::format("{}B", bytes);
}

std::string command_of(const allocate::PlanData& plan, const std::string& source) {
  std::string command = fmt::format("sluice fit {} --budget {}", shell_word(source),
                                    budget_argument(plan.budget_bytes));
  if (plan.method == "uniform") return {};
  if (plan.objective != "nrmse-squared") command += " --objective " + plan.objective;
  if (plan.configs != "all") command += " --configs " + shell_word(plan.configs);
  if (plan.sqnr_floor_db != PlanOptions{}.sqnr_floor_db)
    command += fmt::format(" --sqnr-floor {}", plan.sqnr_floor_db);
  if (plan.parity != "cpu") command += " --parity " + plan.parity;
  return command + " -o OUT";
}

void add_plan_facts(const allocate::Plan& plan, const std::string& source, ReportInput& input) {
  const allocate::PlanData& data = plan.data();
  const auto add = [&](std::string label, std::string value) {
    if (!value.empty()) input.origin.push_back({std::move(label), std::move(value)});
  };
  if (!source.empty()) add("the same again", command_of(data, source));
  add("budget", fmt::format("{} bytes, of which {} are used", data.budget_bytes, data.exact_bytes));
  add("method", fmt::format("{}, objective {}", data.method, data.objective));
  if (data.method != "uniform") {  // which solves nothing and predicts no error
    add("weighted error",
        fmt::format("{:.6g}, no plan within the budget below {:.6g}", data.cost, data.bound));
    add("predicted KL divergence", predicted_kl_text(plan));
    add("formats allowed", data.configs);
    add("least SQNR allowed",
        std::isinf(data.sqnr_floor_db) ? "any" : fmt::format("{:g} dB", data.sqnr_floor_db));
    add("sensitivities", data.sensitivity);
  }
  add("MLX rounding rule", data.parity);
  add("source digest", data.source.hex());
  add("analysis digest", data.analysis == Digest{} ? "" : data.analysis.hex());
  add("plan digest", plan.digest().hex());
}

Result<allocate::ProblemSettings> settings_of(const allocate::PlanData& plan) {
  allocate::ProblemSettings settings;
  SLUICE_ASSIGN(settings.objective, allocate::parse_objective(plan.objective));
  SLUICE_ASSIGN(settings.configs, allocate::parse_configs(plan.configs));
  settings.sqnr_floor_db = plan.sqnr_floor_db;
  settings.floor_by_encoder = plan.predicted_kl.has_value();
  return settings;
}

// The curve that the plan lies on: the analysis under the plan's own settings and weights.
Status add_analysis(const analyze::Analysis& analysis, ReportInput& input) {
  const allocate::PlanData& plan = input.plan->data();
  if (plan.analysis != analysis.digest || plan.tensors.size() != analysis.records.size())
    return fail(ErrorCode::kInvalidArgument, "the analysis is not the one the plan was made from");
  input.items = analysis.items();
  input.layers = analysis.header.layers;
  SLUICE_ASSIGN(const allocate::ProblemSettings settings, settings_of(plan));
  std::vector<double> weights;
  for (const allocate::PlannedTensor& tensor : plan.tensors) weights.push_back(tensor.alpha);
  SLUICE_ASSIGN(input.curve, allocate::budget_curve(input.items, settings, weights, kCurvePoints));
  return {};
}

void set_plan(allocate::Plan plan, ReportInput& input) {
  const allocate::PlanData& data = plan.data();
  input.family = data.family;
  input.dtype = data.dtype;
  input.uniform = data.uniform;
  for (const allocate::PlannedTensor& tensor : data.tensors)
    input.layers = std::max(input.layers, tensor.layer + 1);
  input.plan = std::move(plan);
}

// run.json is for people: what it has is shown, what it lacks is left out.
Status add_run(Context& context, const std::string& path, ReportInput& input) {
  SLUICE_ASSIGN(const Json run, read_json_file(context, path));
  const auto number = [&](std::string_view key) {
    const Json* value = json_find(run, key);
    return value != nullptr && value->is_number() ? value->get<double>() : 0.0;
  };
  const auto text = [&](std::string_view key) {
    const Json* value = json_find(run, key);
    return value != nullptr && value->is_string() ? value->get<std::string>() : std::string();
  };
  for (const auto& [key, name, reads_source] :
       {std::tuple{"measure_s", "measure", false}, std::tuple{"analyze_s", "analyze", true},
        std::tuple{"plan_s", "plan", false}, std::tuple{"quantize_s", "quantize", true},
        std::tuple{"verify_s", "verify", true}})
    if (number(key) > 0)
      input.stages.push_back({name, number(key), reads_source ? input.source_bytes : 0});
  const auto add = [&](std::string label, std::string value) {
    if (!value.empty()) input.run.push_back({std::move(label), std::move(value)});
  };
  const auto size = [&](std::string_view key) {
    return number(key) > 0 ? bytes_text(static_cast<uint64_t>(number(key))) : std::string();
  };
  add("peak memory", size("peak_resident_bytes"));
  add("worker threads", number("threads") > 0 ? fmt::format("{:g}", number("threads")) : "");
  add("instruction set", text("simd"));
  add("processor", text("processor"));
  add("system", text("system"));
  add("memory installed", size("memory_bytes"));
  if (const std::string command = text("command"); !command.empty())
    input.origin.insert(input.origin.begin(), {"command", command});
  return {};
}

Status add_source(const Json& record, const std::string& path, ReportInput& input) {
  SLUICE_ASSIGN(const Json* source, json_object(record, "source", path));
  SLUICE_ASSIGN(input.name, json_string(*source, "name", path));
  SLUICE_ASSIGN(const Json* files, json_array(*source, "files", path));
  for (const Json& file : *files) {
    SLUICE_ASSIGN(const uint64_t bytes, count_at(file, "bytes", path));
    input.source_bytes += bytes;
  }
  SLUICE_ASSIGN(input.tool, json_string(record, "tool", path));
  return {};
}

Result<ReportInput> load_folder(Context& context, const ReportSources& sources) {
  const std::string& folder = sources.path;
  const std::string record_path = folder + "/sluice.json";
  SLUICE_ASSIGN(verify::Record record, verify::read_record(*context.storage, folder));
  ReportInput input;
  SLUICE_TRY(add_source(record.json, record_path, input));
  SLUICE_TRY(add_measured(record.json, record_path, input));
  record.json = Json();  // megabytes for a large model
  set_plan(std::move(record.plan), input);
  input.origin.push_back({"source", input.name});
  add_plan_facts(*input.plan, input.name, input);
  const std::string analysis_path = folder + "/analysis.jsonl";
  if (sources.analysis != nullptr) {
    SLUICE_TRY(add_analysis(*sources.analysis, input));
  } else if (context.storage->exists(analysis_path)) {
    SLUICE_ASSIGN(const auto source, context.storage->open_source(analysis_path));
    SLUICE_ASSIGN(const analyze::Analysis analysis, analyze::load_analysis(*source));
    SLUICE_TRY(add_analysis(analysis, input));
  }
  if (context.storage->exists(folder + "/verify.json")) {
    SLUICE_ASSIGN(input.verification, read_verification(context, folder));
  }
  const std::string run_path = folder + "/run.json";
  if (sources.with_run && context.storage->exists(run_path))
    SLUICE_TRY(add_run(context, run_path, input));
  return input;
}

Result<ReportInput> load_plan_report(const std::string& text, const ReportSources& sources) {
  SLUICE_ASSIGN(allocate::Plan plan, allocate::plan_from_json(text, sources.path));
  ReportInput input;
  input.name = base_name(sources.path);
  input.tool = fmt::format("sluice {}", kVersion);
  set_plan(std::move(plan), input);
  add_plan_facts(*input.plan, "", input);
  if (sources.analysis != nullptr) SLUICE_TRY(add_analysis(*sources.analysis, input));
  return input;
}

bool looks_like_journal(std::string_view text) { return text.starts_with("{\"xxh3\":"); }

}  // namespace

Status write_verify_record(Context& context, const std::string& folder,
                           const verify::VerifyReport& report) {
  SLUICE_ASSIGN(const std::string text, read_file(context, folder + "/sluice.json", kPlanBytesMax));
  Json record = verify_json(report);
  record["version"] = 1;
  record["tool"] = fmt::format("sluice {}", kVersion);
  record["record_xxh3"] = digest_of(text).hex();
  return io::write_file_atomically(*context.storage, folder + "/verify.json",
                                   dump_json(sealed(std::move(record)), 1) + "\n");
}

Result<ReportInput> load_report(Context& context, const ReportSources& sources) {
  std::error_code ignored;
  if (std::filesystem::is_directory(sources.path, ignored)) return load_folder(context, sources);
  SLUICE_ASSIGN(const auto source, context.storage->open_source(sources.path));
  std::string start(std::min<uint64_t>(source->size(), 16), '\0');
  SLUICE_TRY(source->read_at(0, std::as_writable_bytes(std::span(start))));
  if (looks_like_journal(start)) {
    SLUICE_ASSIGN(const analyze::Analysis analysis, analyze::load_analysis(*source));
    return analysis_report(analysis, base_name(sources.path), {}, allocate::builtin_sensitivity());
  }
  SLUICE_ASSIGN(const std::string text, io::read_text(*source, kPlanBytesMax));
  return load_plan_report(text, sources);
}

Result<ReportInput> analysis_report(const analyze::Analysis& analysis, const std::string& name,
                                    const allocate::ProblemSettings& settings,
                                    const allocate::SensitivityTable& sensitivity) {
  ReportInput input;
  input.name = name;
  input.tool = fmt::format("sluice {}", kVersion);
  input.family = analysis.header.family;
  input.dtype = analysis.header.dtype;
  input.layers = analysis.header.layers;
  input.items = analysis.items();
  SLUICE_ASSIGN(input.curve,
                allocate::budget_curve(input.items, settings, sensitivity, kCurvePoints));
  SLUICE_ASSIGN(input.uniform, allocate::uniform_plans(input.items, settings, sensitivity,
                                                       [&](std::span<const uint32_t> choice) {
                                                         return analysis.exact_bytes(choice);
                                                       }));
  input.origin = {{"objective", std::string(allocate::objective_name(settings.objective))},
                  {"formats allowed", settings.configs.name},
                  {"sensitivities", sensitivity.id()},
                  {"source digest", analysis.header.source.hex()},
                  {"analysis digest", analysis.digest.hex()}};
  return input;
}

}  // namespace sluice::cli
