// Primitives of the products in 256-bit registers. C is 32 codes, S 32 bytes of activations (or 16
// of 16 bits), I eight 32-bit whole numbers, V eight floats. Included inside the namespace of the
// instruction set by files that bring P, the sums of byte products, as that set has them.
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

namespace sluice::kernels::SLUICE_ISA {
namespace {

struct C {
  __m256i v;
};
struct S {
  __m256i v;
};
struct I {
  __m256i v;
};
struct V {
  __m256 v;
};

inline __m256i load_256(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline __m128i load_128(const uint8_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
inline S load_values(const uint8_t* p) { return {load_256(p)}; }
// The same four bytes in every lane.
inline S splat_values(const uint8_t* p) {
  int word;
  memcpy(&word, p, 4);
  return {_mm256_set1_epi32(word)};
}
inline void prefetch(const uint8_t* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
}

// ---- codes ----

inline C codes(const uint8_t* p) { return {load_256(p)}; }
inline void store_codes(uint8_t* p, C c) { _mm256_store_si256(reinterpret_cast<__m256i*>(p), c.v); }
inline C splat_code(int code) { return {_mm256_set1_epi8(static_cast<char>(code))}; }
inline C operator&(C a, C b) { return {_mm256_and_si256(a.v, b.v)}; }
inline C operator|(C a, C b) { return {_mm256_or_si256(a.v, b.v)}; }
inline C operator^(C a, C b) { return {_mm256_xor_si256(a.v, b.v)}; }
// Of bytes; bits from the neighbour come in, for the caller to mask.
inline C shift_right(C a, int count) { return {_mm256_srl_epi16(a.v, _mm_cvtsi32_si128(count))}; }
inline C shift_left(C a, int count) { return {_mm256_sll_epi16(a.v, _mm_cvtsi32_si128(count))}; }
// table[code] for codes below 16.
inline C look_up(const uint8_t* table, C code) {
  return {_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load_128(table)), code.v)};
}
// 0xff where the bit of four bytes is set.
inline C spread_bits(const uint8_t* p) {
  const __m256i place = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2,
                                         2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
  const __m256i bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201u));
  const __m256i bytes = _mm256_shuffle_epi8(splat_values(p).v, place);
  return {_mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit)};
}

// Eight bytes of pairs: elements 0, 4, 8 … in lane 0, then 1, 5, 9 …
inline C pairs_apart(const uint8_t* p) {
  int64_t word;
  memcpy(&word, p, 8);
  const __m256i shifted =
      _mm256_srlv_epi64(_mm256_set1_epi64x(word), _mm256_setr_epi64x(0, 2, 4, 6));
  return {_mm256_and_si256(shifted, _mm256_set1_epi8(3))};
}
// Sixteen bytes: their low nibbles, then their high ones.
inline C nibbles_apart(const uint8_t* p) {
  const __m256i both = _mm256_broadcastsi128_si256(load_128(p));
  const __m256i shifted = _mm256_srlv_epi32(both, _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4));
  return {_mm256_and_si256(shifted, _mm256_set1_epi8(15))};
}
// Sixteen bytes of nibbles, in order.
inline C nibbles(const uint8_t* p) {
  const __m256i wide = _mm256_cvtepu8_epi16(load_128(p));
  return {
      _mm256_and_si256(_mm256_or_si256(wide, _mm256_slli_epi16(wide, 4)), _mm256_set1_epi8(15))};
}
// Codes of 3, 5 or 6 bits, in order. Each 16-bit lane takes the two bytes that hold a pair of
// codes, a multiplication moves the pair to the lane's upper end, and two shifts part it.
template <int kBits>
inline C stream(const uint8_t* p) {
  alignas(32) static constexpr struct Tables {
    uint8_t bytes[32];
    uint16_t factors[16];
    constexpr Tables() : bytes(), factors() {
      for (int i = 0; i < 16; ++i) {
        const int bit = 2 * kBits * (i % 8);
        bytes[2 * i] = static_cast<uint8_t>(bit / 8);
        bytes[2 * i + 1] = static_cast<uint8_t>(bit / 8 + 1);
        factors[i] = static_cast<uint16_t>(1 << (16 - 2 * kBits - bit % 8));
      }
    }
  } kTables;
  constexpr int kMask = (1 << kBits) - 1;
  const __m256i raw =
      _mm256_inserti128_si256(_mm256_castsi128_si256(load_128(p)), load_128(p + 2 * kBits), 1);
  const __m256i windows = _mm256_shuffle_epi8(raw, load_256(kTables.bytes));
  const __m256i high =
      _mm256_mullo_epi16(windows, load_256(reinterpret_cast<const uint8_t*>(kTables.factors)));
  const __m256i even =
      _mm256_and_si256(_mm256_srli_epi16(high, 16 - 2 * kBits), _mm256_set1_epi16(kMask));
  const __m256i odd =
      _mm256_and_si256(_mm256_srli_epi16(high, 8 - kBits), _mm256_set1_epi16(kMask << 8));
  return {_mm256_or_si256(even, odd)};
}

