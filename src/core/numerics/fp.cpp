#include "numerics/fp.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "numerics/affine_group.h"
#include "numerics/affine_search.h"
#include "numerics/block_codec.h"
#include "numerics/fp_constants.h"

namespace sluice::numerics {
namespace {

constexpr size_t kGroupMax = 32;
constexpr int kExponentBias = 127;  // of E8M0
constexpr float kInfinity = std::numeric_limits<float>::infinity();

bool has_e4m3_codes(const QuantFormat& format) { return format.mode == QuantMode::kMxfp8; }
bool has_e4m3_scales(const QuantFormat& format) { return format.mode == QuantMode::kNvfp4; }

void check_row(size_t columns, const ConstFpRow& row, const QuantFormat& format) {
  SLUICE_CHECK(is_fp(format));
  SLUICE_CHECK(columns % format.group_size == 0);
  SLUICE_CHECK(row.weight.size() == columns / 8 * format.bits);
  SLUICE_CHECK(row.scales.size() == columns / format.group_size);
}

ConstFpRow as_const(const FpRow& row) { return {row.weight, row.scales}; }

float scale_value(uint8_t byte, const QuantFormat& format) {
  return has_e4m3_scales(format) ? e4m3_value(byte) : std::ldexp(1.0f, byte - kExponentBias);
}

float code_value(uint8_t code, const QuantFormat& format) {
  return has_e4m3_codes(format) ? e4m3_value(code) : kE2M1[code];
}

// ---- parity ----

float group_max(std::span<const float> group) {
  float max = 0;
  for (const float w : group) max = std::max(max, std::fabs(w));
  return max;
}

// What the scale is rounded from.
float parity_scale(std::span<const float> group, const QuantFormat& format, DType dtype) {
  const float code_max = has_e4m3_codes(format) ? kE4M3Max : kE2M1Max;
  return round_to_dtype(group_max(group) / code_max, dtype);
}

// As mlx finds it: the first of the smallest differences, computed in dtype.
uint8_t first_nearest_e2m1(float x, DType dtype) {
  uint8_t best = 0;
  float least = kInfinity;
  for (uint8_t code = 0; code < 16; ++code) {
    const float difference = std::fabs(round_to_dtype(x - kE2M1[code], dtype));
    if (!(difference < least)) continue;
    least = difference;
    best = code;
  }
  return best;
}

// One group's encoding under construction.
struct Encoding {
  uint8_t scale = 0;
  uint8_t codes[kGroupMax] = {};
};

Encoding encode_parity_group(std::span<const float> group, const QuantFormat& format, DType dtype) {
  const float s = parity_scale(group, format, dtype);
  Encoding encoding;
  float scale = 0;
  if (has_e4m3_scales(format)) {
    encoding.scale = nearest_e4m3(s);
    scale = e4m3_value(encoding.scale);
  } else {
    const int exponent = parity_exponent(s);
    encoding.scale = static_cast<uint8_t>(exponent + kExponentBias);
    scale = std::ldexp(1.0f, exponent);
  }
  // nvfp4's quotient meets an f32 factor of one, which makes the differences f32.
  const DType difference_dtype = has_e4m3_scales(format) ? DType::kF32 : dtype;
  for (size_t i = 0; i < group.size(); ++i) {
    const float quotient = round_to_dtype(group[i] / scale, dtype);
    encoding.codes[i] = has_e4m3_codes(format) ? nearest_e4m3(quotient)
                                               : first_nearest_e2m1(quotient, difference_dtype);
  }
  return encoding;
}

// The error of one group as fp_row_error defines it.
double group_error(std::span<const float> group, const Encoding& encoding,
                   const QuantFormat& format, double* error_max) {
  const float scale = scale_value(encoding.scale, format);
  double sum = 0;
  for (size_t i = 0; i < group.size(); ++i) {
    const float decoded = code_value(encoding.codes[i], format) * scale;
    const double error = static_cast<double>(decoded) - static_cast<double>(group[i]);
    sum += error * error;
    if (error_max && std::fabs(error) > *error_max) *error_max = std::fabs(error);
  }
  return sum;
}

// ---- best ----

// Value nearest to a ≥ 0, ties to the even code.
float nearest_value(float a, const QuantFormat& format) {
  if (has_e4m3_codes(format)) return e4m3_value(nearest_e4m3(a));
  const float step = a < 2 ? 0.5f : a < 4 ? 1.0f : 2.0f;
  return std::min(std::rint(a / step) * step, kE2M1Max);
}

uint8_t code_of_value(float value, const QuantFormat& format) {
  if (has_e4m3_codes(format)) return nearest_e4m3(value);
  return static_cast<uint8_t>(std::ranges::find(kE2M1, value) - kE2M1);
}

float contender_error(std::span<const float> group, float scale, const QuantFormat& format) {
  if (scale == 0) return kInfinity;
  const float inverse = 1.0f / scale;
  float error = 0;
  for (const float w : group) {
    const float a = std::fabs(w);
    const float e = std::fma(-scale, nearest_value(a * inverse, format), a);
    error = std::fma(e, e, error);
  }
  return error;
}

bool is_unscalable(std::span<const float> group, const QuantFormat& format, DType dtype) {
  return !has_e4m3_scales(format) &&
         parity_exponent(parity_scale(group, format, dtype)) < -kExponentBias;
}

Encoding encode_best_group(std::span<const float> group, const QuantFormat& format, DType dtype) {
  const Encoding parity = encode_parity_group(group, format, dtype);
  const int centre = is_unscalable(group, format, dtype) ? 0 : parity.scale;
  const ScaleSearch search = has_e4m3_scales(format) ? kSearchE4m3 : kSearchE8m0;
  int leader = centre;
  float least = contender_error(group, scale_value(static_cast<uint8_t>(centre), format), format);
  for (int offset = search.first; offset <= search.last; ++offset) {
    const int byte = centre + offset;
    if (offset == 0 || byte < 0 || byte > search.max) continue;
    const float error =
        contender_error(group, scale_value(static_cast<uint8_t>(byte), format), format);
    if (!(error < least)) continue;
    least = error;
    leader = byte;
  }
  if (!(least < kInfinity)) return parity;

  Encoding searched{static_cast<uint8_t>(leader), {}};
  const float inverse = 1.0f / scale_value(searched.scale, format);
  const uint8_t sign = has_e4m3_codes(format) ? 0x80 : 8;
  for (size_t i = 0; i < group.size(); ++i) {
    const uint8_t code =
        code_of_value(nearest_value(std::fabs(group[i]) * inverse, format), format);
    searched.codes[i] = group[i] < 0 && code != 0 ? static_cast<uint8_t>(code | sign) : code;
  }
  double bar = group_error(group, parity, format, nullptr);
  if (!(bar <= std::numeric_limits<double>::max())) bar = std::numeric_limits<double>::infinity();
  return group_error(group, searched, format, nullptr) < bar * kBestMargin ? searched : parity;
}

// ---- rows ----

template <class EncodeGroup>
void encode_row(std::span<const float> row, const QuantFormat& format, const FpRow& out,
                EncodeGroup encode_group) {
  check_row(row.size(), as_const(out), format);
  const size_t size = format.group_size;
  const size_t packed = size / 8 * format.bits;
  for (size_t g = 0; g < row.size() / size; ++g) {
    const Encoding encoding = encode_group(row.subspan(g * size, size));
    pack_codes({encoding.codes, size}, format.bits, out.weight.subspan(g * packed, packed));
    out.scales[g] = static_cast<std::byte>(encoding.scale);
  }
}

Encoding read_group(const ConstFpRow& in, const QuantFormat& format, size_t g) {
  const size_t size = format.group_size;
  const size_t packed = size / 8 * format.bits;
  Encoding encoding{static_cast<uint8_t>(in.scales[g]), {}};
  unpack_codes(in.weight.subspan(g * packed, packed), format.bits, {encoding.codes, size});
  return encoding;
}

}  // namespace

int parity_exponent(float s) {
  if (s == 0) return 0;
  int exponent = 0;
  const float fraction = std::frexp(s, &exponent);  // s = fraction·2^exponent, 1/2 ≤ fraction < 1
  return fraction == 0.5f ? exponent - 1 : exponent;
}

float e4m3_value(uint8_t code) {
  const int exponent = (code >> 3) & 0xf, mantissa = code & 7;
  if ((code & 0x7f) == 0x7f) return std::numeric_limits<float>::quiet_NaN();
  const float magnitude = exponent == 0
                              ? std::ldexp(static_cast<float>(mantissa), -9)
                              : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

uint8_t nearest_e4m3(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint8_t>((bits >> 24) & 0x80);
  const float magnitude = std::fabs(value);
  if (!(magnitude < kE4M3Max)) return sign | kE4M3MaxCode;
  if (magnitude < kE4M3NormalMin) return sign | static_cast<uint8_t>(std::rint(magnitude * 512.0f));
  // To four significant bits, half to even; the exponent moves from f32's bias to 7.
  const uint32_t size = bits & 0x7fffffffu;
  const uint32_t rounded = (size + 0x7ffffu + ((size >> 20) & 1u)) >> 20;
  return sign | static_cast<uint8_t>(rounded - ((127 - 7) << 3));
}

void encode_fp_parity(std::span<const float> row, const QuantFormat& format, DType dtype,
                      const FpRow& out) {
  encode_row(row, format, out, [&](std::span<const float> group) {
    return encode_parity_group(group, format, dtype);
  });
}

size_t find_unscalable(std::span<const float> row, const QuantFormat& format, DType dtype) {
  SLUICE_CHECK(is_fp(format) && row.size() % format.group_size == 0);
  for (size_t start = 0; start < row.size(); start += format.group_size)
    if (is_unscalable(row.subspan(start, format.group_size), format, dtype)) return start;
  return row.size();
}

void encode_fp_best(std::span<const float> row, const QuantFormat& format, DType dtype,
                    const FpRow& out) {
  encode_row(row, format, out,
             [&](std::span<const float> group) { return encode_best_group(group, format, dtype); });
}

void decode_fp(const ConstFpRow& in, const QuantFormat& format, std::span<float> out) {
  check_row(out.size(), in, format);
  const size_t size = format.group_size;
  for (size_t g = 0; g < out.size() / size; ++g) {
    const Encoding encoding = read_group(in, format, g);
    const float scale = scale_value(encoding.scale, format);
    for (size_t i = 0; i < size; ++i)
      out[g * size + i] = code_value(encoding.codes[i], format) * scale;
  }
}

bool mxfp4_to_affine(const ConstFpRow& in, DType dtype, const AffineRow& out) {
  constexpr size_t kGroup = kMxfp4AsAffine.group_size;
  constexpr uint8_t kZero = 12;
  constexpr uint8_t kDoubled[] = {0, 1, 2, 3, 4, 6, 8, 12};
  // Of scale in dtype: 2^e is a normal number, and its products with codes up to 24 are finite.
  const int least = dtype == DType::kF16 ? -14 : -126;
  const int most = (dtype == DType::kF16 ? 15 : 127) - 4;
  const size_t width = dtype_info(dtype).block_bytes;
  for (size_t group = 0; group < in.scales.size(); ++group) {
    const int exponent = static_cast<int>(in.scales[group]) - 128;
    if (exponent < least || exponent > most) return false;
    const float scale = std::ldexp(1.0f, exponent);
    const float values[] = {scale, -float{kZero} * scale};
    encode_elements(dtype, std::span(values).first(1), out.scales.subspan(group * width, width));
    encode_elements(dtype, std::span(values).last(1), out.biases.subspan(group * width, width));
    uint8_t codes[kGroup];
    for (size_t i = 0; i < kGroup; ++i) {
      const auto pair = static_cast<uint8_t>(in.weight[(group * kGroup + i) / 2]);
      const uint8_t code = i % 2 == 0 ? pair & 15 : pair >> 4;
      const uint8_t size = kDoubled[code & 7];
      codes[i] = static_cast<uint8_t>(code & 8 ? kZero - size : kZero + size);
    }
    constexpr size_t kBytes = kGroup * kMxfp4AsAffine.bits / 8;
    pack_codes(codes, kMxfp4AsAffine.bits, out.weight.subspan(group * kBytes, kBytes));
  }
  return true;
}

ErrorStats fp_row_error(std::span<const float> row, const ConstFpRow& in,
                        const QuantFormat& format) {
  check_row(row.size(), in, format);
  const size_t size = format.group_size;
  ErrorStats stats;
  for (size_t g = 0; g < row.size() / size; ++g) {
    const std::span<const float> group = row.subspan(g * size, size);
    stats.squared_error += group_error(group, read_group(in, format, g), format, &stats.error_max);
    double squared_weight = 0;
    for (const float w : group) squared_weight += static_cast<double>(w) * static_cast<double>(w);
    stats.squared_weight += squared_weight;
  }
  return stats;
}

// ---- pricing ----

namespace {

constexpr size_t kLanes = 16;
constexpr float kQuotientMax = 0x1p20f;  // beyond it mlx's differences lose the smallest values

float fold(float (&lanes)[kLanes]) {
  for (size_t half = kLanes / 2; half > 0; half /= 2)
    for (size_t l = 0; l < half; ++l) lanes[l] = lanes[l] + lanes[l + half];
  return lanes[0];
}

// The scale of one group for pricing: positive, 0 where every code is 0, or infinite where MLX
// treats the group specially.
float price_scale(std::span<const float> group, const QuantFormat& format, DType dtype) {
  const float s = parity_scale(group, format, dtype);
  if (has_e4m3_scales(format)) {
    const float scale = e4m3_value(nearest_e4m3(s));
    return group_max(group) > scale * kQuotientMax && scale > 0 ? kInfinity : scale;
  }
  if (s > 0 && s < std::numeric_limits<float>::min()) return kInfinity;
  return std::ldexp(1.0f, parity_exponent(s));
}

float price_chunk(std::span<const float> chunk, const QuantFormat& format, DType dtype,
                  float& error_max) {
  float lanes[kLanes] = {};
  for (size_t start = 0; start < chunk.size(); start += format.group_size) {
    const std::span<const float> group = chunk.subspan(start, format.group_size);
    const float scale = price_scale(group, format, dtype);
    if (scale == kInfinity) {
      error_max = kInfinity;
      return kInfinity;
    }
    const float inverse = scale > 0 ? 1.0f / scale : 0;
    for (size_t i = 0; i < group.size(); ++i) {
      const float a = std::fabs(group[i]);
      const float value = nearest_value(a * inverse, format);
      const float error = std::fma(-scale, value, a);
      float& lane = lanes[i % kLanes];
      lane = std::fma(error, error, lane);
      error_max = std::fabs(error) > error_max ? std::fabs(error) : error_max;
    }
  }
  return fold(lanes);
}

}  // namespace

FpPrices price_fp_row(std::span<const float> row, DType dtype) {
  SLUICE_CHECK(!row.empty() && row.size() % kLanes == 0);
  FpPrices prices{};
  for (size_t index = 0; index < kFpCandidates; ++index) {
    const QuantFormat& format = kFpFormats[index];
    if (row.size() % format.group_size != 0) {
      prices.squared_error[index] = kInfinity;
      prices.error_max[index] = kInfinity;
      continue;
    }
    for (size_t start = 0; start < row.size(); start += kPriceChunk) {
      const auto chunk = row.subspan(start, std::min<size_t>(kPriceChunk, row.size() - start));
      prices.squared_error[index] +=
          static_cast<double>(price_chunk(chunk, format, dtype, prices.error_max[index]));
    }
  }
  return prices;
}

}  // namespace sluice::numerics
