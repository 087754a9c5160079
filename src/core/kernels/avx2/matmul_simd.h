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
// For what is loaded and then used by several instructions: g++ would have those that can take it
// from memory read it again, by way of the stack.
inline void in_register(__m256i& v) { asm("" : "+v"(v)); }
inline S load_values(const uint8_t* p) { return {load_256(p)}; }
// Sixteen bytes from each.
inline __m256i load_halves(const uint8_t* p, const uint8_t* q) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(load_128(p)), load_128(q), 1);
}
inline S load_values(const uint8_t* p, const uint8_t* q) { return {load_halves(p, q)}; }
// The same four bytes in every lane.
inline S splat_values(const uint8_t* p) {
  int word;
  memcpy(&word, p, 4);
  return {_mm256_set1_epi32(word)};
}

// ---- codes ----

inline C codes(const uint8_t* p) {
  __m256i v = load_256(p);
  in_register(v);
  return {v};
}
inline void store_codes(uint8_t* p, C c) { _mm256_store_si256(reinterpret_cast<__m256i*>(p), c.v); }
inline C splat_code(int code) { return {_mm256_set1_epi8(static_cast<char>(code))}; }
inline C operator&(C a, C b) { return {_mm256_and_si256(a.v, b.v)}; }
inline C operator|(C a, C b) { return {_mm256_or_si256(a.v, b.v)}; }
inline C operator^(C a, C b) { return {_mm256_xor_si256(a.v, b.v)}; }
// Of bytes; bits from the neighbour come in, for the caller to mask.
inline C shift_right(C a, int count) { return {_mm256_srli_epi16(a.v, count)}; }
inline C shift_left(C a, int count) { return {_mm256_slli_epi16(a.v, count)}; }
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
// Of 32 bytes, or of sixteen and sixteen, the low nibbles and the high ones.
inline void part_nibbles(__m256i v, C& low, C& high) {
  in_register(v);
  const __m256i mask = _mm256_set1_epi8(15);
  low = {_mm256_and_si256(v, mask)};
  high = {_mm256_and_si256(_mm256_srli_epi16(v, 4), mask)};
}
inline void part_nibbles(const uint8_t* p, C& low, C& high) {
  part_nibbles(load_256(p), low, high);
}
inline void part_nibbles(const uint8_t* p, const uint8_t* q, C& low, C& high) {
  part_nibbles(load_halves(p, q), low, high);
}
// Sixteen bytes of nibbles, in order.
inline C nibbles(const uint8_t* p) {
  const __m256i wide = _mm256_cvtepu8_epi16(load_128(p));
  return {
      _mm256_and_si256(_mm256_or_si256(wide, _mm256_slli_epi16(wide, 4)), _mm256_set1_epi8(15))};
}
// ---- sums ----

// Keeps the compiler from doing later products first, for which it would have to spill sums.
inline void in_order(I& a) { asm volatile("" : "+x"(a.v)); }
inline void in_order(I& a, I& b) { asm volatile("" : "+x"(a.v), "+x"(b.v)); }
inline I no_sum() { return {_mm256_setzero_si256()}; }
inline I operator+(I a, I b) { return {_mm256_add_epi32(a.v, b.v)}; }
inline I operator-(I a, I b) { return {_mm256_sub_epi32(a.v, b.v)}; }
inline I operator*(I a, I b) { return {_mm256_mullo_epi32(a.v, b.v)}; }
inline I splat_sum(int32_t x) { return {_mm256_set1_epi32(x)}; }
inline S even_codes(C c) { return {_mm256_and_si256(c.v, _mm256_set1_epi16(0xff))}; }
inline S odd_codes(C c) { return {_mm256_srli_epi16(c.v, 8)}; }
// Products of 16 bits, added in pairs.
inline I multiply_wide(S a, S b) { return {_mm256_madd_epi16(a.v, b.v)}; }

