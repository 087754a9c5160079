// The affine kernels, written once over sixteen lanes. A file per instruction set defines
// SLUICE_ISA and includes its simd.h, then this; no name leaves that file except its RawOps.
//
// Encoding works on tiles: sixteen groups side by side, one per lane, transposed so that row j
// holds element j of every group. Sums inside a group are then plain left-to-right sums, as in the
// scalar reference, and groups need no horizontal operations. Pricing: affine_price.h.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/generic/affine_price.h"
#include "kernels/raw_ops.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

using numerics::kBestMargin;

inline F load_elements(Element element, const uint8_t* in) {
  switch (element) {
    case kElementBF16: return load_bf16(in);
    case kElementF16: return load_f16(in);
    case kElementF32: break;
  }
  float values[kLanes];
  memcpy(values, in, sizeof values);
  return load(values);
}

// The first count of sixteen, values already rounded.
inline void store_elements(Element element, uint8_t* out, F x, int count) {
  uint8_t bytes[kLanes * 4];
  switch (element) {
    case kElementBF16: store_bf16(bytes, x); break;
    case kElementF16: store_f16(bytes, x); break;
    case kElementF32: {
      float values[kLanes];
      store(values, x);
      memcpy(bytes, values, sizeof values);
      break;
    }
  }
  memcpy(out, bytes, static_cast<size_t>(count) * static_cast<size_t>(element_bytes(element)));
}

inline F load_some_elements(Element element, const uint8_t* in, int count) {
  uint8_t bytes[kLanes * 4] = {};
  memcpy(bytes, in, static_cast<size_t>(count) * static_cast<size_t>(element_bytes(element)));
  return load_elements(element, bytes);
}

void decode_floats(Element element, const uint8_t* in, float* out, size_t count) {
  if (element == kElementF32) {
    memcpy(out, in, count * 4);
    return;
  }
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(out + i, load_elements(element, in + i * 2));
  if (i == count) return;
  float values[kLanes];
  store(values, load_some_elements(element, in + i * 2, static_cast<int>(count - i)));
  memcpy(out + i, values, (count - i) * 4);
}

// ---- parity encoder ----

// What a tile is encoded to. scale and bias as stored.
struct Encoded {
  F scale, bias;
  double squared[kLanes], max[kLanes];
};

Encoded parity_tile(const Tile& tile, const Params& p, F top, Element element, bool gpu_rule,
                    Codes& codes) {
  Encoded out;
  out.scale = round_element(p.scale, element);
  out.bias = round_element(p.bias, element);
  ErrorSum sum = no_error();
  for (int j = 0; j < tile.group; ++j) {
    const F w = load(tile.w + j * kLanes);
    const F q = parity_code(w, p, top, gpu_rule);
    store_codes(codes.q + j * kLanes, q);
    add_error(sum, out.scale, q, out.bias, w);
  }
  store(out.squared, sum.squared);
  store(out.max, sum.max);
  return out;
}

void write_tile(const Encoded& encoded, const Codes& codes, const Tile& tile, RawFormat format,
                size_t first_group, RawRow out) {
  const size_t packed = static_cast<size_t>(format.group / 8) * static_cast<size_t>(format.bits);
  const size_t offset = first_group * static_cast<size_t>(element_bytes(format.element));
  write_codes(codes, tile.group, tile.lanes, format.bits, out.weight + first_group * packed);
  store_elements(format.element, out.scales + offset, encoded.scale, tile.lanes);
  store_elements(format.element, out.biases + offset, encoded.bias, tile.lanes);
}

RawStats encode_parity(const float* row, size_t columns, RawFormat format, bool gpu_rule,
                       RawRow out) {
  RawStats stats{0, 0, 0};
  Tile tile;
  Codes codes;
  const F top = splat(top_code(format.bits));
  const size_t group = static_cast<size_t>(format.group);
  const size_t groups = columns / group;
  for (size_t g = 0; g < groups; g += kLanes) {
    const int lanes = groups - g < kLanes ? static_cast<int>(groups - g) : kLanes;
    load_tile(tile, row + g * group, format.group, lanes);
    const Range range = tile_range(tile);
    const Params p = parity_params(range.low, range.high, top, gpu_rule);
    const Encoded encoded = parity_tile(tile, p, top, format.element, gpu_rule, codes);
    write_tile(encoded, codes, tile, format, g, out);
    gather(stats, encoded.squared, encoded.max, lanes);
    gather_weight(stats, tile);
  }
  return stats;
}

// ---- best encoder ----

Encoded best_tile(const Tile& tile, const Range& range, const Params& p, RawFormat format,
                  Codes& codes) {
  const F top = splat(top_code(format.bits));
  const Contender best = search_tile(tile, range, p, tile_sum(tile), format);
  const F parity_scale = round_element(p.scale, format.element);
  const F parity_bias = round_element(p.bias, format.element);
  const F inverse = splat(1) / best.scale;
  const F magic = splat(kRoundMagic), magic_top = magic + top;
  Codes searched_codes;
  ErrorSum parity = no_error(), searched = no_error();
  for (int j = 0; j < tile.group; ++j) {
    const F w = load(tile.w + j * kLanes);
    const F parity_q = parity_code(w, p, top, false);
    const F q = searched_code(w - best.bias, inverse, magic, magic_top);
    add_error(parity, parity_scale, parity_q, parity_bias, w);
    add_error(searched, best.scale, q, best.bias, w);
    store_codes(codes.q + j * kLanes, parity_q);
    store_codes(searched_codes.q + j * kLanes, q);
  }

  Encoded out;
  double searched_squared[kLanes], searched_max[kLanes];
  float error[kLanes], wins[kLanes];
  store(out.squared, parity.squared);
  store(out.max, parity.max);
  store(searched_squared, searched.squared);
  store(searched_max, searched.max);
  store(error, best.error);
  uint8_t mask[kLanes];
  for (int l = 0; l < kLanes; ++l) {
    const double bar = out.squared[l] <= kDoubleMax ? out.squared[l] : __builtin_inf();
    const bool win = error[l] < kInfinity && searched_squared[l] < bar * kBestMargin;
    wins[l] = win ? 1.0f : 0.0f;
    mask[l] = win ? 0xff : 0;
    if (!win) continue;
    out.squared[l] = searched_squared[l];
    out.max[l] = searched_max[l];
  }
  const M won = gt(load(wins), splat(0));
  out.scale = select(won, best.scale, parity_scale);
  out.bias = select(won, best.bias, parity_bias);
  take_codes(codes, searched_codes, mask, tile.group);
  return out;
}

