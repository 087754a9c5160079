#include "allocate/plan_json.h"

#include <cmath>
#include <limits>
#include <set>

namespace sluice::allocate {
namespace {

using numerics::Encoder;
using numerics::QuantFormat;
using numerics::QuantMode;

constexpr std::string_view kKind = "sluice plan";
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// JSON has no infinity: null stands for the one that each field can have.
Json finite_or_null(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json format_to_json(const QuantFormat& format) {
  if (format.mode == QuantMode::kFloat) return {{"mode", numerics::quant_mode_name(format.mode)}};
  return {{"mode", numerics::quant_mode_name(format.mode)},
          {"bits", format.bits},
          {"group_size", format.group_size}};
}

Json tensor_to_json(const PlannedTensor& tensor) {
  return {{"path", tensor.path},
          {"parameter", tensor.parameter},
          {"role", tensor.role},
          {"layer", tensor.layer},
          {"elements", tensor.elements},
          {"quantizable", tensor.quantizable},
          {"format", format_to_json(tensor.format)},
          {"encoder", numerics::encoder_name(tensor.encoder)},
          {"bytes", tensor.bytes},
          {"alpha", tensor.alpha},
          {"squared_error", tensor.error.squared_error},
          {"squared_weight", tensor.error.squared_weight},
          {"error_max", tensor.error.error_max},
          {"worst_expert_sqnr_db", finite_or_null(tensor.worst_expert_sqnr_db)},
          {"worst_expert", tensor.worst_expert},
          {"source_xxh3", tensor.source.hex()}};
}

Json uniform_to_json(const UniformPlan& uniform) {
  return {{"format", format_to_json(uniform.format)},
          {"encoder", numerics::encoder_name(uniform.encoder)},
          {"exact_bytes", uniform.exact_bytes},
          {"cost", uniform.cost},
          {"admissible", uniform.admissible},
          {"fallback_modules", uniform.fallback_modules}};
}

// Refuses keys that this version does not write: a misspelt key would otherwise be a silent
// default.
Status only_keys(const Json& object, const std::set<std::string_view>& keys,
                 std::string_view label) {
  if (!object.is_object())
    return fail(ErrorCode::kCorrupt, "{}: should be an object, found {}", label,
                object.type_name());
  for (const auto& entry : object.items())
    if (!keys.contains(entry.key()))
      return fail(ErrorCode::kCorrupt, "{}: key \"{}\" is not part of a plan", label, entry.key());
  return {};
}

Result<uint64_t> size_at(const Json& object, std::string_view key, std::string_view label) {
  SLUICE_ASSIGN(const int64_t value, json_int(object, key, 0, INT64_MAX, label));
  return static_cast<uint64_t>(value);
}

Result<Digest> digest_at(const Json& object, std::string_view key, std::string_view label) {
  SLUICE_ASSIGN(const std::string text, json_string(object, key, label));
  auto digest = Digest::from_hex(text);
  if (!digest) return in_context(fmt::format("{}: key \"{}\"", label, key), digest.error());
  return *digest;
}

// The key must be there; null gives the infinity that the field can have.
Result<double> number_or(const Json& object, std::string_view key, double infinity,
                         std::string_view label) {
  if (object.contains(key) && object.at(std::string(key)).is_null()) return infinity;
  return json_number(object, key, label);
}

Result<Encoder> encoder_at(const Json& object, std::string_view label) {
  SLUICE_ASSIGN(const std::string name, json_string(object, "encoder", label));
  const auto encoder = numerics::encoder_from_name(name);
  if (!encoder) return fail(ErrorCode::kCorrupt, "{}: encoder \"{}\" is not known", label, name);
  return *encoder;
}

Result<QuantFormat> format_at(const Json& object, std::string_view label) {
  SLUICE_ASSIGN(const Json* json, json_object(object, "format", label));
  SLUICE_ASSIGN(const std::string mode, json_string(*json, "mode", label));
  QuantFormat format;
  if (mode == numerics::quant_mode_name(QuantMode::kFloat)) {
    SLUICE_TRY(only_keys(*json, {"mode"}, label));
    return format;
  }
  format.mode = QuantMode::kAffine;
  for (const QuantFormat& fp : numerics::kFpFormats)
    if (mode == numerics::quant_mode_name(fp.mode)) format.mode = fp.mode;
  if (mode != numerics::quant_mode_name(format.mode))
    return fail(ErrorCode::kCorrupt, "{}: mode \"{}\" is not known", label, mode);
  SLUICE_TRY(only_keys(*json, {"mode", "bits", "group_size"}, label));
  SLUICE_ASSIGN(const int64_t bits, json_int(*json, "bits", 1, 16, label));
  SLUICE_ASSIGN(const int64_t group, json_int(*json, "group_size", 1, 1024, label));
  format.bits = static_cast<uint8_t>(bits);
  format.group_size = static_cast<uint16_t>(group);
  return format;
}

Result<PlannedTensor> tensor_from_json(const Json& json, std::string_view label) {
  SLUICE_TRY(only_keys(json,
                       {"path", "parameter", "role", "layer", "elements", "quantizable", "format",
                        "encoder", "bytes", "alpha", "squared_error", "squared_weight", "error_max",
                        "worst_expert_sqnr_db", "worst_expert", "source_xxh3"},
                       label));
  PlannedTensor tensor;
  SLUICE_ASSIGN(tensor.path, json_string(json, "path", label));
  SLUICE_ASSIGN(tensor.parameter, json_string(json, "parameter", label));
  const std::string where = fmt::format("{}: {}", label, tensor.tensor_name());
  SLUICE_ASSIGN(tensor.role, json_string(json, "role", where));
  SLUICE_ASSIGN(const int64_t layer, json_int(json, "layer", -1, INT32_MAX, where));
  tensor.layer = static_cast<int>(layer);
  SLUICE_ASSIGN(tensor.elements, size_at(json, "elements", where));
  SLUICE_ASSIGN(tensor.quantizable, json_bool(json, "quantizable", where));
  SLUICE_ASSIGN(tensor.format, format_at(json, where));
  SLUICE_ASSIGN(tensor.encoder, encoder_at(json, where));
  SLUICE_ASSIGN(tensor.bytes, size_at(json, "bytes", where));
  SLUICE_ASSIGN(tensor.alpha, json_number(json, "alpha", where));
  SLUICE_ASSIGN(tensor.error.squared_error, json_number(json, "squared_error", where));
  SLUICE_ASSIGN(tensor.error.squared_weight, json_number(json, "squared_weight", where));
  SLUICE_ASSIGN(tensor.error.error_max, json_number(json, "error_max", where));
  SLUICE_ASSIGN(tensor.worst_expert_sqnr_db,
                number_or(json, "worst_expert_sqnr_db", kInfinity, where));
  SLUICE_ASSIGN(const int64_t expert, json_int(json, "worst_expert", 0, UINT32_MAX, where));
  tensor.worst_expert = static_cast<uint32_t>(expert);
  SLUICE_ASSIGN(tensor.source, digest_at(json, "source_xxh3", where));
  return tensor;
}

Result<UniformPlan> uniform_from_json(const Json& json, std::string_view label) {
  SLUICE_TRY(only_keys(
      json, {"format", "encoder", "exact_bytes", "cost", "admissible", "fallback_modules"}, label));
  UniformPlan uniform;
  SLUICE_ASSIGN(uniform.format, format_at(json, label));
  SLUICE_ASSIGN(uniform.encoder, encoder_at(json, label));
  SLUICE_ASSIGN(uniform.exact_bytes, size_at(json, "exact_bytes", label));
  SLUICE_ASSIGN(uniform.cost, json_number(json, "cost", label));
  SLUICE_ASSIGN(uniform.admissible, json_bool(json, "admissible", label));
  SLUICE_ASSIGN(const int64_t fallback, json_int(json, "fallback_modules", 0, UINT32_MAX, label));
  uniform.fallback_modules = static_cast<uint32_t>(fallback);
  return uniform;
}

Result<PlanData> content_from_json(const Json& json, std::string_view label) {
  SLUICE_TRY(only_keys(
      json, {"kind",     "version",   "digest",  "budget_bytes", "exact_bytes",  "tensor_bytes",
             "elements", "objective", "method",  "configs",      "sensitivity",  "sqnr_floor_db",
             "cost",     "bound",     "source",  "analysis",     "family",       "dtype",
             "parity",   "tensors",   "uniform", "only_layers",  "predicted_kl", "activations"},
      label));
  PlanData data;
  SLUICE_ASSIGN(data.budget_bytes, size_at(json, "budget_bytes", label));
  SLUICE_ASSIGN(data.exact_bytes, size_at(json, "exact_bytes", label));
  SLUICE_ASSIGN(data.tensor_bytes, size_at(json, "tensor_bytes", label));
  SLUICE_ASSIGN(data.elements, size_at(json, "elements", label));
  SLUICE_ASSIGN(data.objective, json_string(json, "objective", label));
  SLUICE_ASSIGN(data.method, json_string(json, "method", label));
  SLUICE_ASSIGN(data.configs, json_string(json, "configs", label));
  SLUICE_ASSIGN(data.sensitivity, json_string(json, "sensitivity", label));
  SLUICE_ASSIGN(data.sqnr_floor_db, number_or(json, "sqnr_floor_db", -kInfinity, label));
  SLUICE_ASSIGN(data.cost, json_number(json, "cost", label));
  SLUICE_ASSIGN(data.bound, json_number(json, "bound", label));
  SLUICE_ASSIGN(data.source, digest_at(json, "source", label));
  SLUICE_ASSIGN(data.analysis, digest_at(json, "analysis", label));
  SLUICE_ASSIGN(data.family, json_string(json, "family", label));
  SLUICE_ASSIGN(data.dtype, json_string(json, "dtype", label));
  SLUICE_ASSIGN(data.parity, json_string(json, "parity", label));
  if (json.contains("only_layers")) {
    SLUICE_ASSIGN(data.only_layers, json_string(json, "only_layers", label));
  }
  if (json.contains("predicted_kl")) {
    SLUICE_ASSIGN(data.predicted_kl, json_number(json, "predicted_kl", label));
  }
  if (json.contains("activations")) {
    SLUICE_ASSIGN(data.activations, digest_at(json, "activations", label));
  }
  SLUICE_ASSIGN(const Json* tensors, json_array(json, "tensors", label));
  data.tensors.reserve(tensors->size());
  for (const Json& element : *tensors) {
    SLUICE_ASSIGN(
        PlannedTensor tensor,
        tensor_from_json(element, fmt::format("{}: tensor {}", label, data.tensors.size())));
    data.tensors.push_back(std::move(tensor));
  }
  SLUICE_ASSIGN(const Json* uniform, json_array(json, "uniform", label));
  for (const Json& element : *uniform) {
    SLUICE_ASSIGN(
        const UniformPlan row,
        uniform_from_json(element, fmt::format("{}: uniform plan {}", label, data.uniform.size())));
    data.uniform.push_back(row);
  }
  return data;
}

}  // namespace

Json plan_content_to_json(const PlanData& data) {
  Json tensors = Json::array();
  for (const PlannedTensor& tensor : data.tensors) tensors.push_back(tensor_to_json(tensor));
  Json uniform = Json::array();
  for (const UniformPlan& row : data.uniform) uniform.push_back(uniform_to_json(row));
  Json json{{"kind", kKind},
            {"version", kPlanVersion},
            {"budget_bytes", data.budget_bytes},
            {"exact_bytes", data.exact_bytes},
            {"tensor_bytes", data.tensor_bytes},
            {"elements", data.elements},
            {"objective", data.objective},
            {"method", data.method},
            {"configs", data.configs},
            {"sensitivity", data.sensitivity},
            {"sqnr_floor_db", finite_or_null(data.sqnr_floor_db)},
            {"cost", data.cost},
            {"bound", data.bound},
            {"source", data.source.hex()},
            {"analysis", data.analysis.hex()},
            {"family", data.family},
            {"dtype", data.dtype},
            {"parity", data.parity},
            {"tensors", std::move(tensors)},
            {"uniform", std::move(uniform)}};
  // Written where they say something, so that other plans stay as they were.
  if (!data.only_layers.empty()) json["only_layers"] = data.only_layers;
  // Under measured sensitivities alone, likewise.
  if (data.predicted_kl) json["predicted_kl"] = *data.predicted_kl;
  if (data.activations != Digest{}) json["activations"] = data.activations.hex();
  return json;
}

std::string plan_to_json(const Plan& plan) {
  Json json = plan_content_to_json(plan.data());
  json["digest"] = plan.digest().hex();
  return dump_json(json, 1) + "\n";
}

Result<Plan> plan_from_json(std::string_view text, std::string_view label) {
  SLUICE_ASSIGN(const Json json, parse_json(text, label));
  if (!json.is_object())
    return fail(ErrorCode::kCorrupt, "{}: should be an object, found {}", label, json.type_name());
  SLUICE_ASSIGN(const std::string kind, json_string(json, "kind", label));
  if (kind != kKind)
    return fail(ErrorCode::kCorrupt, "{}: is a \"{}\", not a \"{}\"", label, kind, kKind);
  SLUICE_ASSIGN(const int64_t version, json_int(json, "version", 1, INT32_MAX, label));
  if (version != kPlanVersion)
    return fail(ErrorCode::kUnsupported,
                "{}: plan version {} is newer than this program knows ({}). Make the plan again",
                label, version, kPlanVersion);
  SLUICE_ASSIGN(PlanData data, content_from_json(json, label));
  SLUICE_ASSIGN(const Digest recorded, digest_at(json, "digest", label));
  auto plan = Plan::create(std::move(data));
  if (!plan) return fail(ErrorCode::kCorrupt, "{}: {}", label, plan.error().message);
  if (plan->digest() != recorded)
    return fail(ErrorCode::kCorrupt,
                "{}: content does not match its digest (recorded {}, found {}): the file was "
                "damaged or edited. Make the plan again",
                label, recorded.hex(), plan->digest().hex());
  return plan;
}

}  // namespace sluice::allocate
