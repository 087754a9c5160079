// Products of few tokens with coded weights in registers of 512 bits: of each of eight rows
// four chunks of 32 codes at a time, one in each quarter of a register. Half as many instructions
// as in registers of 256 bits, and more of memory's latency hidden by those that wait. To be
// included after generic/matmul_few.h.
#pragma once

#include "kernels/avx512/matmul_quad_codings.h"
#include "kernels/generic/matmul_blocks.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

// Activations of four chunks: those that meet low nibbles, and those that meet high ones; and what
// the offsets of codes add to their products, taken away beforehand.
struct QuadValues {
  __m512i low, high, start;
};
template <class Q>
[[gnu::always_inline]] inline QuadValues quad_values(const uint8_t* values) {
  const __m512i a = _mm512_loadu_si512(values), b = _mm512_loadu_si512(values + 64);
  const __m512i zero = _mm512_setzero_si512();
  QuadValues x{_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xdd), zero};
  if constexpr (Q::kOffset > 0) {
    const __m512i offset = _mm512_set1_epi8(Q::kOffset);
    x.start = _mm512_sub_epi32(
        zero, _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, offset, x.low), offset, x.high));
  }
  return x;
}

// In each quarter the four partial sums of one chunk.
template <class Q>
[[gnu::always_inline]] inline __m512i dot_quad(const uint8_t* p, const QuadValues& x) {
  const QuadCodes c = quad_codes<Q>(p);
  return _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(x.start, c.low, x.low), c.high, x.high);
}

inline __m512i add_neighbours(__m512i a, __m512i b) {
  return _mm512_madd_epi16(_mm512_packs_epi32(a, b), _mm512_set1_epi16(1));
}
// Sums of four lanes where they need all 32 bits: in each quarter those of four rows.
inline __m512i sums_of_four(__m512i a, __m512i b, __m512i c, __m512i d) {
  const auto added = [](__m512i x, __m512i y) __attribute__((always_inline)) {
    return _mm512_add_epi32(_mm512_unpacklo_epi32(x, y), _mm512_unpackhi_epi32(x, y));
  };
  const __m512i e = added(a, b), f = added(c, d);
  return _mm512_add_epi32(_mm512_unpacklo_epi64(e, f), _mm512_unpackhi_epi64(e, f));
}

// In each quarter the sums of four rows' chunks.
template <class Coding, class Q>
[[gnu::always_inline]] inline __m512i dot_four(const uint8_t* const* rows, size_t at,
                                               const QuadValues& x) {
  constexpr int kHighest = Coding::kCodeMax - Q::kOffset;
  constexpr int kMost =
      8 * 127 * (kHighest > Q::kOffset ? kHighest : Q::kOffset);  // of a partial sum
  const auto dot = [&](int i)
                       __attribute__((always_inline)) { return dot_quad<Q>(rows[i] + at, x); };
  static_assert(kMost <= 32767);
  const __m512i a = add_neighbours(dot(0), dot(1)), b = add_neighbours(dot(2), dot(3));
  if constexpr (2 * kMost <= 32767) {
    return add_neighbours(a, b);
  } else {
    const __m512 p = _mm512_castsi512_ps(a), q = _mm512_castsi512_ps(b);
    return _mm512_add_epi32(_mm512_castps_si512(_mm512_shuffle_ps(p, q, 0x88)),
                            _mm512_castps_si512(_mm512_shuffle_ps(p, q, 0xdd)));
  }
}

// ---- activations of 16 bits ----

