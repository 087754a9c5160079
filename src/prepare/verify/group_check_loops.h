// The loops of group_check.h over vectors of SLUICE_CHECK_BYTES bytes. A file per instruction set
// defines that and SLUICE_CHECK_ISA and includes this; no name leaves that file except its
// GroupCheck.
//
// One vector holds one element each of several groups, so sums inside a group run from left to
// right as in the scalar reference and lanes never meet. Rules: docs/formats.md#affine.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "verify/group_check.h"

namespace sluice::verify::SLUICE_CHECK_ISA {
namespace {

constexpr int kBytes = SLUICE_CHECK_BYTES;
constexpr int kLanes = kBytes / 4;
constexpr int kHalf = kLanes / 2;
constexpr int kGroupMax = 128;
constexpr float kRound = 8388608.0f;  // 2²³: from here on, floats are whole numbers
constexpr float kScaleMin = 1e-7f;    // MLX's eps

using F = float __attribute__((vector_size(kBytes)));
using U = uint32_t __attribute__((vector_size(kBytes)));
using I = int32_t __attribute__((vector_size(kBytes)));
using D = double __attribute__((vector_size(kBytes)));
using L = int64_t __attribute__((vector_size(kBytes)));
using WideD = double __attribute__((vector_size(2 * kBytes)));
using Float4 = float __attribute__((vector_size(16)));

template <class To, class From>
inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

inline F load(const float* from) {
  F to;
  memcpy(&to, from, sizeof to);
  return to;
}
inline U load_word(const uint32_t* from) {
  U to;
  memcpy(&to, from, sizeof to);
  return to;
}
inline void store(float* to, F from) { memcpy(to, &from, sizeof from); }
inline F all(float value) { return value - F{}; }
inline U all(uint32_t value) { return value - U{}; }

inline F magnitude(F x) { return bits_as<F>(bits_as<U>(x) & all(0x7fffffffu)); }
inline D magnitude(D x) { return bits_as<D>(bits_as<L>(x) & (0x7fffffffffffffff - L{})); }
inline U select(I mask, U a, U b) {
  const U m = bits_as<U>(mask);
  return (a & m) | (b & ~m);
}
inline F select(I mask, F a, F b) { return mask ? a : b; }

// One number for each of a vector's lanes.
struct Doubles {
  D low, high;
};
inline Doubles zeros() { return {D{}, D{}}; }
inline Doubles widen(F x) {
  const WideD wide = __builtin_convertvector(x, WideD);
  Doubles result;
  memcpy(&result, &wide, sizeof result);
  return result;
}
inline Doubles operator-(Doubles a, Doubles b) { return {a.low - b.low, a.high - b.high}; }
inline void add_square(Doubles& sum, Doubles x) {
  sum.low += x.low * x.low;
  sum.high += x.high * x.high;
}
inline D larger(D old, D x) { return x > old ? x : old; }
inline void raise_to_magnitude(Doubles& most, Doubles x) {
  most = {larger(most.low, magnitude(x.low)), larger(most.high, magnitude(x.high))};
}
inline double lane(const Doubles& x, int l) { return l < kHalf ? x.low[l] : x.high[l - kHalf]; }

// Nearest integer of 0 ≤ x < 2²³.
template <bool away>
inline F nearest_below_limit(F x) {
  const F even = (x + kRound) - kRound;
  if constexpr (!away) return even;
  return select(x - even == 0.5f, even + 1.0f, even);
}

// std::rint, or std::round where ties go away from zero.
template <bool away>
inline F nearest(F x) {
  const F size = magnitude(x);
  const F whole = select(size < kRound, nearest_below_limit<away>(size), size);
  return bits_as<F>(bits_as<U>(whole) | (bits_as<U>(x) & all(0x80000000u)));
}

// ---- stored numbers ----

inline U to_bf16(F x) {
  const U bits = bits_as<U>(x);
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

inline U to_f16(F x) {
  const U bits = bits_as<U>(x);
  const U sign = (bits >> 16) & 0x8000u;
  const U size = bits & 0x7fffffffu;
  const U normal = (size + 0xfffu + ((size >> 13) & 1u) - 0x38000000u) >> 13;
  // Adding a half leaves a subnormal's rounded mantissa in the lowest bits.
  const U subnormal = bits_as<U>(bits_as<F>(size) + 0.5f) - 0x3f000000u;
  const U half =
      select(size >= 0x477ff000u, all(0x7c00u), select(size < 0x38800000u, subnormal, normal));
  return sign | half;
}

inline F from_f16(U half) {
  const U sign = (half & 0x8000u) << 16;
  const U exponent = (half >> 10) & 0x1fu, mantissa = half & 0x3ffu;
  const U subnormal = bits_as<U>(__builtin_convertvector(bits_as<I>(mantissa), F) * 0x1p-24f);
  const U normal = ((exponent + 112) << 23) | (mantissa << 13);
  const U special = 0x7f800000u | (mantissa << 13);
  return bits_as<F>(sign |
                    select(exponent == 0, subnormal, select(exponent == 0x1f, special, normal)));
}

// NaN, which valid weights never give, may come out as another number; it only fails to acquit.
inline U to_stored(F x, StoredType type) {
  if (type == StoredType::kBF16) return to_bf16(x);
  if (type == StoredType::kF16) return to_f16(x);
  return bits_as<U>(x);
}

inline F from_stored(U bits, StoredType type) {
  if (type == StoredType::kBF16) return bits_as<F>(bits << 16);
  if (type == StoredType::kF16) return from_f16(bits);
  return bits_as<F>(bits);
}

// Lanes from count on repeat the last number.
inline void gather_stored(const uint8_t* from, StoredType type, int count, uint32_t* lanes) {
  for (int l = 0; l < kLanes; ++l) {
    const int at = l < count ? l : count - 1;
    if (type == StoredType::kF32) {
      memcpy(&lanes[l], from + at * 4, 4);
    } else {
      uint16_t half;
      memcpy(&half, from + at * 2, 2);
      lanes[l] = half;
    }
  }
}

// ---- a panel: kLanes groups side by side ----

struct Panel {
  int group;
  alignas(64) float w[kGroupMax * kLanes];                     // w[j·kLanes + lane]
  alignas(64) float q[kGroupMax * kLanes];                     // stored codes, likewise
  alignas(64) uint32_t words[kGroupMax / 4 * kLanes];          // the codes packed, likewise
  alignas(64) uint32_t scale_bits[kLanes], bias_bits[kLanes];  // as stored
};

inline void turn_4x4(const float* const* from, int j, float* to) {
  Float4 a[4];
  for (int i = 0; i < 4; ++i) memcpy(&a[i], from[i] + j, sizeof a[i]);
  const Float4 even_low = __builtin_shufflevector(a[0], a[2], 0, 4, 1, 5);
  const Float4 even_high = __builtin_shufflevector(a[0], a[2], 2, 6, 3, 7);
  const Float4 odd_low = __builtin_shufflevector(a[1], a[3], 0, 4, 1, 5);
  const Float4 odd_high = __builtin_shufflevector(a[1], a[3], 2, 6, 3, 7);
  a[0] = __builtin_shufflevector(even_low, odd_low, 0, 4, 1, 5);
  a[1] = __builtin_shufflevector(even_low, odd_low, 2, 6, 3, 7);
  a[2] = __builtin_shufflevector(even_high, odd_high, 0, 4, 1, 5);
  a[3] = __builtin_shufflevector(even_high, odd_high, 2, 6, 3, 7);
  for (int i = 0; i < 4; ++i) memcpy(to + i * kLanes, &a[i], sizeof a[i]);
}

void load_source(Panel& panel, const float* source, int count) {
  const float* groups[kLanes];
  for (int l = 0; l < kLanes; ++l) groups[l] = source + (l < count ? l : count - 1) * panel.group;
  for (int j = 0; j < panel.group; j += 4)
    for (int l = 0; l < kLanes; l += 4) turn_4x4(groups + l, j, panel.w + j * kLanes + l);
}

void load_words(Panel& panel, const uint8_t* weight, int bits, int count) {
  const int words = panel.group * bits / 32;
  for (int l = 0; l < kLanes; ++l) {
    const uint8_t* group = weight + (l < count ? l : count - 1) * words * 4;
    for (int k = 0; k < words; ++k) memcpy(&panel.words[k * kLanes + l], group + k * 4, 4);
  }
}

// 32 codes fill whole words, and a word of every lane is taken apart at once.
template <int bits>
void unpack_codes(Panel& panel) {
  constexpr uint32_t kMask = (1u << bits) - 1;
  for (int part = 0; part < panel.group / 32; ++part) {
    const uint32_t* words = panel.words + part * bits * kLanes;
    float* q = panel.q + part * 32 * kLanes;
#pragma GCC unroll 32
    for (int i = 0; i < 32; ++i) {
      const int word = i * bits / 32, shift = i * bits % 32;
      U code = load_word(words + word * kLanes) >> shift;
      if (shift + bits > 32) code |= load_word(words + (word + 1) * kLanes) << (32 - shift);
      store(q + i * kLanes, __builtin_convertvector(bits_as<I>(code & kMask), F));
    }
  }
}

void load_panel(Panel& panel, const StoredGroups& groups, size_t first, int count) {
  panel.group = groups.group_size;
  const size_t size = static_cast<size_t>(groups.group_size);
  const size_t stored = groups.type == StoredType::kF32 ? 4 : 2;
  // What is stored lane by lane and read back as vectors stalls unless there is work in between.
  load_words(panel, groups.weight + first * (size / 8) * static_cast<size_t>(groups.bits),
             groups.bits, count);
  gather_stored(groups.scales + first * stored, groups.type, count, panel.scale_bits);
  gather_stored(groups.biases + first * stored, groups.type, count, panel.bias_bits);
  load_source(panel, groups.source + first * size, count);
  switch (groups.bits) {
    case 2: unpack_codes<2>(panel); break;
    case 3: unpack_codes<3>(panel); break;
    case 4: unpack_codes<4>(panel); break;
    case 5: unpack_codes<5>(panel); break;
    case 6: unpack_codes<6>(panel); break;
    default: unpack_codes<8>(panel); break;
  }
}

// ---- MLX's rule ----

struct Rule {
  F scale, bias;  // before they are stored
};

template <bool away>
Rule mlx_rule(const Panel& panel, float top) {
  F low = load(panel.w), high = low;
  for (int j = 1; j < panel.group; ++j) {
    const F w = load(panel.w + j * kLanes);
    low = w < low ? w : low;
    high = high < w ? w : high;
  }
  if (away) high = high < 0.0f ? all(0.0f) : high;  // MLX's GPU maximum starts there
  const I low_edge = magnitude(low) > magnitude(high);
  const F edge = select(low_edge, low, high);
  F scale = (high - low) / top;
  scale = select(scale < kScaleMin, all(kScaleMin), scale);
  scale = select(low_edge, scale, -scale);
  const F steps = nearest<away>(edge / scale);
  const I whole = steps != 0.0f;
  return {select(whole, edge / steps, scale), select(whole, edge, all(0.0f))};
}

struct Sums {
  Doubles error, weight, max, parity;
  I differs;
};

template <Proof proof>
inline void add_element(Sums& sums, F w, F q, F scale, F bias, const Rule& rule, F rule_scale,
                        F rule_bias, float top) {
  const Doubles exact = widen(w);
  const Doubles error = widen(scale * q + bias) - exact;
  add_square(sums.error, error);
  add_square(sums.weight, exact);
  raise_to_magnitude(sums.max, error);
  if constexpr (proof == Proof::kNone) return;
  // The reference rounds first and clamps then; whole ends make that the same.
  F step = (w - rule.bias) / rule.scale;
  step = select(step > 0.0f, step, all(0.0f));
  step = select(step < top, step, all(top));
  const F code = nearest_below_limit < proof == Proof::kParityGpu > (step);
  if constexpr (proof == Proof::kNotWorse) {
    add_square(sums.parity, widen(rule_scale * code + rule_bias) - exact);
  } else {
    sums.differs |= code != q;
  }
}

template <Proof proof>
void check_panel(const Panel& panel, int bits, StoredType type, int count, GroupFigures* figures) {
  const float top = static_cast<float>((1 << bits) - 1);
  const U found_scale = load_word(panel.scale_bits), found_bias = load_word(panel.bias_bits);
  const F scale = from_stored(found_scale, type), bias = from_stored(found_bias, type);
  Sums sums{zeros(), zeros(), zeros(), zeros(), I{}};
  Rule rule = {};
  F rule_scale = {}, rule_bias = {};
  if constexpr (proof != Proof::kNone) {
    rule = mlx_rule < proof == Proof::kParityGpu > (panel, top);
    const U scale_bits = to_stored(rule.scale, type), bias_bits = to_stored(rule.bias, type);
    rule_scale = from_stored(scale_bits, type);
    rule_bias = from_stored(bias_bits, type);
    if constexpr (proof != Proof::kNotWorse)
      sums.differs = (scale_bits != found_scale) | (bias_bits != found_bias);
  }
  for (int j = 0; j < panel.group; ++j)
    add_element<proof>(sums, load(panel.w + j * kLanes), load(panel.q + j * kLanes), scale, bias,
                       rule, rule_scale, rule_bias, top);
  for (int l = 0; l < count; ++l)
    figures[l] = {lane(sums.error, l), lane(sums.weight, l), lane(sums.max, l),
                  lane(sums.parity, l), sums.differs[l] == 0};
}

void check_groups(const StoredGroups& groups, Proof proof, GroupFigures* figures) {
  Panel panel;
  for (size_t first = 0; first < groups.count; first += kLanes) {
    const size_t left = groups.count - first;
    const int count = left < kLanes ? static_cast<int>(left) : kLanes;
    load_panel(panel, groups, first, count);
    GroupFigures* to = figures + first;
    switch (proof) {
      case Proof::kNone:
        check_panel<Proof::kNone>(panel, groups.bits, groups.type, count, to);
        break;
      case Proof::kParityCpu:
        check_panel<Proof::kParityCpu>(panel, groups.bits, groups.type, count, to);
        break;
      case Proof::kParityGpu:
        check_panel<Proof::kParityGpu>(panel, groups.bits, groups.type, count, to);
        break;
      case Proof::kNotWorse:
        check_panel<Proof::kNotWorse>(panel, groups.bits, groups.type, count, to);
        break;
    }
  }
}

}  // namespace
}  // namespace sluice::verify::SLUICE_CHECK_ISA
