// What the kernels of all formats are made of, over sixteen lanes: rounding, packing, tiles of
// groups, error sums. Included after an instruction set's simd.h, with SLUICE_ISA defined; no name
// leaves the file that includes it.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/raw_ops.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

constexpr int kLanes = 16;
constexpr int kGroupMax = 128;
constexpr double kDoubleMax = 1.79769313486231570815e+308;
constexpr float kInfinity = __builtin_inff();

inline int element_bytes(Element element) { return element == kElementF32 ? 4 : 2; }
inline int least(int a, int b) { return a < b ? a : b; }

// ---- elements ----

inline F round_element(F x, Element element) {
  switch (element) {
    case kElementBF16: return round_bf16(x);
    case kElementF16: return round_f16(x);
    case kElementF32: break;
  }
  return x;
}

// ---- packing: eight codes are one 64-bit word of bytes and become `bits` bytes ----

template <int bits>
inline void pack_group_as(const uint8_t* codes, int count, uint8_t* out) {
  constexpr uint64_t kEven8 = 0x00ff00ff00ff00ffull, kEven16 = 0x0000ffff0000ffffull;
  for (int i = 0; i < count; i += 8) {
    uint64_t x;
    memcpy(&x, codes + i, 8);
    x = (x & kEven8) | ((x & ~kEven8) >> (8 - bits));
    x = (x & kEven16) | ((x & ~kEven16) >> (16 - 2 * bits));
    x = (x & 0xffffffffull) | ((x >> 32) << (4 * bits));
    memcpy(out + i / 8 * bits, &x, bits);
  }
}

template <int bits>
inline void unpack_group_as(const uint8_t* in, int count, uint8_t* codes) {
  constexpr uint64_t kPairs = 0x0000000100000001ull * ((1ull << (2 * bits)) - 1);
  constexpr uint64_t kSingles = 0x0001000100010001ull * ((1ull << bits) - 1);
  for (int i = 0; i < count; i += 8) {
    // Whole words as long as they lie inside: assembling odd bytes costs a stalled load. What is
    // read too much falls to the masks.
    uint64_t x = 0;
    const int offset = i / 8 * bits;
    if (offset + 8 <= count / 8 * bits)
      memcpy(&x, in + offset, 8);
    else
      memcpy(&x, in + offset, bits);
    x = (x & ((1ull << (4 * bits)) - 1)) | ((x >> (4 * bits)) << 32);
    x = (x & kPairs) | (((x >> (2 * bits)) & kPairs) << 16);
    x = (x & kSingles) | (((x >> bits) & kSingles) << 8);
    memcpy(codes + i, &x, 8);
  }
}

inline void pack_group(const uint8_t* codes, int count, int bits, uint8_t* out) {
  switch (bits) {
    case 2: return pack_group_as<2>(codes, count, out);
    case 3: return pack_group_as<3>(codes, count, out);
    case 4: return pack_group_as<4>(codes, count, out);
    case 5: return pack_group_as<5>(codes, count, out);
    case 6: return pack_group_as<6>(codes, count, out);
    default: memcpy(out, codes, static_cast<size_t>(count));
  }
}

inline void unpack_group(const uint8_t* in, int count, int bits, uint8_t* codes) {
  switch (bits) {
    case 2: return unpack_group_as<2>(in, count, codes);
    case 3: return unpack_group_as<3>(in, count, codes);
    case 4: return unpack_group_as<4>(in, count, codes);
    case 5: return unpack_group_as<5>(in, count, codes);
    case 6: return unpack_group_as<6>(in, count, codes);
    default: memcpy(codes, in, static_cast<size_t>(count));
  }
}

// ---- tiles ----

// Sixteen groups of `group` elements; lanes from `lanes` on repeat the last real group.
struct Tile {
  int group, lanes;
  alignas(64) float w[kGroupMax * kLanes];  // w[j·16 + lane]
};

using Float4 = float __attribute__((vector_size(16)));
using Byte16 = uint8_t __attribute__((vector_size(16)));

inline void transpose_4x4(const float* const* in, int j, float* out) {
  Float4 a, b, c, d;
  memcpy(&a, in[0] + j, 16);
  memcpy(&b, in[1] + j, 16);
  memcpy(&c, in[2] + j, 16);
  memcpy(&d, in[3] + j, 16);
  const Float4 ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
  const Float4 ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Float4 cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const Float4 cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  const Float4 rows[4] = {__builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5),
                          __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7),
                          __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5),
                          __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7)};
  for (int i = 0; i < 4; ++i) memcpy(out + i * kLanes, &rows[i], 16);
}

