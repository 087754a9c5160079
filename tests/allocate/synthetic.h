// Seeded problems and items for tests and benchmarks of allocation: small random ones for brute
// force, and items with the sizes of real models and errors like those of Gaussian weights.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "allocate/problem.h"

namespace sluice::allocate::synthetic {

// splitmix64: the same numbers with every standard library.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  uint64_t below(uint64_t bound) { return next() % bound; }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

 private:
  uint64_t state_;
};

enum class Shape { kRandom, kCorrelated, kCoarse };

// Options without structure (kRandom), costs falling with bytes (kCorrelated), or a few distinct
// sizes and costs so that ties abound (kCoarse).
inline Problem random_problem(Random& random, size_t items, size_t options_max, Shape shape) {
  Problem problem;
  problem.first.push_back(0);
  for (size_t i = 0; i < items; ++i) {
    const size_t count = 1 + random.below(options_max);
    for (size_t j = 0; j < count; ++j) {
      Option option;
      option.candidate = static_cast<uint32_t>(j);
      if (shape == Shape::kCoarse) {
        option.bytes = 16 * random.below(8);
        option.cost = static_cast<double>(random.below(6));
      } else {
        option.bytes = random.below(1000);
        option.cost = shape == Shape::kRandom
                          ? random.uniform()
                          : (0.5 + random.uniform()) * std::exp(-0.005 * double(option.bytes));
      }
      problem.options.push_back(option);
    }
    problem.first.push_back(static_cast<uint32_t>(problem.options.size()));
    problem.alpha.push_back(1);
    problem.elements += 100;
  }
  return problem;
}

// SQNR in dB of MLX's affine format on Gaussian weights at group 64, by width.
inline double typical_sqnr(unsigned bits, unsigned group) {
  const double at64[] = {0, 0, 8.0, 15.5, 21.6, 27.8, 34.0, 0, 45.5};
  return at64[bits] + (group == 32 ? 1.0 : group == 128 ? -0.9 : 0.0);
}

inline numerics::ErrorStats stats_at(double sqnr, double weight) {
  return {std::pow(10.0, -sqnr / 10) * weight, weight, 0.1};
}

// One module with 18 parity candidates, `best` at 3 and 4 bits of group 64, and 16-bit.
inline Item typical_item(Random& random, std::string path, std::string role, int layer,
                         uint64_t rows, uint64_t columns, uint64_t experts = 1) {
  Item item;
  item.path = std::move(path);
  item.parameter = "weight";
  item.role = std::move(role);
  item.layer = layer;
  item.elements = rows * columns * experts;
  item.quantizable = true;
  if (item.role == "router") item.bits_floor = 8;
  const double weight = 0.001 * static_cast<double>(item.elements);
  const double module_shift = 3 * (random.uniform() - 0.5);
  const auto add = [&](unsigned bits, unsigned group, numerics::Encoder encoder, double gain) {
    Candidate candidate;
    candidate.format = {numerics::QuantMode::kAffine, static_cast<uint8_t>(bits),
                        static_cast<uint16_t>(group)};
    candidate.encoder = encoder;
    candidate.bytes = item.elements / 8 * bits + item.elements / group * 4;
    const double sqnr = typical_sqnr(bits, group) + module_shift + 0.2 * random.uniform() + gain;
    candidate.error = stats_at(sqnr, weight);
    candidate.worst_expert_sqnr_db = sqnr - (experts > 1 ? 1.0 : 0.0);
    candidate.worst_row_sqnr_db = sqnr - 3;
    item.candidates.push_back(candidate);
  };
  for (const unsigned bits : numerics::kAffineBits) {
    for (const unsigned group : numerics::kAffineGroups) {
      if (columns % group != 0) continue;
      add(bits, group, numerics::Encoder::kParity, 0);
      if (group == 64 && (bits == 3 || bits == 4)) add(bits, group, numerics::Encoder::kBest, 1.1);
    }
  }
  Candidate plain;
  plain.bytes = 2 * item.elements;
  plain.error = {0, weight, 0};
  plain.worst_expert_sqnr_db = std::numeric_limits<double>::infinity();
  plain.worst_row_sqnr_db = plain.worst_expert_sqnr_db;
  item.candidates.push_back(plain);
  return item;
}

