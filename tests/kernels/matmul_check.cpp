// Holds the matrix products of every instruction set this processor offers against the plain model,
// bit for bit, for every number of tokens and split of rows; and the model against exact sums. A
// plain program without a test library, so that the ARM build of it runs under qemu.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/cpu.h"
#include "kernels/matmul.h"
#include "kernels/matmul_model.h"
#include "numerics/block_codec.h"
#include "numerics/coded_row.h"
#include "numerics/float_types.h"
#include "support/seed.h"

namespace {

using namespace sluice;
using namespace sluice::numerics;
using kernels::Activations;
using kernels::MatmulTable;

constexpr size_t kRows = 35, kTokens = 33, kSlack = 64;

int failures = 0;

#define EXPECT_HOLDS(condition, ...)          \
  do {                                        \
    if (!(condition) && ++failures <= 20) {   \
      std::printf("FAILED %s: ", #condition); \
      std::printf(__VA_ARGS__);               \
      std::printf("\n");                      \
    }                                         \
  } while (false)

// Bytes aligned as the products want them.
struct Bytes64 {
  explicit Bytes64(size_t size)
      : bytes(static_cast<std::byte*>(std::aligned_alloc(64, (size + 127) / 64 * 64))) {}
  ~Bytes64() { std::free(bytes); }
  Bytes64(const Bytes64&) = delete;
  Bytes64& operator=(const Bytes64&) = delete;
  std::byte* bytes;
};

enum class Codes { kRandom, kAllMax, kAlternating };

struct Weights {
  std::vector<std::byte> weight, scales, biases;
  WeightView view;
};

void put_half(std::byte* at, float value) {
  const uint16_t bits = f32_to_f16(value);
  std::memcpy(at, &bits, 2);
}

// Where the f16 scales of a block lie; random bytes would make most of them absurd.
std::vector<size_t> half_places(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0:
    case DType::kQ5_0:
    case DType::kQ8_0:
    case DType::kIQ4_NL:
    case DType::kIQ4_XS: return {0};
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K: return {0, 2};
    case DType::kQ2_K: return {80, 82};
    case DType::kQ3_K: return {108};
    case DType::kQ6_K: return {208};
    default: return {};
  }
}

// An exponent of which products stay within f32.
std::byte scale_byte(std::mt19937_64& random) { return static_cast<std::byte>(60 + random() % 66); }

Weights make_weights(const WeightFormat& format, size_t columns, Codes codes,
                     std::mt19937_64& random) {
  const EncodedBytes bytes = row_bytes(format, columns);
  Weights w;
  w.weight.resize(kRows * bytes.weight + kSlack);
  w.scales.resize(kRows * bytes.scales + kSlack);
  w.biases.resize(kRows * bytes.biases + kSlack);
  size_t index = 0;
  for (std::byte& b : w.weight) {
    const auto value = static_cast<uint8_t>(random());
    const uint8_t even = index++ % 2 == 0 ? 0x0f : 0xf0;
    b = static_cast<std::byte>(codes == Codes::kRandom   ? value
                               : codes == Codes::kAllMax ? 0xff
                                                         : even);
  }
  std::uniform_real_distribution<float> near(-1, 1);
  if (format.quant.mode == QuantMode::kAffine) {
    for (auto* part : {&w.scales, &w.biases}) {
      const size_t count = kRows * columns / format.quant.group_size;
      std::vector<float> values(count);
      for (float& v : values)
        v = near(random) * std::ldexp(1.0f, static_cast<int>(random() % 12) - 8);
      encode_elements(format.dtype, values,
                      std::span(*part).first(count * dtype_info(format.dtype).block_bytes));
    }
  } else if (format.quant.mode == QuantMode::kFloat) {
    const size_t block = dtype_info(format.dtype).block_bytes;
    for (size_t at = 0; at + block <= w.weight.size(); at += block)
      for (const size_t place : half_places(format.dtype))
        put_half(w.weight.data() + at + place, near(random));
    if (format.dtype == DType::kMXFP4) {
      for (size_t at = 0; at < w.weight.size(); at += block) w.weight[at] = scale_byte(random);
      // The ends of the range, each in a row of its own, over codes that stay within f32.
      for (const auto& [row, scale] : {std::pair<size_t, int>{0, 255}, {1, 254}, {2, 1}, {3, 0}}) {
        std::byte* at = w.weight.data() + row * bytes.weight;
        std::fill_n(at, block, std::byte{0x11});
        *at = static_cast<std::byte>(scale);
      }
    }
    if (format.dtype == DType::kF32 || format.dtype == DType::kF16 ||
        format.dtype == DType::kBF16) {
      std::vector<float> values(kRows * columns);
      for (float& v : values) v = near(random);
      encode_elements(format.dtype, values, std::span(w.weight).first(kRows * bytes.weight));
    }
  } else {
    for (std::byte& b : w.scales) b = scale_byte(random);
  }
  w.view = {format, kRows, columns, w.weight.data(), w.scales.data(), w.biases.data()};
  return w;
}

// Token rows of several kinds: near Gaussian, largest values of alternating and of one sign (where
// sums of products saturate if they can), outliers, zeros.
std::vector<float> make_token(size_t columns, size_t kind, std::mt19937_64& random) {
  std::vector<float> x(columns);
  std::normal_distribution<float> normal;
  for (size_t i = 0; i < columns; ++i) {
    switch (kind % 5) {
      case 0: x[i] = normal(random); break;
      case 1: x[i] = i % 2 == 0 ? 3.0f : -3.0f; break;
      case 2: x[i] = kind % 2 == 0 ? 5.0f : -5.0f; break;
      case 3: x[i] = normal(random) * (random() % 50 == 0 ? 100.0f : 1.0f); break;
      default: x[i] = i / 64 % 2 == 0 ? 0.0f : normal(random) * 1e-3f; break;
    }
  }
  return x;
}

std::string name_of(const WeightFormat& format, Activations activations) {
  const char* names[] = {"f32", "i16", "i8"};
  std::string text =
      format.quant.mode == QuantMode::kFloat
          ? std::string(dtype_info(format.dtype).name)
          : format_text(format.quant) + " " + std::string(dtype_info(format.dtype).name);
  return text + " x " + names[static_cast<int>(activations)];
}

bool same(float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); }