// Of four chunks, one in each quarter: what meets low nibbles of even bytes, high ones, and those
// of odd bytes.
struct WideQuadValues {
  __m512i low_even, high_even, low_odd, high_odd;
};
inline WideQuadValues wide_quad_values(const uint8_t* values) {
  const auto chunk = [&](int i) { return _mm512_loadu_si512(values + i * 64); };
  const __m512i a = chunk(0), b = chunk(1), c = chunk(2), d = chunk(3);
  const __m512i e = _mm512_shuffle_i64x2(a, b, 0x44), f = _mm512_shuffle_i64x2(c, d, 0x44);
  const __m512i g = _mm512_shuffle_i64x2(a, b, 0xee), h = _mm512_shuffle_i64x2(c, d, 0xee);
  return {_mm512_shuffle_i64x2(e, f, 0x88), _mm512_shuffle_i64x2(e, f, 0xdd),
          _mm512_shuffle_i64x2(g, h, 0x88), _mm512_shuffle_i64x2(g, h, 0xdd)};
}

// Whole numbers below 16 in 16 bits straight from the packing.
[[gnu::always_inline]] inline __m512i dot_wide_quad(const uint8_t* p, const WideQuadValues& x) {
  const __m512i mask = _mm512_set1_epi16(15);
  __m512i v = _mm512_loadu_si512(p);
  asm("" : "+v"(v));  // as in_register
  __m512i sum = _mm512_dpwssd_epi32(_mm512_setzero_si512(), _mm512_and_si512(v, mask), x.low_even);
  sum = _mm512_dpwssd_epi32(sum, _mm512_and_si512(_mm512_srli_epi16(v, 4), mask), x.high_even);
  sum = _mm512_dpwssd_epi32(sum, _mm512_and_si512(_mm512_srli_epi16(v, 8), mask), x.low_odd);
  return _mm512_dpwssd_epi32(sum, _mm512_srli_epi16(v, 12), x.high_odd);
}
// And what is no nibble itself.
template <class Q>
[[gnu::always_inline]] inline __m512i dot_parted_quad(const uint8_t* p, const WideQuadValues& x) {
  const __m512i even = _mm512_set1_epi16(0xff);
  const QuadCodes c = quad_codes<Q>(p);
  __m512i sum =
      _mm512_dpwssd_epi32(_mm512_setzero_si512(), _mm512_and_si512(c.low, even), x.low_even);
  sum = _mm512_dpwssd_epi32(sum, _mm512_and_si512(c.high, even), x.high_even);
  sum = _mm512_dpwssd_epi32(sum, _mm512_srli_epi16(c.low, 8), x.low_odd);
  return _mm512_dpwssd_epi32(sum, _mm512_srli_epi16(c.high, 8), x.high_odd);
}
template <class Coding, class Q>
[[gnu::always_inline]] inline __m512i dot_wide_four(const uint8_t* const* rows, size_t at,
                                                    const WideQuadValues& x) {
  const auto dot = [&](int i) __attribute__((always_inline)) {
    if constexpr (Coding::kCodeMax > 15)
      return dot_parted_quad<Q>(rows[i] + at, x);
    else
      return dot_wide_quad(rows[i] + at, x);
  };
  return sums_of_four(dot(0), dot(1), dot(2), dot(3));
}

// ---- groups ----

inline I lower(__m512i v) { return {_mm512_castsi512_si256(v)}; }
inline I upper(__m512i v) { return {_mm512_extracti64x4_epi64(v, 1)}; }

// The sums of 128 / kGroup groups of eight rows, from those of four chunks.
template <int kGroup>
[[gnu::always_inline]] inline void group_sums(__m512i a, __m512i b, I* out) {
  const auto merged = [&](__m512i places) __attribute__((always_inline)) {
    return _mm512_permutex2var_epi64(a, places, b);
  };
  if constexpr (kGroup == 32) {
    const __m512i first = merged(_mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11));
    const __m512i last = merged(_mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15));
    out[0] = lower(first);
    out[1] = upper(first);
    out[2] = lower(last);
    out[3] = upper(last);
  } else {
    const __m512i sum = _mm512_add_epi32(merged(_mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13)),
                                         merged(_mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15)));
    if constexpr (kGroup == 64) {
      out[0] = lower(sum);
      out[1] = upper(sum);
    } else {
      out[0] = lower(sum) + upper(sum);
    }
  }
}