RawStats encode_best(const float* row, size_t columns, RawFormat format, RawRow out) {
  RawStats stats{0, 0, 0};
  Tile tile;
  Codes codes;
  const F top = splat(top_code(format.bits));
  const size_t group = static_cast<size_t>(format.group);
  const size_t groups = columns / group;
  for (size_t g = 0; g < groups; g += kLanes) {
    const int lanes = groups - g < kLanes ? static_cast<int>(groups - g) : kLanes;
    load_tile(tile, row + g * group, format.group, lanes);
    const Range range = tile_range(tile);
    const Params p = parity_params(range.low, range.high, top, false);
    const Encoded encoded = best_tile(tile, range, p, format, codes);
    write_tile(encoded, codes, tile, format, g, out);
    gather(stats, encoded.squared, encoded.max, lanes);
    gather_weight(stats, tile);
  }
  return stats;
}

// ---- decoding ----

RawStats row_error(const float* row, size_t columns, ConstRawRow in, RawFormat format) {
  RawStats stats{0, 0, 0};
  Tile tile;
  Codes codes;
  const size_t group = static_cast<size_t>(format.group);
  const size_t groups = columns / group;
  const size_t packed = group / 8 * static_cast<size_t>(format.bits);
  const size_t parameter_bytes = static_cast<size_t>(element_bytes(format.element));
  for (size_t g = 0; g < groups; g += kLanes) {
    const int lanes = groups - g < kLanes ? static_cast<int>(groups - g) : kLanes;
    load_tile(tile, row + g * group, format.group, lanes);
    read_codes(in.weight + g * packed, format.group, lanes, format.bits, codes);
    const F scale = load_some_elements(format.element, in.scales + g * parameter_bytes, lanes);
    const F bias = load_some_elements(format.element, in.biases + g * parameter_bytes, lanes);
    ErrorSum sum = no_error();
    for (int j = 0; j < format.group; ++j)
      add_error(sum, scale, load_codes(codes.q + j * kLanes), bias, load(tile.w + j * kLanes));
    double squared[kLanes], max[kLanes];
    store(squared, sum.squared);
    store(max, sum.max);
    gather(stats, squared, max, lanes);
    gather_weight(stats, tile);
  }
  return stats;
}

void decode_affine(ConstRawRow in, size_t columns, RawFormat format, float* out) {
  uint8_t codes[kLanes * kGroupMax];
  float scales[kLanes], biases[kLanes];
  const size_t group = static_cast<size_t>(format.group);
  const size_t groups = columns / group;
  const size_t packed = group / 8 * static_cast<size_t>(format.bits);
  const size_t parameter_bytes = static_cast<size_t>(element_bytes(format.element));
  for (size_t g = 0; g < groups; g += kLanes) {
    const int lanes = groups - g < kLanes ? static_cast<int>(groups - g) : kLanes;
    unpack_group(in.weight + g * packed, format.group * lanes, format.bits, codes);
    store(scales, load_some_elements(format.element, in.scales + g * parameter_bytes, lanes));
    store(biases, load_some_elements(format.element, in.biases + g * parameter_bytes, lanes));
    for (int l = 0; l < lanes; ++l) {
      const F scale = splat(scales[l]), bias = splat(biases[l]);
      const uint8_t* q = codes + l * format.group;
      float* to = out + (g + static_cast<size_t>(l)) * group;
      for (int j = 0; j < format.group; j += kLanes)
        store(to + j, scale * load_codes(q + j) + bias);
    }
  }
}

// ---- refusal ----

// True when all are finite and the range does not overflow. count % 16 == 0.
inline bool fine_group(const float* w, size_t count) {
  F low = load(w), high = low, poison = splat(0);
  for (size_t i = 0; i < count; i += kLanes) {
    const F x = load(w + i);
    low = min_(x, low);
    high = max_(x, high);
    poison = fma(x, splat(0), poison);  // NaN from then on when x is not finite
  }
  return fold_sum(poison) == 0.0f && fold_max(high) - fold_min(low) <= kFloatMax;
}

size_t find_unencodable(const float* row, size_t columns) {
  for (size_t start = 0; start < columns; start += kGroupMax) {
    const size_t left = columns - start;
    const size_t count = left < kGroupMax ? left : size_t{kGroupMax};
    if (count % kLanes == 0 && fine_group(row + start, count)) continue;
    float low = row[start], high = low;
    for (size_t i = start; i < start + count; ++i) {
      if (!(__builtin_fabsf(row[i]) <= kFloatMax)) return i;
      low = row[i] < low ? row[i] : low;
      high = row[i] > high ? row[i] : high;
    }
    if (!(high - low <= kFloatMax)) return start;
  }
  return columns;
}

constexpr RawOps kOps = {decode_floats, encode_parity, encode_best, decode_affine,
                         row_error,     price_parity,  price_best,  find_unencodable};

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