// The model's element against the exact sum: half a step of each activation, and f32's rounding of
// the terms that are added.
void check_against_exact(const Weights& w, const kernels::PreparedLayout& layout,
                         const std::vector<std::vector<float>>& tokens,
                         const std::vector<float>& model, const std::string& name) {
  std::vector<float> row(w.view.columns);
  for (size_t r = 0; r < kRows; r += 17) {
    decode_row(w.view, r, row);
    for (size_t t = 0; t < tokens.size(); t += 4) {
      double exact = 0, limit = 1e-30, reach = 0;
      const size_t group = layout.groups > 0 ? layout.group : w.view.columns;
      const double top = layout.activations == Activations::kI8 ? 127 : 32767;
      for (size_t g = 0; g < w.view.columns; g += group) {
        double max = 0, weight_max = 0;
        for (size_t i = g; i < g + group; ++i) {
          max = std::max(max, std::fabs(double{tokens[t][i]}));
          weight_max = std::max(weight_max, std::fabs(double{row[i]}));
        }
        for (size_t i = g; i < g + group; ++i) {
          exact += double{row[i]} * double{tokens[t][i]};
          reach += weight_max * max;
          // A bias and a code's share may both be larger than the weight that they add up to.
          limit += 4e-6 * 300 * weight_max * max / static_cast<double>(group);
          limit += 4e-6 * std::fabs(double{row[i]} * double{tokens[t][i]});
          if (layout.groups > 0) limit += std::fabs(double{row[i]}) * max / top * 0.51;
        }
      }
      const double got = model[t * kRows + r];
      // Random scale bytes of some types reach past what f32 holds.
      if (!(std::fabs(exact) < 1e36 && reach < 1e36)) continue;
      EXPECT_HOLDS(std::fabs(got - exact) <= limit, "%s row %zu token %zu: %g, exactly %g ± %g",
                   name.c_str(), r, t, got, exact, limit);
    }
  }
}

