#include "numerics/affine.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "numerics/affine_group.h"
#include "numerics/affine_search.h"
#include "numerics/float_types.h"

namespace sluice::numerics {
namespace {

constexpr float kScaleMin = 1e-7f;  // MLX's eps
constexpr size_t kGroupMax = 128;

float code_max(unsigned bits) { return static_cast<float>((1u << bits) - 1); }

size_t element_bytes(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }

void store_element(std::span<std::byte> out, size_t index, float value, DType dtype) {
  if (dtype == DType::kF32) {
    std::memcpy(out.data() + index * 4, &value, 4);
    return;
  }
  const uint16_t half = dtype == DType::kF16 ? f32_to_f16(value) : f32_to_bf16(value);
  std::memcpy(out.data() + index * 2, &half, 2);
}

float load_element(std::span<const std::byte> in, size_t index, DType dtype) {
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, in.data() + index * 4, 4);
    return value;
  }
  uint16_t half;
  std::memcpy(&half, in.data() + index * 2, 2);
  return dtype == DType::kF16 ? f16_to_f32(half) : bf16_to_f32(half);
}

void check_row(size_t columns, const ConstAffineRow& row, const QuantFormat& format, DType dtype) {
  SLUICE_CHECK(format.mode == QuantMode::kAffine);
  SLUICE_CHECK(std::ranges::count(kAffineBits, format.bits) == 1);
  SLUICE_CHECK(std::ranges::count(kAffineGroups, format.group_size) == 1);
  SLUICE_CHECK(dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16);
  SLUICE_CHECK(columns % format.group_size == 0);
  SLUICE_CHECK(row.weight.size() == columns / 8 * format.bits);
  const size_t groups = columns / format.group_size;
  SLUICE_CHECK(row.scales.size() == groups * element_bytes(dtype));
  SLUICE_CHECK(row.biases.size() == row.scales.size());
}

ConstAffineRow as_const(const AffineRow& row) { return {row.weight, row.scales, row.biases}; }

// std::round and std::rint with the sign of zero left as it comes.
float round_by(float value, ParityRule rule) {
  return rule == ParityRule::kCpu ? std::rint(value) : std::round(value);
}

// One group's encoding under construction.
struct Encoding {
  float scale = 0, bias = 0;  // as stored
  uint8_t codes[kGroupMax] = {};
};

Encoding encode_parity_group(std::span<const float> group, unsigned bits, DType dtype,
                             ParityRule rule) {
  const AffineGroup found = parity_group(group, bits, rule);
  Encoding encoding{round_to_dtype(found.scale, dtype), round_to_dtype(found.bias, dtype), {}};
  for (size_t i = 0; i < group.size(); ++i) {
    float code = round_by((group[i] - found.bias) / found.scale, rule);
    code = code > 0 ? code : 0;  // also for 0/0, where the scale has vanished
    encoding.codes[i] = static_cast<uint8_t>(std::min(code, code_max(bits)));
  }
  return encoding;
}

// The error of one group as affine_row_error defines it.
double group_error(std::span<const float> group, const Encoding& encoding, double* error_max) {
  double sum = 0;
  for (size_t i = 0; i < group.size(); ++i) {
    const float product = encoding.scale * static_cast<float>(encoding.codes[i]);
    const float decoded = product + encoding.bias;
    const double error = static_cast<double>(decoded) - static_cast<double>(group[i]);
    sum += error * error;
    if (error_max && std::fabs(error) > *error_max) *error_max = std::fabs(error);
  }
  return sum;
}

// A contender of the search with the sums that a least-squares refit needs.
struct Contender {
  float scale = 0, bias = 0;
  float error = std::numeric_limits<float>::infinity();
  float sum_q = 0, sum_qq = 0, sum_qd = 0;  // over codes q and d = w − bias
};

float searched_code(float d, float inverse, float n) {
  float y = std::fma(d, inverse, kRoundMagic);
  y = y > kRoundMagic ? y : kRoundMagic;
  y = y < kRoundMagic + n ? y : kRoundMagic + n;
  return y - kRoundMagic;
}

Contender evaluate(std::span<const float> group, float scale, float bias, float n) {
  Contender c{.scale = scale, .bias = bias};
  constexpr float kMax = std::numeric_limits<float>::max();
  constexpr float kMin = std::numeric_limits<float>::min();
  if (!(std::fabs(scale) >= kMin && std::fabs(scale) <= kMax && std::fabs(bias) <= kMax)) return c;
  const float inverse = 1.0f / scale;
  float error = 0;
  for (const float w : group) {
    const float d = w - bias;
    const float q = searched_code(d, inverse, n);
    const float e = std::fma(-scale, q, d);
    error = std::fma(e, e, error);
    c.sum_q = c.sum_q + q;
    c.sum_qq = std::fma(q, q, c.sum_qq);
    c.sum_qd = std::fma(q, d, c.sum_qd);
  }
  c.error = error;
  return c;
}