inline void load_tile(Tile& tile, const float* row, int group, int lanes) {
  tile.group = group;
  tile.lanes = lanes;
  const float* groups[kLanes];
  for (int l = 0; l < kLanes; ++l) groups[l] = row + least(l, lanes - 1) * group;
  for (int j = 0; j < group; j += 4)
    for (int l = 0; l < kLanes; l += 4) transpose_4x4(groups + l, j, tile.w + j * kLanes + l);
}

// 16×16 bytes from in[r·in_stride] to out[c·out_stride]: four rounds of interleaving halves.
inline void transpose_bytes(const uint8_t* in, int in_stride, uint8_t* out, int out_stride) {
  Byte16 a[16], b[16];
  for (int i = 0; i < 16; ++i) memcpy(&a[i], in + i * in_stride, 16);
#pragma GCC unroll 4
  for (int round = 0; round < 4; ++round) {
    Byte16* from = round % 2 == 0 ? a : b;
    Byte16* to = round % 2 == 0 ? b : a;
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      to[2 * i] = __builtin_shufflevector(from[i], from[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20,
                                          5, 21, 6, 22, 7, 23);
      to[2 * i + 1] = __builtin_shufflevector(from[i], from[i + 8], 8, 24, 9, 25, 10, 26, 11, 27,
                                              12, 28, 13, 29, 14, 30, 15, 31);
    }
  }
  for (int i = 0; i < 16; ++i) memcpy(out + i * out_stride, &a[i], 16);
}

struct Codes {
  alignas(64) uint8_t q[kGroupMax * kLanes];  // q[j·16 + lane]
};

inline void write_codes(const Codes& codes, int group, int lanes, int bits, uint8_t* out) {
  alignas(64) uint8_t rows[kLanes * kGroupMax];
  for (int j = 0; j < group; j += 16)
    transpose_bytes(codes.q + j * kLanes, kLanes, rows + j, group);
  // Groups are whole bytes long and follow one another: one run of codes.
  pack_group(rows, group * lanes, bits, out);
}

inline void read_codes(const uint8_t* in, int group, int lanes, int bits, Codes& codes) {
  alignas(64) uint8_t rows[kLanes * kGroupMax] = {};
  unpack_group(in, group * lanes, bits, rows);
  for (int j = 0; j < group; j += 16)
    transpose_bytes(rows + j, group, codes.q + j * kLanes, kLanes);
}

// Replaces the codes of the lanes whose mask is 0xff, others being 0.
inline void take_codes(Codes& codes, const Codes& from, const uint8_t* mask, int group) {
  Byte16 m;
  memcpy(&m, mask, 16);
  for (int j = 0; j < group; ++j) {
    Byte16 a, b;
    memcpy(&a, codes.q + j * kLanes, 16);
    memcpy(&b, from.q + j * kLanes, 16);
    a = (a & ~m) | (b & m);
    memcpy(codes.q + j * kLanes, &a, 16);
  }
}

// ---- errors, in f64 on decoded values ----

struct ErrorSum {
  D squared, max;
};

inline ErrorSum no_error() { return {splat_d(0), splat_d(0)}; }

inline void add_error(ErrorSum& sum, F scale, F q, F bias, F w) {
  const D error = widen(scale * q + bias) - widen(w);
  sum.squared = sum.squared + error * error;
  sum.max = max_abs(sum.max, error);
}

// One row's figures, gathered tile by tile, group by group.
inline void gather(RawStats& stats, const double* squared, const double* max, int lanes) {
  for (int l = 0; l < lanes; ++l) {
    stats.squared_error = stats.squared_error + squared[l];
    if (max[l] > stats.error_max) stats.error_max = max[l];
  }
}

inline void gather_weight(RawStats& stats, const Tile& tile) {
  D sum = splat_d(0);
  for (int j = 0; j < tile.group; ++j) {
    const D w = widen(load(tile.w + j * kLanes));
    sum = sum + w * w;
  }
  double squared[kLanes];
  store(squared, sum);
  for (int l = 0; l < tile.lanes; ++l) stats.squared_weight = stats.squared_weight + squared[l];
}

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
