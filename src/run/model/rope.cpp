// Rotary settings in the spellings of configurations; their mathematics is numerics/rope.h's.
#include <algorithm>

#include "model/config.h"

namespace sluice::model {
namespace {

using numerics::RopeScaling;
using Rule = numerics::RopeRule;

// mrope gives text one position in all its streams, which is ordinary rotation; su is longrope's
// first name.
constexpr std::pair<std::string_view, Rule> kRules[] = {{"default", Rule::kDefault},
                                                        {"mrope", Rule::kDefault},
                                                        {"linear", Rule::kLinear},
                                                        {"llama3", Rule::kLlama3},
                                                        {"yarn", Rule::kYarn},
                                                        {"dynamic", Rule::kDynamic},
                                                        {"longrope", Rule::kLongrope},
                                                        {"su", Rule::kLongrope},
                                                        {"proportional", Rule::kProportional}};

// The object that holds a scaling's numbers, in either spelling; null when there is none.
Result<const Json*> find_numbers(const Json& config, const std::string& label) {
  for (const std::string_view key : {"rope_parameters", "rope_scaling"})
    if (const Json* found = json_find(config, key)) {
      if (found->is_object()) return found;
      return fail(ErrorCode::kCorrupt, "{}: {} should be an object", label, key);
    }
  return nullptr;
}

// The number at key if it is there.
Status read_number(const Json& holder, std::string_view key, const std::string& label,
                   std::optional<double>& out) {
  if (json_find(holder, key) == nullptr) return {};
  SLUICE_ASSIGN(out, json_number(holder, key, label));
  return {};
}
Status read_number(const Json& holder, std::string_view key, const std::string& label,
                   double& out) {
  std::optional<double> value;
  SLUICE_TRY(read_number(holder, key, label, value));
  out = value.value_or(out);
  return {};
}

Result<Rule> read_rule(const Json& numbers, const std::string& label) {
  std::string name = "default";
  for (const std::string_view key : {"type", "rope_type"})
    if (json_find(numbers, key) != nullptr) {
      SLUICE_ASSIGN(name, json_string(numbers, key, label));
    }
  for (const auto& [known, rule] : kRules)
    if (known == name) return rule;
  return fail(ErrorCode::kUnsupported,
              "{}: rope scaling \"{}\" is not known (default, linear, llama3, yarn, dynamic, "
              "longrope, proportional and mrope are)",
              label, name);
}

Status read_factors(const Json& holder, std::string_view key, const std::string& label,
                    std::vector<double>& out) {
  const Json* list = json_find(holder, key);
  if (list == nullptr || !list->is_array())
    return fail(ErrorCode::kCorrupt, "{}: {} should be a list of numbers", label, key);
  for (const Json& number : *list) {
    if (!number.is_number() || !(number.get<double>() > 0))
      return fail(ErrorCode::kCorrupt, "{}: {} should hold positive numbers", label, key);
    out.push_back(number.get<double>());
  }
  return {};
}

// Configurations write the original length beside the scaling or in it, and where they leave out
// the factor, it is that of the lengths.
Status read_longrope(const Json& config, const Json& numbers, const std::string& label,
                     RopeScaling& scaling) {
  SLUICE_TRY(read_number(config, "original_max_position_embeddings", label,
                         scaling.original_max_position_embeddings));
  if (json_find(numbers, "factor") == nullptr && scaling.original_max_position_embeddings > 0)
    scaling.factor =
        std::max(1.0, scaling.max_position_embeddings / scaling.original_max_position_embeddings);
  SLUICE_TRY(read_number(numbers, "long_mscale", label, scaling.long_mscale));
  SLUICE_TRY(read_number(numbers, "short_mscale", label, scaling.short_mscale));
  SLUICE_TRY(read_factors(numbers, "long_factor", label, scaling.long_factor));
  return read_factors(numbers, "short_factor", label, scaling.short_factor);
}

Status read_scaling(const Json& config, const Json& numbers, const std::string& label,
                    RopeScaling& scaling) {
  SLUICE_ASSIGN(scaling.rule, read_rule(numbers, label));
  const bool may_lack_factor = scaling.rule == Rule::kDefault || scaling.rule == Rule::kLongrope ||
                               scaling.rule == Rule::kProportional;
  if (!may_lack_factor || json_find(numbers, "factor") != nullptr) {
    SLUICE_ASSIGN(scaling.factor, json_number(numbers, "factor", label));
  }
  SLUICE_TRY(
      read_number(config, "max_position_embeddings", label, scaling.max_position_embeddings));
  SLUICE_TRY(read_number(numbers, "original_max_position_embeddings", label,
                         scaling.original_max_position_embeddings));
  SLUICE_TRY(read_number(numbers, "low_freq_factor", label, scaling.low_freq_factor));
  SLUICE_TRY(read_number(numbers, "high_freq_factor", label, scaling.high_freq_factor));
  SLUICE_TRY(read_number(numbers, "beta_fast", label, scaling.beta_fast));
  SLUICE_TRY(read_number(numbers, "beta_slow", label, scaling.beta_slow));
  SLUICE_TRY(read_number(numbers, "attention_factor", label, scaling.attention_factor));
  SLUICE_TRY(read_number(numbers, "mscale", label, scaling.mscale));
  SLUICE_TRY(read_number(numbers, "mscale_all_dim", label, scaling.mscale_all_dim));
  if (json_find(numbers, "truncate") != nullptr) {
    SLUICE_ASSIGN(scaling.truncate, json_bool(numbers, "truncate", label));
  }
  if (scaling.rule == Rule::kLongrope) return read_longrope(config, numbers, label, scaling);
  return {};
}

// rotary_dim where a configuration counts them, else a share of the head.
Result<size_t> read_rotary_dim(const Json& config, double share, uint64_t head_dim,
                               const std::string& label) {
  auto dims = static_cast<int64_t>(std::max(0.0, share) * static_cast<double>(head_dim));
  if (json_find(config, "rotary_dim") != nullptr) {
    SLUICE_ASSIGN(dims, json_int(config, "rotary_dim", 1, static_cast<int64_t>(head_dim), label));
    share = static_cast<double>(dims) / static_cast<double>(head_dim);
  }
  if (share <= 1 && dims >= 2 && dims % 2 == 0) return static_cast<size_t>(dims);
  return fail(ErrorCode::kCorrupt,
              "{}: {} of head_dim {} is no even number of dimensions to rotate", label, share,
              head_dim);
}

}  // namespace

Result<RopeScaling> read_rope(const Json& config, uint64_t head_dim, double theta_default,
                              const std::string& label, double share_default) {
  SLUICE_ASSIGN(const Json* numbers, find_numbers(config, label));
  RopeScaling scaling;
  scaling.rope_theta = theta_default;
  double share = share_default;
  for (const Json* holder : {&config, numbers}) {
    if (holder == nullptr) continue;
    SLUICE_TRY(read_number(*holder, "rope_theta", label, scaling.rope_theta));
    SLUICE_TRY(read_number(*holder, "partial_rotary_factor", label, share));
  }
  if (numbers != nullptr) SLUICE_TRY(read_scaling(config, *numbers, label, scaling));
  if (scaling.rule == Rule::kProportional) {
    scaling.rotary_dim = head_dim;
    scaling.rotated_share = share;
  } else {
    SLUICE_ASSIGN(scaling.rotary_dim, read_rotary_dim(config, share, head_dim, label));
  }
  const auto frequencies = numerics::rope_frequencies(scaling, 0);
  if (!frequencies) return fail(ErrorCode::kCorrupt, "{}: {}", label, frequencies.error().message);
  return scaling;
}

void use_mlx_yarn(RopeScaling& scaling) {
  if (scaling.rule != Rule::kYarn) return;
  scaling.truncate = true;
  scaling.attention_factor =
      numerics::yarn_magnitude(scaling.factor, scaling.mscale.value_or(1)) /
      numerics::yarn_magnitude(scaling.factor, scaling.mscale_all_dim.value_or(0));
}

}  // namespace sluice::model
