// Holds the layer maths of every instruction set this processor offers against the scalar build of
// the same source, bit for bit, at ragged sizes and with extreme values. A plain program without a
// test library, so that the ARM build of it runs under qemu. Usage: layer_check [seed]
#include <bit>
#include <cmath>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "kernels/layer_ops.h"
#include "support/seed.h"

namespace {

using namespace sluice;
using namespace sluice::kernels;

int failures = 0;

void fail_at(const std::string& what, SimdLevel level, size_t size, size_t at, double expected,
             double got) {
  if (++failures > 20) return;
  std::printf("MISMATCH %s on %s, size %zu, at %zu: expected %.9g, got %.9g\n", what.c_str(),
              std::string(simd_level_name(level)).c_str(), size, at, expected, got);
}

bool same_bits(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}

void expect_same(const std::string& what, SimdLevel level, const std::vector<float>& expected,
                 const std::vector<float>& got) {
  for (size_t i = 0; i < expected.size(); ++i)
    if (!same_bits(expected[i], got[i])) {
      fail_at(what, level, expected.size(), i, expected[i], got[i]);
      return;
    }
}

void expect_same(const std::string& what, SimdLevel level, const std::vector<std::byte>& expected,
                 const std::vector<std::byte>& got) {
  for (size_t i = 0; i < expected.size(); ++i)
    if (expected[i] != got[i]) {
      fail_at(what, level, expected.size(), i, std::to_integer<int>(expected[i]),
              std::to_integer<int>(got[i]));
      return;
    }
}

using Random = std::mt19937_64;

std::vector<float> normals(Random& random, size_t count, float size = 1) {
  std::normal_distribution<float> normal(0, size);
  std::vector<float> x(count);
  for (float& value : x) value = normal(random);
  return x;
}

// Numbers of all sizes, up to a magnitude whose square still fits.
std::vector<float> extremes(Random& random, size_t count) {
  constexpr float kValues[] = {0,      -0.0f, 1e-45f, -1e-38f, 1e-20f, 1,      -1,      86.5f,
                               -86.7f, 88.6f, 104,    -104,    65504,  -70000, 1.5e17f, -1e18f};
  std::vector<float> x(count);
  for (float& value : x) value = kValues[random() % std::size(kValues)];
  return x;
}

// ---- one vector in, one out ----

using VectorOp = std::function<void(const LayerOps&, const std::vector<float>& x,
                                    const std::vector<float>& y, std::vector<float>& out)>;

struct NamedOp {
  const char* name;
  VectorOp run;
};

const std::vector<NamedOp>& vector_ops() {
  static const std::vector<NamedOp> kOps = {
      {"rms_norm", [](auto& o, auto& x, auto& y, auto& out) { o.rms_norm(x, y, 1e-5f, out); }},
      {"rms_norm without weight",
       [](auto& o, auto& x, auto&, auto& out) { o.rms_norm(x, {}, 1e-6f, out); }},
      {"layer_norm",
       [](auto& o, auto& x, auto& y, auto& out) { o.layer_norm(x, y, x, 1e-5f, out); }},
      {"dot", [](auto& o, auto& x, auto& y, auto& out) { out[0] = o.dot(x, y); }},
      {"add",
       [](auto& o, auto& x, auto& y, auto& out) {
         out = x;
         o.add(out, y);
       }},
      {"scale_add",
       [](auto& o, auto& x, auto& y, auto& out) {
         out = x;
         o.scale_add(out, 0.3f, y);
       }},
      {"exp", [](auto& o, auto& x, auto&, auto& out) { o.exp(x, out); }},
      {"sigmoid", [](auto& o, auto& x, auto&, auto& out) { o.sigmoid(x, out); }},
      {"silu_mul", [](auto& o, auto& x, auto& y, auto& out) { o.silu_mul(x, y, out); }},
      {"sigmoid_mul", [](auto& o, auto& x, auto& y, auto& out) { o.sigmoid_mul(x, y, out); }},
      {"gelu_mul tanh",
       [](auto& o, auto& x, auto& y, auto& out) { o.gelu_mul(x, y, GeluForm::kTanh, out); }},
      {"gelu_mul erf",
       [](auto& o, auto& x, auto& y, auto& out) { o.gelu_mul(x, y, GeluForm::kErf, out); }},
      {"swiglu_clamped",
       [](auto& o, auto& x, auto& y, auto& out) { o.swiglu_clamped(x, y, 1.702f, 7, out); }},
      {"softplus", [](auto& o, auto& x, auto& y, auto& out) { o.softplus(x, y, 0.1f, 20, out); }},
      {"step_decay", [](auto& o, auto& x, auto& y, auto& out) { o.step_decay(x, y, out); }},
      {"softcap",
       [](auto& o, auto& x, auto&, auto& out) {
         out = x;
         o.softcap(out, 30);
       }},
      {"softmax",
       [](auto& o, auto& x, auto&, auto& out) {
         out = x;
         o.softmax(out);
       }},
      {"argmax",
       [](auto& o, auto& x, auto&, auto& out) { out[0] = static_cast<float>(o.argmax(x)); }},
      {"l2_norm",
       [](auto& o, auto& x, auto&, auto& out) {
         out = x;
         o.l2_norm(out, 1e-6f, 0.25f);
       }},
      {"delta_decay", [](auto& o, auto& x, auto& y, auto& out) { o.delta_decay(x, y, y, out); }},
      {"hadamard",
       [](auto& o, auto& x, auto&, auto& out) {
         out = x;
         o.hadamard(std::span(out).first(std::bit_floor(out.size())));
       }},
  };
  return kOps;
}

void check_vector_ops(const LayerOps& scalar, const LayerOps& ops, const std::vector<float>& x,
                      const std::vector<float>& y) {
  for (const NamedOp& op : vector_ops()) {
    std::vector<float> expected(x.size()), got(x.size());
    op.run(scalar, x, y, expected);
    op.run(ops, x, y, got);
    expect_same(op.name, ops.level(), expected, got);
  }
}

void check_rope(const LayerOps& scalar, const LayerOps& ops, Random& random) {
  for (const size_t pairs : {1, 5, 16, 32, 37, 64}) {
    const auto cos = normals(random, pairs), sin = normals(random, pairs);
    for (const RopeStyle style : {RopeStyle::kHalf, RopeStyle::kInterleaved}) {
      const size_t head_dim = 2 * pairs + 3;
      auto expected = normals(random, 3 * head_dim);
      auto got = expected;
      scalar.rope(expected, head_dim, cos, sin, style);
      ops.rope(got, head_dim, cos, sin, style);
      expect_same("rope", ops.level(), expected, got);
    }
  }
}

constexpr KvType kKvTypes[] = {KvType::kF32, KvType::kF16, KvType::kQ8, KvType::kQ4};

void check_kv(const LayerOps& scalar, const LayerOps& ops, const std::vector<float>& x) {
  for (const KvType type : kKvTypes) {
    std::vector<std::byte> expected(kv_row_bytes(type, x.size())), got(expected);
    scalar.encode_kv(type, x, expected);
    ops.encode_kv(type, x, got);
    expect_same("encode_kv", ops.level(), expected, got);
    std::vector<float> expected_back(x.size()), back(x.size());
    scalar.decode_kv(type, expected, expected_back);
    ops.decode_kv(type, expected, back);
    expect_same("decode_kv", ops.level(), expected_back, back);
  }
}

// ---- attention ----

struct AttentionCase {
  KvType keys, values;
  size_t group, key_dim, value_dim, tokens, history;
  float softcap;
  size_t window, chunk;
  bool sinks;
};

void check_attention(const LayerOps& scalar, const LayerOps& ops, const AttentionCase& c,
                     Random& random) {
  const size_t positions = c.history + c.tokens;
  const size_t key_bytes = kv_row_bytes(c.keys, c.key_dim);
  const size_t value_bytes = kv_row_bytes(c.values, c.value_dim);
  std::vector<std::byte> keys(positions * key_bytes), values(positions * value_bytes);
  for (size_t i = 0; i < positions; ++i) {
    scalar.encode_kv(c.keys, normals(random, c.key_dim),
                     std::span(keys).subspan(i * key_bytes, key_bytes));
    scalar.encode_kv(c.values, normals(random, c.value_dim),
                     std::span(values).subspan(i * value_bytes, value_bytes));
  }
  const auto sinks = normals(random, c.group);
  const auto q = normals(random, c.tokens * c.group * c.key_dim);
  const AttentionShape shape{c.keys,      c.values,
                             c.group,     c.key_dim,
                             c.value_dim, 1 / std::sqrt(static_cast<float>(c.key_dim)),
                             c.softcap,   c.window,
                             c.chunk,     c.sinks ? sinks.data() : nullptr};
  const KvSpan span{reinterpret_cast<const uint8_t*>(keys.data()),
                    reinterpret_cast<const uint8_t*>(values.data()), key_bytes, value_bytes,
                    positions};
  const auto run = [&](const LayerOps& table) {
    std::vector<float> out(c.tokens * c.group * c.value_dim);
    std::vector<float> scratch(table.attend_scratch_bytes(shape) / 4);
    const AttentionQueries queries{q.data(), c.group * c.key_dim, c.history,
                                   c.tokens, out.data(),          c.group * c.value_dim};
    table.attend(shape, {&span, 1}, 0, queries, std::as_writable_bytes(std::span(scratch)));
    return out;
  };
  expect_same("attend", ops.level(), run(scalar), run(ops));
}

void check_attentions(const LayerOps& scalar, const LayerOps& ops, Random& random) {
  const AttentionCase cases[] = {
      {KvType::kF32, KvType::kF32, 1, 64, 64, 1, 0, 0, 0, 0, false},
      {KvType::kF32, KvType::kF32, 3, 64, 64, 5, 70, 0, 0, 0, false},
      {KvType::kF16, KvType::kF16, 4, 128, 128, 9, 33, 0, 0, 0, false},
      {KvType::kF16, KvType::kF16, 8, 64, 64, 40, 31, 0, 20, 0, true},
      {KvType::kQ8, KvType::kQ4, 2, 80, 96, 17, 64, 50, 0, 0, false},
      {KvType::kQ4, KvType::kQ8, 5, 20, 7, 3, 100, 0, 0, 32, false},
      {KvType::kF16, KvType::kF16, 16, 576, 512, 2, 40, 0, 0, 0, false},
  };
  for (const AttentionCase& c : cases) check_attention(scalar, ops, c, random);
}

// ---- recurrences ----

void check_convolution(const LayerOps& scalar, const LayerOps& ops, size_t channels, size_t taps,
                       Random& random) {
  const auto x = normals(random, 7 * channels), weight = normals(random, channels * taps);
  const auto before = normals(random, (taps - 1) * channels), bias = normals(random, channels);
  for (const bool fresh : {false, true}) {
    const auto run = [&](const LayerOps& table) {
      std::vector<float> out = x, after(before.size());
      table.convolve({out.data(), channels, 7, channels, weight.data(),
                      fresh ? nullptr : bias.data(), taps, fresh ? nullptr : before.data(),
                      after.data(), channels});
      out.insert(out.end(), after.begin(), after.end());
      return out;
    };
    expect_same("convolve", ops.level(), run(scalar), run(ops));
  }
}

void check_delta(const LayerOps& scalar, const LayerOps& ops, size_t key_dim, size_t columns,
                 Random& random) {
  constexpr size_t kRows = 5;
  const auto q = normals(random, kRows * key_dim), k = normals(random, kRows * key_dim, 0.2f);
  const auto v = normals(random, kRows * columns);
  std::vector<float> beta(kRows), decay(kRows);
  for (float& value : beta) value = static_cast<float>(random() % 1000) / 1000;
  for (float& value : decay) value = static_cast<float>(random() % 1000) / 1000;
  const auto before = normals(random, key_dim * kDeltaColumns);
  for (const bool fresh : {false, true}) {
    const auto run = [&](const LayerOps& table, bool delta) {
      std::vector<float> out(kRows * columns), after(before.size());
      const DeltaRows rows = {q.data(),     k.data(),
                              key_dim,      v.data(),
                              columns,      beta.data(),
                              decay.data(), 1,
                              out.data(),   columns,
                              kRows,        key_dim,
                              columns,      fresh ? nullptr : before.data(),
                              after.data()};
      if (delta)
        table.delta_rule(rows);
      else
        table.state_space(rows, 0.3f);
      out.insert(out.end(), after.begin(), after.end());
      return out;
    };
    expect_same("delta_rule", ops.level(), run(scalar, true), run(ops, true));
    expect_same("state_space", ops.level(), run(scalar, false), run(ops, false));
  }
}

void check_recurrences(const LayerOps& scalar, const LayerOps& ops, Random& random) {
  for (const size_t channels : {1, 16, 31, 64})
    for (const size_t taps : {2, 4, 16}) check_convolution(scalar, ops, channels, taps, random);
  for (const size_t key_dim : {1, 24, 128})
    for (const size_t columns : {1, 16, 20, 32}) check_delta(scalar, ops, key_dim, columns, random);
}

void check_level(SimdLevel level, Random& random) {
  const LayerOps &scalar = layer_ops(SimdLevel::kScalar), &ops = layer_ops(level);
  for (const size_t size :
       {1, 2, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 576, 1000, 4096}) {
    const auto weights = normals(random, size);
    for (const float scale : {1.0f, 30.0f, 1e-6f})
      check_vector_ops(scalar, ops, normals(random, size, scale), weights);
    check_vector_ops(scalar, ops, extremes(random, size), weights);
    check_kv(scalar, ops, normals(random, size, 3));
    check_kv(scalar, ops, normals(random, size, 1e-7f));
    check_kv(scalar, ops, extremes(random, size));
  }
  check_rope(scalar, ops, random);
  check_attentions(scalar, ops, random);
  check_recurrences(scalar, ops, random);
}

}  // namespace

int main() {
  Random random(test::seed());
  for (const SimdLevel level : offered_simd_levels(detect_cpu())) {
    check_level(level, random);
    std::printf("%s checked\n", std::string(simd_level_name(level)).c_str());
  }
  if (failures > 0) std::printf("%d mismatches\n", failures);
  return failures > 0 ? 1 : 0;
}
