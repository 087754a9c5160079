// The kernels of the fp modes, written once over sixteen lanes. A file per instruction set defines
// SLUICE_ISA and includes its simd.h, then this; no name leaves that file except its RawFpOps.
//
// Encoding works on tiles of sixteen groups, as in affine_kernels.h; pricing runs along the row.
// Both leave groups that MLX treats specially (numerics/fp.h) to the scalar reference: an E8M0
// scale from a subnormal ratio, and in nvfp4 weights far beyond the largest scale.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/generic/tiles.h"
#include "kernels/raw_ops.h"
#include "numerics/affine_search.h"
#include "numerics/fp_constants.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

using numerics::kBestMargin;
using numerics::kE2M1Max;
using numerics::kE4M3Max;
using numerics::kE4M3NormalMin;
using numerics::kPriceChunk;

constexpr float kQuotientMax = 0x1p20f;
constexpr float kScaleNormalMin = 1.17549435082228750797e-38f;

// What a mode's name stands for.
template <FpMode mode>
struct Traits {
  static constexpr bool kE4m3Codes = mode == kFpMxfp8;
  static constexpr bool kE4m3Scales = mode == kFpNvfp4;
  static constexpr int kBits = kE4m3Codes ? 8 : 4;
  static constexpr int kGroup = kE4m3Scales ? 16 : 32;
  static constexpr float kCodeMax = kE4m3Codes ? kE4M3Max : kE2M1Max;
  static constexpr float kSign = kE4m3Codes ? 128 : 8;  // of a code, as a number
  static constexpr numerics::ScaleSearch kSearch =
      kE4m3Scales ? numerics::kSearchE4m3 : numerics::kSearchE8m0;
};

// ---- E4M3 and E2M1 in lanes ----

// The value of E4M3 nearest to a ≥ 0, ties to even, at most 448.
inline F nearest_e4m3(F a) {
  const F magic = splat(24576);  // 1.5·2¹⁴: sums are multiples of 2⁻⁹, the smallest value
  const F x = min_(a, splat(kE4M3Max));
  return select(lt(x, splat(kE4M3NormalMin)), (x + magic) - magic, round_4_bits(x));
}

// The code of such a value.
inline F e4m3_code(F value) {
  // The exponent moves from f32's bias to 7.
  return select(lt(value, splat(kE4M3NormalMin)), value * splat(512), high_12(value) - splat(960));
}

// The value of codes 0 to 127.
inline F e4m3_magnitude(F code) {
  const F value =
      select(lt(code, splat(8)), code * splat(0x1p-9f), from_high_12(code + splat(960)));
  return select(eq(code, splat(127)), splat(__builtin_nanf("")), value);
}

// Of E2M1, ties to even.
inline F nearest_e2m1(F a) {
  // Half steps below 2, whole ones below 4, then steps of 2: 1.5 · 2²², 2²³ and 2²⁴.
  const F magic = select(lt(a, splat(2)), splat(6291456),
                         select(lt(a, splat(4)), splat(12582912), splat(25165824)));
  return min_((a + magic) - magic, splat(kE2M1Max));
}

// Of E2M1, ties to the smaller value.
inline F parity_e2m1(F a) {
  F value = select(gt(a, splat(0.25f)), splat(0.5f), splat(0));
  value = select(gt(a, splat(0.75f)), splat(1), value);
  value = select(gt(a, splat(1.25f)), splat(1.5f), value);
  value = select(gt(a, splat(1.75f)), splat(2), value);
  value = select(gt(a, splat(2.5f)), splat(3), value);
  value = select(gt(a, splat(3.5f)), splat(4), value);
  return select(gt(a, splat(5)), splat(6), value);
}

// 0, 0.5, 1, 1.5, 2, 3, 4, 6 to 0…7, and back.
inline F e2m1_code(F value) { return min_(min_(value + value, value + splat(2)), splat(7)); }
inline F e2m1_magnitude(F code) {
  const F steps_of_two = (code - splat(4)) + (code - splat(4));
  return max_(max_(code * splat(0.5f), code - splat(2)), steps_of_two);
}

