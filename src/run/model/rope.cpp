// Rotary frequencies and their scalings for longer contexts.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "model/config.h"

namespace sluice::model {
namespace {

// The two spellings become one: a rope type, a base, and an object that holds the type's numbers.
struct Source {
  std::string type = "default";
  double theta = 0;
  const Json* numbers = nullptr;  // null when there is nothing but the base
  uint64_t context = 0;           // max_position_embeddings; 0: not said
  std::string label;

  bool has(std::string_view key) const { return json_find(*numbers, key) != nullptr; }
  Result<double> positive(std::string_view key) const {
    SLUICE_ASSIGN(const double value, json_number(*numbers, key, label));
    if (value > 0) return value;
    return fail(ErrorCode::kCorrupt, "{}: {} should be positive, found {}", label, key, value);
  }
  Result<double> positive_or(std::string_view key, double fallback) const {
    return has(key) ? positive(key) : Result<double>(fallback);
  }
};

Result<double> positive_theta(const Json& holder, const std::string& label) {
  SLUICE_ASSIGN(const double theta, json_number(holder, "rope_theta", label));
  if (theta > 0) return theta;
  return fail(ErrorCode::kCorrupt, "{}: rope_theta should be positive, found {}", label, theta);
}

Result<Source> find_source(const Json& config, double theta_default, const std::string& label) {
  Source source{.theta = theta_default, .label = label};
  const Json* scaling = json_find(config, "rope_parameters");
  if (scaling == nullptr) scaling = json_find(config, "rope_scaling");
  if (scaling != nullptr && !scaling->is_object())
    return fail(ErrorCode::kCorrupt, "{}: rope_scaling should be an object", label);
  for (const Json* holder : {static_cast<const Json*>(&config), scaling})
    if (holder != nullptr && json_find(*holder, "rope_theta") != nullptr) {
      SLUICE_ASSIGN(source.theta, positive_theta(*holder, label));
    }
  if (json_find(config, "max_position_embeddings") != nullptr) {
    SLUICE_ASSIGN(const int64_t context,
                  json_int(config, "max_position_embeddings", 1, int64_t{1} << 32, label));
    source.context = static_cast<uint64_t>(context);
  }
  if (scaling == nullptr) return source;
  source.numbers = scaling;
  source.label = label + ": rope scaling";
  for (const std::string_view key : {"type", "rope_type"})
    if (json_find(*scaling, key) != nullptr) {
      SLUICE_ASSIGN(source.type, json_string(*scaling, key, source.label));
    }
  return source;
}

Result<uint64_t> rotary_dim(const Json& config, const Source& source, uint64_t head_dim) {
  double share = 1;
  for (const Json* holder : {&config, source.numbers})
    if (holder != nullptr && json_find(*holder, "partial_rotary_factor") != nullptr) {
      SLUICE_ASSIGN(share, json_number(*holder, "partial_rotary_factor", source.label));
    }
  const auto dims = static_cast<uint64_t>(std::max(0.0, share) * static_cast<double>(head_dim));
  if (share <= 1 && dims >= 2 && dims % 2 == 0) return dims;
  return fail(ErrorCode::kCorrupt,
              "{}: {} of head_dim {} is no even number of dimensions to rotate", source.label,
              share, head_dim);
}

Status scale_linear(const Source& source, RopeRule& rule) {
  SLUICE_ASSIGN(const double factor, source.positive("factor"));
  for (double& f : rule.frequencies) f /= factor;
  return {};
}

// Short wavelengths stay, long ones are divided, those between are blended.
Status scale_llama3(const Source& source, RopeRule& rule) {
  SLUICE_ASSIGN(const double factor, source.positive("factor"));
  SLUICE_ASSIGN(const double low, source.positive("low_freq_factor"));
  SLUICE_ASSIGN(const double high, source.positive("high_freq_factor"));
  SLUICE_ASSIGN(const double context, source.positive("original_max_position_embeddings"));
  for (double& f : rule.frequencies) {
    const double wavelength = 2 * std::numbers::pi / f;
    if (wavelength < context / high) continue;
    if (wavelength > context / low || high == low) {
      f /= factor;
      continue;
    }
    const double smooth = (context / wavelength - low) / (high - low);
    f = (1 - smooth) * f / factor + smooth * f;
  }
  return {};
}

double yarn_mscale(double factor, double weight) {
  return factor <= 1 ? 1 : 0.1 * weight * std::log(factor) + 1;
}

Result<double> yarn_attention_factor(const Source& source, double factor) {
  if (source.has("attention_factor")) return source.positive("attention_factor");
  if (!source.has("mscale") || !source.has("mscale_all_dim")) return yarn_mscale(factor, 1);
  SLUICE_ASSIGN(const double mscale, json_number(*source.numbers, "mscale", source.label));
  SLUICE_ASSIGN(const double all, json_number(*source.numbers, "mscale_all_dim", source.label));
  return yarn_mscale(factor, mscale) / yarn_mscale(factor, all);
}

// Fast dimensions stay, slow ones are divided, with a ramp between the dimensions that turn
// beta_fast and beta_slow times within the original context.
Status scale_yarn(const Source& source, RopeRule& rule) {
  SLUICE_ASSIGN(const double factor, source.positive("factor"));
  SLUICE_ASSIGN(const double fast, source.positive_or("beta_fast", 32));
  SLUICE_ASSIGN(const double slow, source.positive_or("beta_slow", 1));
  SLUICE_ASSIGN(const double context,
                source.positive_or("original_max_position_embeddings",
                                   static_cast<double>(source.context) / factor));
  if (!(context > 0) || source.theta == 1)
    return fail(ErrorCode::kCorrupt,
                "{}: yarn needs original_max_position_embeddings and a "
                "rope_theta other than 1",
                source.label);
  bool truncate = true;
  if (source.has("truncate")) {
    SLUICE_ASSIGN(truncate, json_bool(*source.numbers, "truncate", source.label));
  }
  SLUICE_ASSIGN(rule.scale, yarn_attention_factor(source, factor));
  const auto dims = 2.0 * static_cast<double>(rule.frequencies.size());
  const auto dimension_turning = [&](double turns) {
    return dims * std::log(context / (2 * std::numbers::pi * turns)) / (2 * std::log(source.theta));
  };
  double low = dimension_turning(fast), high = dimension_turning(slow);
  if (truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dims - 1);
  if (low == high) high += 0.001;
  for (size_t j = 0; j < rule.frequencies.size(); ++j) {
    const double ramp = std::clamp((static_cast<double>(j) - low) / (high - low), 0.0, 1.0);
    double& f = rule.frequencies[j];
    f = f * (1 - ramp) + f / factor * ramp;
  }
  return {};
}

}  // namespace

Result<RopeRule> read_rope(const Json& config, uint64_t head_dim, double theta_default,
                           const std::string& label) {
  SLUICE_ASSIGN(const Source source, find_source(config, theta_default, label));
  SLUICE_ASSIGN(const uint64_t dims, rotary_dim(config, source, head_dim));
  RopeRule rule;
  for (uint64_t j = 0; j < dims / 2; ++j)
    rule.frequencies.push_back(
        std::pow(source.theta, -2.0 * static_cast<double>(j) / static_cast<double>(dims)));
  // mrope gives text one position in all its streams, which is ordinary rotation.
  if (source.type == "default" || source.type == "mrope") return rule;
  Status status = fail(ErrorCode::kUnsupported,
                       "{}: type \"{}\" is not known (default, linear, llama3, yarn and mrope are)",
                       source.label, source.type);
  if (source.type == "linear") status = scale_linear(source, rule);
  if (source.type == "llama3") status = scale_llama3(source, rule);
  if (source.type == "yarn") status = scale_yarn(source, rule);
  SLUICE_TRY(std::move(status));
  return rule;
}

}  // namespace sluice::model