// ---- sums ----

inline I no_sum() { return {_mm256_setzero_si256()}; }
inline I operator+(I a, I b) { return {_mm256_add_epi32(a.v, b.v)}; }
inline I operator-(I a, I b) { return {_mm256_sub_epi32(a.v, b.v)}; }
inline I splat_sum(int32_t x) { return {_mm256_set1_epi32(x)}; }
inline S even_codes(C c) { return {_mm256_and_si256(c.v, _mm256_set1_epi16(0xff))}; }
inline S odd_codes(C c) { return {_mm256_srli_epi16(c.v, 8)}; }
// Products of 16 bits, added in pairs.
inline I multiply_wide(S a, S b) { return {_mm256_madd_epi16(a.v, b.v)}; }

// Of eight vectors: lane r of low is the sum of the lower half of vector r, of high of the upper.
inline void sum_halves(const I* r, I& low, I& high) {
  const __m256i a =
      _mm256_hadd_epi32(_mm256_hadd_epi32(r[0].v, r[1].v), _mm256_hadd_epi32(r[2].v, r[3].v));
  const __m256i b =
      _mm256_hadd_epi32(_mm256_hadd_epi32(r[4].v, r[5].v), _mm256_hadd_epi32(r[6].v, r[7].v));
  low = {_mm256_permute2x128_si256(a, b, 0x20)};
  high = {_mm256_permute2x128_si256(a, b, 0x31)};
}

// Eight by eight 32-bit lanes.
inline void transpose(C* r) {
  __m256i t[8];
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = _mm256_unpacklo_epi32(r[2 * i].v, r[2 * i + 1].v);
    t[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i].v, r[2 * i + 1].v);
  }
  __m256i u[8];
  for (int i = 0; i < 2; ++i) {
    u[4 * i] = _mm256_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    u[4 * i + 1] = _mm256_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    u[4 * i + 2] = _mm256_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    u[4 * i + 3] = _mm256_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = {_mm256_permute2x128_si256(u[i], u[i + 4], 0x20)};
    r[i + 4] = {_mm256_permute2x128_si256(u[i], u[i + 4], 0x31)};
  }
}

// ---- floats ----

inline V load_v(const float* p) { return {_mm256_loadu_ps(p)}; }
inline void store_v(float* p, V x) { _mm256_storeu_ps(p, x.v); }
inline V splat_v(float x) { return {_mm256_set1_ps(x)}; }
inline V operator*(V a, V b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline V operator+(V a, V b) { return {_mm256_add_ps(a.v, b.v)}; }
inline V operator/(V a, V b) { return {_mm256_div_ps(a.v, b.v)}; }
inline V fma_v(V a, V b, V c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline V to_floats(I x) { return {_mm256_cvtepi32_ps(x.v)}; }
inline V abs_v(V a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
// Minimum and maximum give b where a is NaN.
inline V min_v(V a, V b) { return {_mm256_min_ps(a.v, b.v)}; }
inline V max_v(V a, V b) { return {_mm256_max_ps(a.v, b.v)}; }
inline V round_v(V a) {
  return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline I to_whole(V a) { return {_mm256_cvtps_epi32(a.v)}; }
inline void store_whole(int32_t* p, I x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.v);
}
inline V load_8(Element element, const uint8_t* p) {
  switch (element) {
    case kElementF32: return load_v(reinterpret_cast<const float*>(p));
    case kElementF16: return {_mm256_cvtph_ps(load_128(p))};
    case kElementBF16: break;
  }
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_128(p)), 16))};
}
inline float half(const uint8_t* p) {
  uint16_t bits;
  memcpy(&bits, p, 2);
  return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)));
}
inline void transpose(V* r) {
  C c[8];
  for (int i = 0; i < 8; ++i) c[i] = {_mm256_castps_si256(r[i].v)};
  transpose(c);
  for (int i = 0; i < 8; ++i) r[i] = {_mm256_castsi256_ps(c[i].v)};
}
// Lanes l and l + 8, then l + 4, l + 2, l + 1.
inline float fold_lanes(V a, V b) {
  const __m256 c = _mm256_add_ps(a.v, b.v);
  __m128 d = _mm_add_ps(_mm256_castps256_ps128(c), _mm256_extractf128_ps(c, 1));
  d = _mm_add_ps(d, _mm_movehl_ps(d, d));
  return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
}

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