template <FpMode mode>
inline F nearest_value(F a) {
  if constexpr (Traits<mode>::kE4m3Codes) return nearest_e4m3(a);
  return nearest_e2m1(a);
}

template <FpMode mode>
inline F value_code(F value) {
  if constexpr (Traits<mode>::kE4m3Codes) return e4m3_code(value);
  return e2m1_code(value);
}

// Signed value of a whole code.
template <FpMode mode>
inline F code_value(F code) {
  const F sign = splat(Traits<mode>::kSign);
  const M negative = le(sign, code);
  const F size = select(negative, code - sign, code);
  F value;
  if constexpr (Traits<mode>::kE4m3Codes)
    value = e4m3_magnitude(size);
  else
    value = e2m1_magnitude(size);
  return select(negative, neg(value), value);
}

// Bytes, as numbers, to scales.
template <FpMode mode>
inline F scale_value(F byte) {
  if constexpr (Traits<mode>::kE4m3Scales) return code_value<kFpMxfp8>(byte);
  return select(eq(byte, splat(0)), splat(0x1p-127f), from_high_12(byte * splat(8)));
}

// ---- the parity rule ----

struct Scales {
  F byte, value;
};

// size: largest magnitudes of sixteen groups. False when one of them is special.
template <FpMode mode>
inline bool parity_scales(F size, Element element, Scales& out) {
  const F s = round_element(size / splat(Traits<mode>::kCodeMax), element);
  if constexpr (Traits<mode>::kE4m3Scales) {
    out.value = nearest_e4m3(s);
    out.byte = e4m3_code(out.value);
    const M far = both(gt(size, out.value * splat(kQuotientMax)), gt(out.value, splat(0)));
    return fold_max(select(far, splat(1), splat(0))) == 0.0f;
  }
  const M zero = eq(s, splat(0));
  if (fold_min(select(zero, splat(1), s)) < kScaleNormalMin) return false;
  // A power of two is its own scale, anything above goes to the next.
  const F exponent = floor_8(high_12(s));  // eight times the byte
  const F below = from_high_12(exponent);
  const F eights = select(eq(below, s), exponent, exponent + splat(8));
  out.byte = select(zero, splat(127), eights * splat(0.125f));
  out.value = select(zero, splat(1), from_high_12(eights));
  return true;
}

inline F tile_size(const Tile& tile) {
  F size = abs_(load(tile.w));
  for (int j = 1; j < tile.group; ++j) size = max_(abs_(load(tile.w + j * kLanes)), size);
  return size;
}

// ---- parity encoder ----

struct FpEncoded {
  F scale_byte;
  double squared[kLanes], max[kLanes];
};

// Magnitude of the code that parity gives w. E8M0 scales divide exactly, so that their inverse does
// as well; nvfp4's quotient is rounded to the element.
template <FpMode mode>
inline F parity_value(F w, F scale, F inverse, Element element) {
  if constexpr (Traits<mode>::kE4m3Scales) {
    const F quotient = round_element(abs_(w) / scale, element);
    return select(gt(scale, splat(0)), parity_e2m1(quotient), splat(0));
  } else {
    const F quotient = abs_(w) * inverse;
    if constexpr (Traits<mode>::kE4m3Codes) return nearest_e4m3(quotient);
    return parity_e2m1(quotient);
  }
}

template <FpMode mode>
inline F signed_code(F w, F value, bool keep_zero_signs) {
  const F code = value_code<mode>(value);
  const M negative = keep_zero_signs ? sign_bit(w) : both(lt(w, splat(0)), gt(value, splat(0)));
  return select(negative, code + splat(Traits<mode>::kSign), code);
}

// codes: null when only the figures are wanted.
template <FpMode mode>
inline void parity_tile(const Tile& tile, const Scales& scales, Element element, Codes* codes,
                        FpEncoded& out) {
  const F inverse = splat(1) / scales.value;
  ErrorSum sum = no_error();
  for (int j = 0; j < Traits<mode>::kGroup; ++j) {
    const F w = load(tile.w + j * kLanes);
    const F value = parity_value<mode>(w, scales.value, inverse, element);
    add_error(sum, scales.value, value, splat(0), abs_(w));
    if (codes)
      store_codes(codes->q + j * kLanes, signed_code<mode>(w, value, Traits<mode>::kE4m3Codes));
  }
  out.scale_byte = scales.byte;
  store(out.squared, sum.squared);
  store(out.max, sum.max);
}