void check_case(const MatmulTable& table, const WeightFormat& format, Activations activations,
                size_t columns, Codes codes, std::mt19937_64& random) {
  const Weights w = make_weights(format, columns, codes, random);
  const std::string name = name_of(format, activations) + " " + std::to_string(columns) +
                           " columns, codes " + std::to_string(static_cast<int>(codes));
  std::vector<std::vector<float>> tokens;
  for (size_t t = 0; t < kTokens; ++t) tokens.push_back(make_token(columns, t, random));

  const kernels::PreparedLayout layout = kernels::prepared_layout(format, activations, columns);
  const Bytes64 model_prepared(kTokens * layout.bytes);
  for (size_t t = 0; t < kTokens; ++t)
    prepare_model(layout, tokens[t], model_prepared.bytes + t * layout.bytes);
  const Bytes64 model_scratch(scratch_bytes_model(layout, columns));
  std::vector<float> model(kTokens * kRows);
  matmul_model(w.view, layout, model_prepared.bytes, kTokens, 0, kRows, model.data(), kRows,
               model_scratch.bytes);
  check_against_exact(w, layout, tokens, model, name);

  const size_t bytes = table.prepared_bytes(format, activations, columns);
  const Bytes64 prepared(kTokens * bytes);
  for (size_t t = 0; t < kTokens; ++t)
    table.prepare(format, activations, tokens[t], prepared.bytes + t * bytes);
  const Bytes64 scratch(table.scratch_bytes(format, activations, columns, kTokens));
  // The scalar table is the model.
  const std::vector<size_t> counts =
      table.level() == SimdLevel::kScalar
          ? std::vector<size_t>{1, 4}
          : std::vector<size_t>{1, 2, 3, 5, 7, 8, 10, 11, 31, 32, 33};
  for (const size_t count : counts) {
    std::vector<float> whole(count * kRows), parts(count * kRows);
    table.matmul(w.view, activations, prepared.bytes, count, 0, kRows, whole.data(), kRows,
                 scratch.bytes);
    table.matmul(w.view, activations, prepared.bytes, count, 0, 16, parts.data(), kRows,
                 scratch.bytes);
    table.matmul(w.view, activations, prepared.bytes, count, 16, kRows, parts.data() + 16, kRows,
                 scratch.bytes);
    for (size_t i = 0; i < whole.size(); ++i) {
      EXPECT_HOLDS(same(whole[i], model[i]), "%s, %zu tokens, token %zu row %zu: %a, model %a",
                   name.c_str(), count, i / kRows, i % kRows, double{whole[i]}, double{model[i]});
      EXPECT_HOLDS(same(whole[i], parts[i]), "%s, %zu tokens: rows split", name.c_str(), count);
    }
  }
}

// Codes and scales taken apart make the weights that decoding makes.
void check_parts(const WeightFormat& format, size_t columns, std::mt19937_64& random) {
  const Weights w = make_weights(format, columns, Codes::kRandom, random);
  const auto coded = coded_format(format);
  std::vector<uint8_t> codes(columns);
  std::vector<float> scales(columns / coded->group), biases(scales.size()), row(columns);
  for (size_t r = 0; r < kRows; r += 7) {
    take_row_apart(w.view, r, codes, scales, biases);
    decode_row(w.view, r, row);
    for (size_t i = 0; i < columns; ++i) {
      const size_t g = i / coded->group;
      const double share = double{scales[g]} * (int{codes[i]} - coded->offset);
      const double limit = 1e-6 * (std::fabs(share) + std::fabs(double{biases[g]}));
      EXPECT_HOLDS(codes[i] <= coded->code_max, "%s code",
                   name_of(format, Activations::kI8).c_str());
      EXPECT_HOLDS(std::fabs(share + double{biases[g]} - double{row[i]}) <= limit,
                   "%s element %zu: %g, decoded %g", name_of(format, Activations::kI8).c_str(), i,
                   share + double{biases[g]}, double{row[i]});
    }
  }
}

std::vector<WeightFormat> coded_formats() {
  std::vector<WeightFormat> formats;
  for (const uint8_t bits : kAffineBits)
    for (const uint16_t group : kAffineGroups)
      for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16})
        formats.push_back({{QuantMode::kAffine, bits, group}, dtype});
  formats.push_back({kFpFormats[0], DType::kBF16});
  formats.push_back({kFpFormats[2], DType::kBF16});
  for (const DType dtype : {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0,
                            DType::kQ2_K, DType::kQ3_K, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K,
                            DType::kIQ4_NL, DType::kIQ4_XS, DType::kMXFP4})
    formats.push_back({{}, dtype});
  return formats;
}