// Sixteen scales that are signed bytes, as 16-bit numbers: those of even groups, then of odd ones.
struct W {
  __m256i v;
};
inline W sixteen_whole(uint64_t low, uint64_t high) {
  const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
  const __m128i bytes = _mm_set_epi64x(static_cast<int64_t>(high), static_cast<int64_t>(low));
  return {_mm256_cvtepi8_epi16(_mm_shuffle_epi8(bytes, order))};
}
// Eight, twice.
inline W eight_whole(uint64_t bytes) {
  return {_mm256_cvtepi8_epi16(_mm_set1_epi64x(static_cast<int64_t>(bytes)))};
}
inline I weigh(W w, S sums) { return {_mm256_madd_epi16(w.v, sums.v)}; }

// Sums of four vectors, in two steps: lane r of a half is the sum of that half of vector r. By
// shuffles and additions of their own, which some processors do faster than horizontal ones.
template <int>
inline I pair_up(I a, I b) {
  return {_mm256_add_epi32(_mm256_unpacklo_epi32(a.v, b.v), _mm256_unpackhi_epi32(a.v, b.v))};
}
template <int>
inline I four_up(I a, I b) {
  return {_mm256_add_epi32(_mm256_unpacklo_epi64(a.v, b.v), _mm256_unpackhi_epi64(a.v, b.v))};
}
// Of two fours: their lower halves, and their upper ones.
inline void part_halves(I a, I b, I& low, I& high) {
  low = {_mm256_permute2x128_si256(a.v, b.v, 0x20)};
  high = {_mm256_permute2x128_si256(a.v, b.v, 0x31)};
}