template <FpMode mode>
inline void write_fp_tile(const FpEncoded& encoded, const Codes& codes, const Tile& tile,
                          size_t first_group, RawFpRow out) {
  constexpr size_t kPacked = Traits<mode>::kGroup / 8 * Traits<mode>::kBits;
  write_codes(codes, Traits<mode>::kGroup, tile.lanes, Traits<mode>::kBits,
              out.weight + first_group * kPacked);
  uint8_t bytes[kLanes];
  store_codes(bytes, encoded.scale_byte);
  memcpy(out.scales + first_group, bytes, static_cast<size_t>(tile.lanes));
}

// ---- best encoder ----

template <FpMode mode>
inline F contender_error(const Tile& tile, F scale) {
  const F inverse = splat(1) / scale;
  F error = splat(0);
#pragma GCC unroll 4
  for (int j = 0; j < Traits<mode>::kGroup; ++j) {
    const F a = abs_(load(tile.w + j * kLanes));
    const F e = fnma(scale, nearest_value<mode>(a * inverse), a);
    error = fma(e, e, error);
  }
  return select(gt(scale, splat(0)), error, splat(kInfinity));
}

struct Leader {
  F byte, scale, error;
};

template <FpMode mode>
inline Leader search_scales(const Tile& tile, const Scales& parity) {
  constexpr numerics::ScaleSearch kSearch = Traits<mode>::kSearch;
  Leader best{parity.byte, parity.value, contender_error<mode>(tile, parity.value)};
  for (int offset = kSearch.first; offset <= kSearch.last; ++offset) {
    if (offset == 0) continue;
    const F byte = parity.byte + splat(static_cast<float>(offset));
    const M valid = both(le(splat(0), byte), le(byte, splat(static_cast<float>(kSearch.max))));
    const F scale = scale_value<mode>(select(valid, byte, splat(1)));
    const F error = contender_error<mode>(tile, scale);
    const M better = both(valid, lt(error, best.error));
    best.byte = select(better, byte, best.byte);
    best.scale = select(better, scale, best.scale);
    best.error = select(better, error, best.error);
  }
  return best;
}

template <FpMode mode>
inline void best_tile(const Tile& tile, const Scales& scales, Element element, Codes* codes,
                      FpEncoded& out) {
  parity_tile<mode>(tile, scales, element, codes, out);
  const Leader best = search_scales<mode>(tile, scales);
  const F inverse = splat(1) / best.scale;
  Codes searched_codes;
  ErrorSum sum = no_error();
  for (int j = 0; j < Traits<mode>::kGroup; ++j) {
    const F w = load(tile.w + j * kLanes);
    const F value = nearest_value<mode>(abs_(w) * inverse);
    add_error(sum, best.scale, value, splat(0), abs_(w));
    if (codes) store_codes(searched_codes.q + j * kLanes, signed_code<mode>(w, value, false));
  }
  double squared[kLanes], max[kLanes];
  store(squared, sum.squared);
  store(max, sum.max);
  float error[kLanes], wins[kLanes];
  store(error, best.error);
  uint8_t mask[kLanes];
  for (int l = 0; l < kLanes; ++l) {
    const double bar = out.squared[l] <= kDoubleMax ? out.squared[l] : __builtin_inf();
    const bool win = error[l] < kInfinity && squared[l] < bar * kBestMargin;
    wins[l] = win ? 1.0f : 0.0f;
    mask[l] = win ? 0xff : 0;
    if (!win) continue;
    out.squared[l] = squared[l];
    out.max[l] = max[l];
  }
  out.scale_byte = select(gt(load(wins), splat(0)), best.byte, scales.byte);
  if (codes) take_codes(*codes, searched_codes, mask, Traits<mode>::kGroup);
}

// ---- rows ----

