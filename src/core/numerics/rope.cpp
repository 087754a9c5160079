#include "numerics/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace sluice::numerics {
namespace {

Status check(const RopeScaling& s) {
  const auto refuse = [](const char* what) -> std::unexpected<Error> {
    return fail(ErrorCode::kInvalidArgument, "RoPE: {}", what);
  };
  const auto positive = [](double x) { return std::isfinite(x) && x > 0; };
  if (s.rotary_dim == 0 || s.rotary_dim % 2 != 0)
    return refuse("the rotated dimensions must be a positive even number");
  if (!positive(s.rope_theta)) return refuse("rope_theta must be positive");
  if (!positive(s.factor)) return refuse("factor must be positive");
  const bool uses_original =
      s.rule == RopeRule::kLlama3 || s.rule == RopeRule::kYarn || s.rule == RopeRule::kLongrope;
  if (uses_original && !positive(s.original_max_position_embeddings))
    return refuse("this scaling needs original_max_position_embeddings");
  if (s.rule == RopeRule::kLlama3 &&
      (!positive(s.low_freq_factor) || !positive(s.high_freq_factor)))
    return refuse("low_freq_factor and high_freq_factor must be positive");
  if (s.rule == RopeRule::kYarn &&
      (!positive(s.beta_fast) || !positive(s.beta_slow) || s.rope_theta == 1))
    return refuse("beta_fast and beta_slow must be positive, and rope_theta not 1");
  if (s.rule == RopeRule::kDynamic && (!positive(s.max_position_embeddings) || s.rotary_dim == 2))
    return refuse("dynamic scaling needs max_position_embeddings and more than two dimensions");
  if (s.rule == RopeRule::kLongrope &&
      (s.long_factor.size() != s.rotary_dim / 2 || s.short_factor.size() != s.rotary_dim / 2))
    return refuse("long_factor and short_factor must have one number per pair of dimensions");
  if (s.rule == RopeRule::kProportional && !(s.rotated_share >= 0 && s.rotated_share <= 1))
    return refuse("partial_rotary_factor must lie in [0, 1]");
  return {};
}

std::vector<double> plain_frequencies(double base, size_t rotary_dim) {
  std::vector<double> inv_freq(rotary_dim / 2);
  for (size_t j = 0; j < inv_freq.size(); ++j)
    inv_freq[j] = std::pow(base, -2.0 * static_cast<double>(j) / static_cast<double>(rotary_dim));
  return inv_freq;
}

// Wavelengths within the original context stay, those far beyond it are stretched, with a linear
// passage between, which is empty when both factors agree.
double llama3_frequency(const RopeScaling& s, double frequency) {
  const double wavelength = 2 * std::numbers::pi / frequency;
  const double original = s.original_max_position_embeddings;
  if (wavelength < original / s.high_freq_factor) return frequency;
  if (wavelength > original / s.low_freq_factor || s.high_freq_factor == s.low_freq_factor)
    return frequency / s.factor;
  const double smooth =
      (original / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return (1 - smooth) * frequency / s.factor + smooth * frequency;
}

// The dimension, as a real number, that turns so often over the original context.
double yarn_dimension(const RopeScaling& s, double turns) {
  return static_cast<double>(s.rotary_dim) *
         std::log(s.original_max_position_embeddings / (turns * 2 * std::numbers::pi)) /
         (2 * std::log(s.rope_theta));
}

void yarn_frequencies(const RopeScaling& s, std::vector<double>& inv_freq) {
  double low = yarn_dimension(s, s.beta_fast), high = yarn_dimension(s, s.beta_slow);
  if (s.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(s.rotary_dim - 1));
  if (low == high) high += 0.001;
  for (size_t j = 0; j < inv_freq.size(); ++j) {
    const double ramp = std::clamp((static_cast<double>(j) - low) / (high - low), 0.0, 1.0);
    inv_freq[j] = inv_freq[j] * (1 - ramp) + inv_freq[j] / s.factor * ramp;
  }
}

double yarn_attention_factor(const RopeScaling& s) {
  if (s.attention_factor) return *s.attention_factor;
  if (s.mscale.value_or(0) != 0 && s.mscale_all_dim.value_or(0) != 0)
    return yarn_magnitude(s.factor, *s.mscale) / yarn_magnitude(s.factor, *s.mscale_all_dim);
  return yarn_magnitude(s.factor, 1);
}

// Keeps the frequencies of the first max_position_embeddings positions, whatever the length.
double dynamic_base(const RopeScaling& s, double sequence) {
  const double dim = static_cast<double>(s.rotary_dim);
  const double length = std::max(sequence, s.max_position_embeddings);
  const double stretch = s.factor * length / s.max_position_embeddings - (s.factor - 1);
  return s.rope_theta * std::pow(stretch, dim / (dim - 2));
}

double longrope_attention_factor(const RopeScaling& s, bool is_long) {
  if (const auto& mscale = is_long ? s.long_mscale : s.short_mscale) return *mscale;
  if (s.attention_factor) return *s.attention_factor;
  if (s.factor <= 1) return 1;
  return std::sqrt(1 + std::log(s.factor) / std::log(s.original_max_position_embeddings));
}

}  // namespace

size_t rope_length(const RopeScaling& s, size_t sequence) {
  static constexpr double kMost = 1e15;  // lengths come from configurations
  const auto whole = [](double length) { return static_cast<size_t>(std::min(length, kMost)); };
  const auto length = static_cast<double>(sequence);
  if (s.rule == RopeRule::kDynamic) return whole(std::max(length, s.max_position_embeddings));
  if (s.rule == RopeRule::kLongrope)
    return whole(s.original_max_position_embeddings) +
           (length > s.original_max_position_embeddings ? 1 : 0);
  return 0;
}

double yarn_magnitude(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

Result<RopeFrequencies> rope_frequencies(const RopeScaling& s, size_t sequence) {
  SLUICE_TRY(check(s));
  const double length = static_cast<double>(sequence);
  const double base = s.rule == RopeRule::kDynamic ? dynamic_base(s, length) : s.rope_theta;
  RopeFrequencies out{plain_frequencies(base, s.rotary_dim), 1};
  switch (s.rule) {
    case RopeRule::kDefault:
    case RopeRule::kDynamic: break;
    case RopeRule::kLinear:
      for (double& frequency : out.inv_freq) frequency /= s.factor;
      break;
    case RopeRule::kProportional: {
      const double turning = s.rotated_share * static_cast<double>(s.rotary_dim) / 2;
      for (size_t j = 0; j < out.inv_freq.size(); ++j)
        out.inv_freq[j] =
            static_cast<double>(j) < std::floor(turning) ? out.inv_freq[j] / s.factor : 0;
      break;
    }
    case RopeRule::kLlama3:
      for (double& frequency : out.inv_freq) frequency = llama3_frequency(s, frequency);
      break;
    case RopeRule::kYarn:
      yarn_frequencies(s, out.inv_freq);
      out.attention_factor = yarn_attention_factor(s);
      break;
    case RopeRule::kLongrope: {
      const bool is_long = length > s.original_max_position_embeddings;
      const std::vector<double>& stretch = is_long ? s.long_factor : s.short_factor;
      for (size_t j = 0; j < stretch.size(); ++j) out.inv_freq[j] /= stretch[j];
      out.attention_factor = longrope_attention_factor(s, is_long);
      break;
    }
  }
  return out;
}

void rope_angles(const RopeFrequencies& frequencies, size_t position, std::span<float> cos,
                 std::span<float> sin) {
  SLUICE_CHECK(cos.size() == frequencies.inv_freq.size() && sin.size() == cos.size());
  for (size_t j = 0; j < cos.size(); ++j) {
    const double angle = static_cast<double>(position) * frequencies.inv_freq[j];
    cos[j] = static_cast<float>(std::cos(angle) * frequencies.attention_factor);
    sin[j] = static_cast<float>(std::sin(angle) * frequencies.attention_factor);
  }
}

}  // namespace sluice::numerics