// Rounds to dtype; what is not finite becomes 0, which as a scale is no contender.
float store_finite(float value, DType dtype) {
  return std::fabs(value) <= std::numeric_limits<float>::max() ? round_to_dtype(value, dtype) : 0;
}

Contender search(std::span<const float> group, const QuantFormat& format, DType dtype) {
  const float n = code_max(format.bits);
  const float count = static_cast<float>(group.size());
  const AffineGroup found = parity_group(group, format.bits, ParityRule::kCpu);

  Contender best =
      evaluate(group, round_to_dtype(found.scale, dtype), round_to_dtype(found.bias, dtype), n);
  const auto contend = [&](float scale, float bias) {
    const Contender c = evaluate(group, scale, bias, n);
    if (c.error < best.error) best = c;
  };
  const size_t bits_index = std::ranges::find(kAffineBits, format.bits) - kAffineBits;
  const size_t group_index = std::ranges::find(kAffineGroups, format.group_size) - kAffineGroups;
  const BestStarts& table = kBestStarts[bits_index][group_index];
  for (int k = 0; k < table.count; ++k) {
    const float inner_part = static_cast<float>(256 - table.starts[k].inner) / 256.0f;
    const float edge_part = static_cast<float>(256 - table.starts[k].edge) / 256.0f;
    const float bias = store_finite(found.inner * inner_part, dtype);
    contend(store_finite((found.edge * edge_part - bias) / n, dtype), bias);
  }
  float sum_w = 0;
  for (const float w : group) sum_w = sum_w + w;
  for (int k = 0; k < kBestRefits; ++k) {
    const float sum_d = std::fma(-count, best.bias, sum_w);
    const float spread = std::fma(count, best.sum_qq, -(best.sum_q * best.sum_q));
    const float slope = std::fma(count, best.sum_qd, -(best.sum_q * sum_d)) / spread;
    const float scale = spread > 0 ? store_finite(slope, dtype) : 0;
    contend(scale, store_finite(best.bias + std::fma(-scale, best.sum_q, sum_d) / count, dtype));
  }
  return best;
}

Encoding encode_best_group(std::span<const float> group, const QuantFormat& format, DType dtype) {
  const float n = code_max(format.bits);
  const Encoding parity = encode_parity_group(group, format.bits, dtype, ParityRule::kCpu);
  const Contender best = search(group, format, dtype);
  Encoding searched{best.scale, best.bias, {}};
  for (size_t i = 0; i < group.size(); ++i) {
    const float d = group[i] - best.bias;
    searched.codes[i] = static_cast<uint8_t>(searched_code(d, 1.0f / best.scale, n));
  }
  double parity_error = group_error(group, parity, nullptr);
  if (!(parity_error <= std::numeric_limits<double>::max()))
    parity_error = std::numeric_limits<double>::infinity();
  const bool wins = best.error < std::numeric_limits<float>::infinity() &&
                    group_error(group, searched, nullptr) < parity_error * kBestMargin;
  return wins ? searched : parity;
}

template <class EncodeGroup>
void encode_row(std::span<const float> row, const QuantFormat& format, DType dtype,
                const AffineRow& out, EncodeGroup encode_group) {
  check_row(row.size(), as_const(out), format, dtype);
  const size_t size = format.group_size;
  const size_t packed = size / 8 * format.bits;
  for (size_t g = 0; g < row.size() / size; ++g) {
    const Encoding encoding = encode_group(row.subspan(g * size, size));
    pack_codes({encoding.codes, size}, format.bits, out.weight.subspan(g * packed, packed));
    store_element(out.scales, g, encoding.scale, dtype);
    store_element(out.biases, g, encoding.bias, dtype);
  }
}

Encoding read_group(const ConstAffineRow& in, const QuantFormat& format, DType dtype, size_t g) {
  const size_t size = format.group_size;
  const size_t packed = size / 8 * format.bits;
  Encoding encoding{load_element(in.scales, g, dtype), load_element(in.biases, g, dtype), {}};
  unpack_codes(in.weight.subspan(g * packed, packed), format.bits, {encoding.codes, size});
  return encoding;
}

}  // namespace

AffineGroup parity_group(std::span<const float> group, unsigned bits, ParityRule rule) {
  float high = rule == ParityRule::kCpu ? group[0] : 0;
  float low = group[0];
  for (const float w : group) {
    high = std::max(high, w);
    low = std::min(low, w);
  }
  const bool low_edge = std::fabs(low) > std::fabs(high);
  AffineGroup found{};
  found.edge = low_edge ? low : high;
  found.inner = low_edge ? high : low;
  found.scale = std::max((high - low) / code_max(bits), kScaleMin);
  if (!low_edge) found.scale = -found.scale;
  const float steps = round_by(found.edge / found.scale, rule);
  if (steps != 0) {
    found.scale = found.edge / steps;
    found.bias = found.edge;
  }
  return found;
}