// out.weight: null when only the figures are wanted. False, with nothing promised of out and stats,
// when the row holds a special group.
template <FpMode mode, bool searched>
bool encode_fp_as(const float* row, size_t columns, Element element, RawFpRow out,
                  RawStats* stats) {
  constexpr size_t kGroup = Traits<mode>::kGroup;
  *stats = {0, 0, 0};
  Tile tile;
  Codes codes;
  FpEncoded encoded;
  const size_t groups = columns / kGroup;
  for (size_t g = 0; g < groups; g += kLanes) {
    const int lanes = groups - g < kLanes ? static_cast<int>(groups - g) : kLanes;
    load_tile(tile, row + g * kGroup, static_cast<int>(kGroup), lanes);
    Scales scales;
    if (!parity_scales<mode>(tile_size(tile), element, scales)) return false;
    Codes* wanted = out.weight ? &codes : nullptr;
    if constexpr (searched)
      best_tile<mode>(tile, scales, element, wanted, encoded);
    else
      parity_tile<mode>(tile, scales, element, wanted, encoded);
    if (wanted) write_fp_tile<mode>(encoded, codes, tile, g, out);
    gather(*stats, encoded.squared, encoded.max, lanes);
    gather_weight(*stats, tile);
  }
  return true;
}

bool encode_fp(const float* row, size_t columns, FpMode mode, Element element, bool searched,
               RawFpRow out, RawStats* stats) {
  switch (mode) {
    case kFpMxfp4:
      return searched ? encode_fp_as<kFpMxfp4, true>(row, columns, element, out, stats)
                      : encode_fp_as<kFpMxfp4, false>(row, columns, element, out, stats);
    case kFpMxfp8:
      return searched ? encode_fp_as<kFpMxfp8, true>(row, columns, element, out, stats)
                      : encode_fp_as<kFpMxfp8, false>(row, columns, element, out, stats);
    case kFpNvfp4: break;
  }
  return searched ? encode_fp_as<kFpNvfp4, true>(row, columns, element, out, stats)
                  : encode_fp_as<kFpNvfp4, false>(row, columns, element, out, stats);
}

template <FpMode mode>
RawStats fp_row_error_as(const float* row, size_t columns, ConstRawFpRow in) {
  constexpr size_t kGroup = Traits<mode>::kGroup;
  constexpr size_t kPacked = kGroup / 8 * Traits<mode>::kBits;
  RawStats stats{0, 0, 0};
  Tile tile;
  Codes codes;
  const size_t groups = columns / kGroup;
  for (size_t g = 0; g < groups; g += kLanes) {
    const int lanes = groups - g < kLanes ? static_cast<int>(groups - g) : kLanes;
    load_tile(tile, row + g * kGroup, static_cast<int>(kGroup), lanes);
    read_codes(in.weight + g * kPacked, static_cast<int>(kGroup), lanes, Traits<mode>::kBits,
               codes);
    uint8_t bytes[kLanes] = {};
    memcpy(bytes, in.scales + g, static_cast<size_t>(lanes));
    const F scale = scale_value<mode>(load_codes(bytes));
    ErrorSum sum = no_error();
    for (int j = 0; j < static_cast<int>(kGroup); ++j)
      add_error(sum, scale, code_value<mode>(load_codes(codes.q + j * kLanes)), splat(0),
                load(tile.w + j * kLanes));
    double squared[kLanes], max[kLanes];
    store(squared, sum.squared);
    store(max, sum.max);
    gather(stats, squared, max, lanes);
    gather_weight(stats, tile);
  }
  return stats;
}

RawStats fp_row_error(const float* row, size_t columns, ConstRawFpRow in, FpMode mode) {
  switch (mode) {
    case kFpMxfp4: return fp_row_error_as<kFpMxfp4>(row, columns, in);
    case kFpMxfp8: return fp_row_error_as<kFpMxfp8>(row, columns, in);
    case kFpNvfp4: break;
  }
  return fp_row_error_as<kFpNvfp4>(row, columns, in);
}