// In each quarter the sums of four rows' chunks, of rows 0 to 3 and of 4 to 7.
template <class Coding, class Q, bool kWide>
[[gnu::always_inline]] inline void dot_eight(const Rows& rows, size_t at, const uint8_t* values,
                                             __m512i& first, __m512i& last) {
  if constexpr (kWide) {
    const WideQuadValues x = wide_quad_values(values);
    first = dot_wide_four<Coding, Q>(rows.weight, at, x);
    last = dot_wide_four<Coding, Q>(rows.weight + 4, at, x);
  } else {
    const QuadValues x = quad_values<Q>(values);
    first = dot_four<Coding, Q>(rows.weight, at, x);
    last = dot_four<Coding, Q>(rows.weight + 4, at, x);
  }
}

// Whole eights of groups.
template <class Coding, bool kWide, int kGroup, Element kElement>
size_t multiply_quads(const RawMatmul& m, const Rows& rows, size_t t, V& y) {
  using Q = Quad<Coding, kElement>;
  constexpr size_t kGroups = 128 / kGroup, kValueBytes = (kWide ? 8 : 4) * kChunk;
  const size_t whole = m.groups / 8 * 8;
  const uint8_t* token = m.prepared + t * m.prepared_stride;
  typename Q::Values parameters;
  size_t quad = 0;
  for (size_t g0 = 0; g0 < whole; g0 += 8) {
    Q::parameters(m, rows, g0, parameters);
    if (g0 % kScaleGroups == 0 && m.scale_stride > 0)
      fetch_scales(rows, g0 * m.scale_stride / m.groups);
#pragma GCC unroll 1
    for (size_t g = 0; g < 8; g += kGroups, ++quad) {
      const size_t at = quad_at<Q>(quad);
      fetch_weights<Coding, kInSmallBlocks<Coding>>(m, rows, at, Q::kBytes);
      __m512i first, last;
      dot_eight<Coding, Q, kWide>(rows, at, token + quad * kValueBytes, first, last);
      I sums[kGroups];
      group_sums<kGroup>(first, last, sums);
#pragma GCC unroll 4
      for (size_t i = 0; i < kGroups; ++i) {
        const TokenGroup group = token_group(m, token, g0 + g + i);
        if constexpr (Coding::kBias)
          y = fold<true>(y, sums[i], Q::scales(parameters, g + i), Q::biases(parameters, g + i),
                         group);
        else if constexpr (kWide)  // offsets are still in the sums
          y = fold<false>(y, sums[i], Q::scales(parameters, g + i), splat_v(0), group);
        else
          y = fma_v(Q::scales(parameters, g + i) * splat_v(group.scale), to_floats(sums[i]), y);
      }
    }
  }
  return whole;
}

// Wide where codes are the nibbles themselves, in MLX's order, and where they go no other way.
template <class Coding, bool kWide>
constexpr bool kInQuads = Quad<Coding, kElementF16>::kThere && !kWide && Coding::kCodeMax <= 31;
template <>
constexpr bool kInQuads<Affine<6>, true> = Quad<Affine<6>, kElementF16>::kThere;
template <>
constexpr bool kInQuads<Affine<4>, true> = true;
template <>
constexpr bool kInQuads<IQ4NL, true> = true;
template <>
constexpr bool kInQuads<IQ4XS, true> = true;

template <class Coding, bool kWide, int kGroup>
  requires(kInQuads<Coding, kWide> && kGroup >= 32)
struct Front<Coding, kWide, kGroup> {
  static size_t multiply(const RawMatmul& m, const Rows& rows, size_t t, V& y) {
    if constexpr (!Quad<Coding, kElementF32>::kThere) {
      if (m.element == kElementF32) return 0;
      if (m.element == kElementBF16)
        return multiply_quads<Coding, kWide, kGroup, kElementBF16>(m, rows, t, y);
    }
    return multiply_quads<Coding, kWide, kGroup, kElementF16>(m, rows, t, y);
  }
};

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