SearchedGroup search_group(std::span<const float> group, const QuantFormat& format, DType dtype) {
  const Contender best = search(group, format, dtype);
  return {best.scale, best.bias, best.error};
}

float searched_error_at(float w, const SearchedGroup& found, unsigned bits) {
  const float d = w - found.bias;
  return std::fma(-found.scale, searched_code(d, 1.0f / found.scale, code_max(bits)), d);
}

double parity_group_error(std::span<const float> group, unsigned bits, DType dtype,
                          double* error_max) {
  return group_error(group, encode_parity_group(group, bits, dtype, ParityRule::kCpu), error_max);
}

float round_to_dtype(float value, DType dtype) {
  switch (dtype) {
    case DType::kBF16: return bf16_to_f32(f32_to_bf16(value));
    case DType::kF16: return f16_to_f32(f32_to_f16(value));
    default: return value;
  }
}

void encode_affine_parity(std::span<const float> row, const QuantFormat& format, DType dtype,
                          ParityRule rule, const AffineRow& out) {
  encode_row(row, format, dtype, out, [&](std::span<const float> group) {
    return encode_parity_group(group, format.bits, dtype, rule);
  });
}

void encode_affine_best(std::span<const float> row, const QuantFormat& format, DType dtype,
                        const AffineRow& out) {
  encode_row(row, format, dtype, out,
             [&](std::span<const float> group) { return encode_best_group(group, format, dtype); });
}

void decode_affine(const ConstAffineRow& in, const QuantFormat& format, DType dtype,
                   std::span<float> out) {
  check_row(out.size(), in, format, dtype);
  const size_t size = format.group_size;
  for (size_t g = 0; g < out.size() / size; ++g) {
    const Encoding encoding = read_group(in, format, dtype, g);
    for (size_t i = 0; i < size; ++i) {
      const float product = encoding.scale * static_cast<float>(encoding.codes[i]);
      out[g * size + i] = product + encoding.bias;
    }
  }
}

ErrorStats affine_row_error(std::span<const float> row, const ConstAffineRow& in,
                            const QuantFormat& format, DType dtype) {
  check_row(row.size(), in, format, dtype);
  const size_t size = format.group_size;
  ErrorStats stats;
  for (size_t g = 0; g < row.size() / size; ++g) {
    const std::span<const float> group = row.subspan(g * size, size);
    stats.squared_error += group_error(group, read_group(in, format, dtype, g), &stats.error_max);
    double squared_weight = 0;
    for (const float w : group) squared_weight += static_cast<double>(w) * static_cast<double>(w);
    stats.squared_weight += squared_weight;
  }
  return stats;
}

void pack_codes(std::span<const uint8_t> codes, unsigned bits, std::span<std::byte> out) {
  SLUICE_CHECK(codes.size() % 8 == 0 && out.size() == codes.size() / 8 * bits);
  for (size_t block = 0; block < codes.size() / 8; ++block) {
    uint64_t word = 0;
    for (size_t i = 0; i < 8; ++i) word |= uint64_t{codes[block * 8 + i]} << (i * bits);
    for (size_t i = 0; i < bits; ++i)
      out[block * bits + i] = static_cast<std::byte>(word >> (i * 8));
  }
}

void unpack_codes(std::span<const std::byte> packed, unsigned bits, std::span<uint8_t> codes) {
  SLUICE_CHECK(codes.size() % 8 == 0 && packed.size() == codes.size() / 8 * bits);
  const uint64_t mask = (uint64_t{1} << bits) - 1;
  for (size_t block = 0; block < codes.size() / 8; ++block) {
    uint64_t word = 0;
    for (size_t i = 0; i < bits; ++i)
      word |= static_cast<uint64_t>(packed[block * bits + i]) << (i * 8);
    for (size_t i = 0; i < 8; ++i)
      codes[block * 8 + i] = static_cast<uint8_t>((word >> (i * bits)) & mask);
  }
}

size_t find_unencodable(std::span<const float> row) {
  for (size_t start = 0; start < row.size(); start += kGroupMax) {
    const std::span<const float> group =
        row.subspan(start, std::min(kGroupMax, row.size() - start));
    float low = group[0], high = group[0];
    for (size_t i = 0; i < group.size(); ++i) {
      if (!std::isfinite(group[i])) return start + i;
      low = std::min(low, group[i]);
      high = std::max(high, group[i]);
    }
    if (!std::isfinite(high - low)) return start;
  }
  return row.size();
}

}  // namespace sluice::numerics