template <FpMode mode>
void decode_fp_as(ConstRawFpRow in, size_t columns, float* out) {
  constexpr size_t kGroup = Traits<mode>::kGroup;
  constexpr size_t kPacked = kGroup / 8 * Traits<mode>::kBits;
  uint8_t codes[kLanes * kGroup];
  const size_t groups = columns / kGroup;
  for (size_t g = 0; g < groups; g += kLanes) {
    const int lanes = groups - g < kLanes ? static_cast<int>(groups - g) : kLanes;
    unpack_group(in.weight + g * kPacked, static_cast<int>(kGroup) * lanes, Traits<mode>::kBits,
                 codes);
    uint8_t bytes[kLanes] = {};
    float scales[kLanes];
    memcpy(bytes, in.scales + g, static_cast<size_t>(lanes));
    store(scales, scale_value<mode>(load_codes(bytes)));
    for (int l = 0; l < lanes; ++l) {
      const uint8_t* q = codes + static_cast<size_t>(l) * kGroup;
      float* to = out + (g + static_cast<size_t>(l)) * kGroup;
      for (size_t j = 0; j < kGroup; j += kLanes)
        store(to + j, code_value<mode>(load_codes(q + j)) * splat(scales[l]));
    }
  }
}

void decode_fp(ConstRawFpRow in, size_t columns, FpMode mode, float* out) {
  switch (mode) {
    case kFpMxfp4: return decode_fp_as<kFpMxfp4>(in, columns, out);
    case kFpMxfp8: return decode_fp_as<kFpMxfp8>(in, columns, out);
    case kFpNvfp4: break;
  }
  return decode_fp_as<kFpNvfp4>(in, columns, out);
}

// ---- pricing along the row ----

// Largest magnitudes of the first count groups of some vectors each, one per lane; others are zero.
template <int vectors>
inline F fold_sizes(const float* w, int count) {
  F sizes[kLanes];
  for (int g = 0; g < kLanes; ++g) {
    sizes[g] = splat(0);
    if (g >= count) continue;
    for (int v = 0; v < vectors; ++v)
      sizes[g] = max_(abs_(load(w + (g * vectors + v) * kLanes)), sizes[g]);
  }
  return fold_max_16(sizes);
}

template <FpMode mode>
void price_fp_chunk(const float* w, int count, Element element, double* squared_error,
                    float* error_max) {
  constexpr int kGroup = Traits<mode>::kGroup;
  constexpr int kVectors = kGroup / kLanes;
  F squared = splat(0), max = splat(0);
  const int groups = count / kGroup;
  for (int g = 0; g < groups; g += kLanes) {
    const int lanes = least(groups - g, kLanes);
    Scales scales;
    if (!parity_scales<mode>(fold_sizes<kVectors>(w + g * kGroup, lanes), element, scales)) {
      *squared_error = __builtin_inf();
      *error_max = kInfinity;
      return;
    }
    float scale[kLanes], inverse[kLanes];
    store(scale, scales.value);
    store(inverse, select(gt(scales.value, splat(0)), splat(1) / scales.value, splat(0)));
    for (int l = 0; l < lanes; ++l)
      for (int v = 0; v < kVectors; ++v) {
        const F a = abs_(load(w + (g + l) * kGroup + v * kLanes));
        const F error = fnma(splat(scale[l]), nearest_value<mode>(a * splat(inverse[l])), a);
        squared = fma(error, error, squared);
        max = max_abs(max, error);
      }
  }
  *squared_error = *squared_error + static_cast<double>(fold_sum(squared));
  const float largest = fold_max(max);
  if (largest > *error_max) *error_max = largest;
}

void price_fp(const float* row, size_t columns, Element element, double* squared_error,
              float* error_max) {
  for (size_t start = 0; start < columns; start += kPriceChunk) {
    const size_t left = columns - start;
    const int count = left < kPriceChunk ? static_cast<int>(left) : kPriceChunk;
    if (columns % 32 == 0) {
      price_fp_chunk<kFpMxfp4>(row + start, count, element, squared_error, error_max);
      price_fp_chunk<kFpMxfp8>(row + start, count, element, squared_error + 1, error_max + 1);
    }
    price_fp_chunk<kFpNvfp4>(row + start, count, element, squared_error + 2, error_max + 2);
  }
}

constexpr RawFpOps kFpOps = {encode_fp, fp_row_error, decode_fp, price_fp};

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