void check_coded(const MatmulTable& table, std::mt19937_64& random) {
  for (const WeightFormat& format : coded_formats()) {
    const size_t block = format.quant.mode == QuantMode::kFloat
                             ? dtype_info(format.dtype).block_elements
                             : format.quant.group_size;
    check_parts(format, block * 3, random);
    for (const Activations activations : {Activations::kI8, Activations::kI16}) {
      // Fewer groups than products take together, and some eights of them with a rest.
      const size_t many = block * (block == 256 ? 2 : 19);
      check_case(table, format, activations, block, Codes::kAllMax, random);
      check_case(table, format, activations, many, Codes::kAllMax, random);
      check_case(table, format, activations, block * 3, Codes::kAlternating, random);
      check_case(table, format, activations, many, Codes::kAlternating, random);
      check_case(table, format, activations, many, Codes::kRandom, random);
    }
    check_case(table, format, Activations::kF32, block * 3, Codes::kRandom, random);
  }
}

// Everything that is multiplied as floats.
void check_floats(const MatmulTable& table, std::mt19937_64& random) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16})
    for (const size_t columns : {1u, 15u, 16u, 31u, 100u, 257u})
      check_case(table, {{}, dtype}, Activations::kF32, columns, Codes::kRandom, random);
  // Too many activations for all tokens to stay in a cache.
  check_case(table, {{}, DType::kBF16}, Activations::kF32, 5000, Codes::kRandom, random);
  // NaNs among the codes, and none.
  for (const Codes codes : {Codes::kRandom, Codes::kAllMax, Codes::kAlternating})
    check_case(table, {kFpFormats[1], DType::kBF16}, Activations::kI8, 96, codes, random);
  for (size_t type = static_cast<size_t>(DType::kIQ1_S); type <= static_cast<size_t>(DType::kNVFP4);
       ++type)
    check_case(table, {{}, static_cast<DType>(type)}, Activations::kI8, 512, Codes::kRandom,
               random);
}

// NaN and infinity in an activation show in the result.
void check_poison(const MatmulTable& table, std::mt19937_64& random) {
  const WeightFormat format = {{QuantMode::kAffine, 4, 64}, DType::kBF16};
  const Weights w = make_weights(format, 128, Codes::kRandom, random);
  for (const float bad : {std::nanf(""), INFINITY, -INFINITY}) {
    std::vector<float> x = make_token(128, 0, random), y(kRows);
    x[77] = bad;
    const Bytes64 prepared(table.prepared_bytes(format, Activations::kI8, 128));
    const Bytes64 scratch(table.scratch_bytes(format, Activations::kI8, 128, 1));
    table.prepare(format, Activations::kI8, x, prepared.bytes);
    table.matmul(w.view, Activations::kI8, prepared.bytes, 1, 0, kRows, y.data(), kRows,
                 scratch.bytes);
    for (const float value : y) EXPECT_HOLDS(std::isnan(value), "poison gives %g", double{value});
  }
}

void check_peak(const MatmulTable& table) {
  for (const Activations kind : {Activations::kF32, Activations::kI16, Activations::kI8}) {
    const uint64_t done = table.multiply_only(kind, 1'000'000);
    const bool some = done >= 1'000'000 && done < 1'100'000;
    EXPECT_HOLDS(table.level() == SimdLevel::kScalar ? done == 0 : some, "%llu products",
                 static_cast<unsigned long long>(done));
  }
}

}  // namespace

int main() {
  const uint64_t seed = test::seed();
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  for (const SimdLevel level : offered_simd_levels(detect_cpu()))
    for (const MatmulTable& table : kernels::matmul_tables(level)) {
      const int before = failures;
      std::mt19937_64 random(seed);
      check_coded(table, random);
      check_floats(table, random);
      check_poison(table, random);
      check_peak(table);
      std::printf("%s: %s\n", std::string(simd_level_name(table.level())).c_str(),
                  failures == before ? "the model's bits" : "FAILED");
    }
  return failures == 0 ? 0 : 1;
}