inline Item norm_item(std::string path, int layer, uint64_t size) {
  Item item;
  item.path = std::move(path);
  item.parameter = "weight";
  item.role = "norm";
  item.layer = layer;
  item.elements = size;
  Candidate plain;
  plain.bytes = 2 * size;
  plain.error = {0, 1, 0};
  plain.worst_expert_sqnr_db = std::numeric_limits<double>::infinity();
  item.candidates.push_back(plain);
  return item;
}

struct ModelShape {
  int layers = 0;
  uint64_t hidden = 0, intermediate = 0, vocabulary = 0;
  uint64_t q_rows = 0, kv_rows = 0;
  uint64_t experts = 0;  // 0: dense
  bool stacked = true;   // experts of a layer as one item, as the format stores them
  bool tied = false;
};
// Published configurations.
inline constexpr ModelShape kQwen3_8B{36, 4096, 12288, 151936, 4096, 1024, 0, true, false};
inline constexpr ModelShape kQwen3_30B_A3B{48, 2048, 768, 151936, 4096, 512, 128, true, false};
inline constexpr ModelShape kSmolLM2_135M{30, 576, 1536, 49152, 576, 192, 0, true, true};

inline std::vector<Item> model_items(const ModelShape& shape, uint64_t seed) {
  Random random(seed);
  std::vector<Item> items;
  items.push_back(
      typical_item(random, "model.embed_tokens", "embedding", -1, shape.vocabulary, shape.hidden));
  for (int layer = 0; layer < shape.layers; ++layer) {
    const std::string at = "model.layers." + std::to_string(layer);
    const auto add = [&](const std::string& name, const std::string& role, uint64_t rows,
                         uint64_t columns, uint64_t experts = 1) {
      items.push_back(typical_item(random, at + name, role, layer, rows, columns, experts));
    };
    items.push_back(norm_item(at + ".input_layernorm", layer, shape.hidden));
    add(".self_attn.q_proj", "attention_q", shape.q_rows, shape.hidden);
    add(".self_attn.k_proj", "attention_k", shape.kv_rows, shape.hidden);
    add(".self_attn.v_proj", "attention_v", shape.kv_rows, shape.hidden);
    add(".self_attn.o_proj", "attention_o", shape.hidden, shape.q_rows);
    items.push_back(norm_item(at + ".post_attention_layernorm", layer, shape.hidden));
    if (shape.experts == 0) {
      add(".mlp.gate_proj", "mlp_gate", shape.intermediate, shape.hidden);
      add(".mlp.up_proj", "mlp_up", shape.intermediate, shape.hidden);
      add(".mlp.down_proj", "mlp_down", shape.hidden, shape.intermediate);
      continue;
    }
    add(".mlp.gate", "router", shape.experts, shape.hidden);
    const uint64_t copies = shape.stacked ? 1 : shape.experts;
    const uint64_t each = shape.stacked ? shape.experts : 1;
    for (uint64_t e = 0; e < copies; ++e) {
      const std::string stem =
          shape.stacked ? ".mlp.switch_mlp" : ".mlp.experts." + std::to_string(e);
      add(stem + ".gate_proj", "expert_gate", shape.intermediate, shape.hidden, each);
      add(stem + ".up_proj", "expert_up", shape.intermediate, shape.hidden, each);
      add(stem + ".down_proj", "expert_down", shape.hidden, shape.intermediate, each);
    }
  }
  items.push_back(norm_item("model.norm", -1, shape.hidden));
  if (!shape.tied)
    items.push_back(typical_item(random, "lm_head", "head", -1, shape.vocabulary, shape.hidden));
  return items;
}

}  // namespace sluice::allocate::synthetic