// Eight by eight 32-bit lanes. Without arrays, which the compiler would keep in memory.
struct Eight {
  __m256i a, b, c, d, e, f, g, h;
};
[[gnu::always_inline]] inline Eight transpose(const Eight& r) {
  const __m256i a = _mm256_unpacklo_epi32(r.a, r.b), b = _mm256_unpackhi_epi32(r.a, r.b);
  const __m256i c = _mm256_unpacklo_epi32(r.c, r.d), d = _mm256_unpackhi_epi32(r.c, r.d);
  const __m256i e = _mm256_unpacklo_epi32(r.e, r.f), f = _mm256_unpackhi_epi32(r.e, r.f);
  const __m256i g = _mm256_unpacklo_epi32(r.g, r.h), h = _mm256_unpackhi_epi32(r.g, r.h);
  const __m256i i = _mm256_unpacklo_epi64(a, c), j = _mm256_unpackhi_epi64(a, c);
  const __m256i k = _mm256_unpacklo_epi64(b, d), l = _mm256_unpackhi_epi64(b, d);
  const __m256i m = _mm256_unpacklo_epi64(e, g), n = _mm256_unpackhi_epi64(e, g);
  const __m256i o = _mm256_unpacklo_epi64(f, h), p = _mm256_unpackhi_epi64(f, h);
  return {_mm256_permute2x128_si256(i, m, 0x20), _mm256_permute2x128_si256(j, n, 0x20),
          _mm256_permute2x128_si256(k, o, 0x20), _mm256_permute2x128_si256(l, p, 0x20),
          _mm256_permute2x128_si256(i, m, 0x31), _mm256_permute2x128_si256(j, n, 0x31),
          _mm256_permute2x128_si256(k, o, 0x31), _mm256_permute2x128_si256(l, p, 0x31)};
}
[[gnu::always_inline]] inline void store_eight(const Eight& v, uint8_t* out, size_t stride) {
  const __m256i rows[8] = {v.a, v.b, v.c, v.d, v.e, v.f, v.g, v.h};
#pragma GCC unroll 8
  for (size_t i = 0; i < 8; ++i)
    _mm256_store_si256(reinterpret_cast<__m256i*>(out + i * stride), rows[i]);
}
// Rows in, columns out; out is aligned to 32.
[[gnu::always_inline]] inline void store_transposed(const C* r, uint8_t* out, size_t stride) {
  store_eight(transpose({r[0].v, r[1].v, r[2].v, r[3].v, r[4].v, r[5].v, r[6].v, r[7].v}), out,
              stride);
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
// The f16 at the same place of eight rows.
[[gnu::always_inline]] inline V halves_of(const uint8_t* const* rows, size_t at) {
  uint16_t h[8];
  for (int i = 0; i < 8; ++i) memcpy(&h[i], rows[i] + at, 2);
  return {_mm256_cvtph_ps(_mm_setr_epi16(static_cast<int16_t>(h[0]), static_cast<int16_t>(h[1]),
                                         static_cast<int16_t>(h[2]), static_cast<int16_t>(h[3]),
                                         static_cast<int16_t>(h[4]), static_cast<int16_t>(h[5]),
                                         static_cast<int16_t>(h[6]), static_cast<int16_t>(h[7])))};
}
// Two f16, one behind the other, at the same place of eight rows.
[[gnu::always_inline]] inline void two_halves_of(const uint8_t* const* rows, size_t at, V& first,
                                                 V& second) {
  int w[8];
  for (int i = 0; i < 8; ++i) memcpy(&w[i], rows[i] + at, 4);
  const __m128i a = _mm_setr_epi32(w[0], w[1], w[2], w[3]);
  const __m128i b = _mm_setr_epi32(w[4], w[5], w[6], w[7]);
  const __m128i mask = _mm_set1_epi32(0xffff);
  first = {_mm256_cvtph_ps(_mm_packus_epi32(_mm_and_si128(a, mask), _mm_and_si128(b, mask)))};
  second = {_mm256_cvtph_ps(_mm_packus_epi32(_mm_srli_epi32(a, 16), _mm_srli_epi32(b, 16)))};
}
// Eight bytes as exponents of two.
inline V e8m0_to_floats(uint64_t bytes) {
  const __m128i v = _mm_cvtsi64_si128(static_cast<int64_t>(bytes));
  const __m256i shifted = _mm256_slli_epi32(_mm256_cvtepu8_epi32(v), 23);
  return {_mm256_castsi256_ps(_mm256_max_epu32(shifted, _mm256_set1_epi32(0x00400000)))};
}
// Eight 8-bit floats of four exponent bits: f16 with an exponent eight too small.
inline V e4m3_to_floats(uint64_t bytes) {
  const __m128i v = _mm_cvtepu8_epi16(_mm_cvtsi64_si128(static_cast<int64_t>(bytes)));
  const __m128i magnitude = _mm_and_si128(v, _mm_set1_epi16(0x7f));
  const __m128i nan = _mm_cmpeq_epi16(magnitude, _mm_set1_epi16(0x7f));
  const __m128i sign = _mm_slli_epi16(_mm_and_si128(v, _mm_set1_epi16(0x80)), 8);
  const __m128i bits = _mm_or_si128(_mm_or_si128(_mm_slli_epi16(magnitude, 7), sign),
                                    _mm_and_si128(nan, _mm_set1_epi16(0x7e00)));
  return {_mm256_mul_ps(_mm256_cvtph_ps(bits), _mm256_set1_ps(256.0f))};
}
// A 256th of them, and no NaN.
inline V small_e4m3_to_floats(uint64_t bytes) {
  const __m128i v = _mm_cvtepi8_epi16(_mm_cvtsi64_si128(static_cast<int64_t>(bytes)));
  return {_mm256_cvtph_ps(_mm_and_si128(_mm_slli_epi16(v, 7), _mm_set1_epi16(~0x4000)))};
}
// Eight bytes, the first in lane 0.
inline V bytes_to_floats(uint64_t bytes) {
  const __m128i v = _mm_cvtsi64_si128(static_cast<int64_t>(bytes));
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(v))};
}
inline V signed_bytes_to_floats(uint64_t bytes) {
  const __m128i v = _mm_cvtsi64_si128(static_cast<int64_t>(bytes));
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v))};
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
[[gnu::always_inline]] inline void store_transposed(const V* r, float (*out)[8]) {
  const auto bits = [&](int i)
                        __attribute__((always_inline)) { return _mm256_castps_si256(r[i].v); };
  store_eight(transpose({bits(0), bits(1), bits(2), bits(3), bits(4), bits(5), bits(6), bits(7)}),
              reinterpret_cast<uint8_t*>(out), sizeof *out);
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
