// Rotary position embedding: how fast each pair of dimensions turns, by the scaling rules that
// configs name, and the angles of a position. The turning itself is kernels' (LayerOps::rope).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/error.h"

namespace sluice::numerics {

enum class RopeRule : uint8_t {
  kDefault,
  kLinear,
  kLlama3,
  kYarn,
  kDynamic,
  kLongrope,
  kProportional
};

// Fields by their names in config.json (rope_scaling or rope_parameters) where those are clear;
// those that a rule does not use are ignored.
struct RopeScaling {
  RopeRule rule = RopeRule::kDefault;
  size_t rotary_dim = 0;  // head_dim times partial_rotary_factor; even
  double rope_theta = 10000;
  double factor = 1;
  double original_max_position_embeddings = 0;  // llama3, yarn, longrope
  double max_position_embeddings = 0;           // dynamic
  double low_freq_factor = 1, high_freq_factor = 4;
  double beta_fast = 32, beta_slow = 1;
  bool truncate = true;  // yarn: whole dimensions as the ends of its ramp
  std::optional<double> attention_factor{}, mscale{}, mscale_all_dim{};
  std::optional<double> long_mscale{}, short_mscale{};  // longrope: attention_factor for each list
  std::vector<double> long_factor{}, short_factor{};    // [rotary_dim / 2]
  // proportional: of the pairs, counted from the fastest; the others stand still.
  double rotated_share = 1;
};

struct RopeFrequencies {
  std::vector<double> inv_freq;  // [rotary_dim / 2] radians per position
  double attention_factor = 1;   // multiplies cos and sin, of queries and keys alike
};

// sequence: the positions in use, which dynamic and longrope depend on; keep it the same for all
// keys of a cache. Fails on figures from which no frequency follows.
// Sources: Su et al. 2021; Peng et al. 2023 (YaRN); transformers' modeling_rope_utils.
Result<RopeFrequencies> rope_frequencies(const RopeScaling& scaling, size_t sequence);

// The length whose frequencies those of a sequence are, the same for all sequences that agree in
// them; 0 where frequencies do not depend on the length.
size_t rope_length(const RopeScaling& scaling, size_t sequence);

// yarn's magnitude for a factor: 1 up to factor 1, then 0.1 · mscale · ln(factor) + 1. Some models
// multiply it into the scale of their scores as well (DeepSeek-V3).
double yarn_magnitude(double factor, double mscale);

// cos and sin of one position's angles, each of inv_freq.size() elements; computed in f64, so that
// positions in the hundred thousands lose nothing.
void rope_angles(const RopeFrequencies& frequencies, size_t position, std::span<float> cos,
                 std::span<float> sin);

}  // namespace sluice::numerics
