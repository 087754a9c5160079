// Products of few tokens with K-quants of two and three bits in registers of 512 bits, as in
// matmul_quads_k.h: a block's pairs of bits are one register, and of each shift of it the halves
// are chunks j and j + 4, its quarters groups of sixteen codes. To be included after that.
#pragma once

#include <utility>

#include "kernels/avx512/matmul_quads_k.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

// Of four rows, one in each quarter: sixteen whole scales, and what weighs the sums of activations.
struct SixteenScales {
  __m512i scales, weights;
};
template <class Coding>
SixteenScales sixteen_scales(const uint8_t* const* rows, size_t at);
template <>
[[gnu::always_inline]] inline SixteenScales sixteen_scales<TwoK>(const uint8_t* const* rows,
                                                                 size_t at) {
  const __m512i both = sixteen_of_four(rows, at), mask = _mm512_set1_epi8(15);
  return {_mm512_and_si512(both, mask), _mm512_and_si512(_mm512_srli_epi16(both, 4), mask)};
}
template <>
[[gnu::always_inline]] inline SixteenScales sixteen_scales<ThreeK>(const uint8_t* const* rows,
                                                                   size_t at) {
  // Two bytes of codes, eight of nibbles, four of pairs, and the step: to the block's end.
  const __m512i v = sixteen_of_four(rows, at + ThreeK::kBytes - 16);
  const __m512i nibbles = _mm512_shuffle_epi8(
      v, _mm512_broadcast_i32x4(_mm_setr_epi8(2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9)));
  const __m512i pairs =
      _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(_mm_setr_epi8(10, 11, 12, 13, 10, 11, 12, 13,
                                                                  10, 11, 12, 13, 10, 11, 12, 13)));
  const __m512i low = _mm512_and_si512(
      _mm512_srlv_epi64(nibbles, _mm512_setr_epi64(0, 4, 0, 4, 0, 4, 0, 4)), _mm512_set1_epi8(15));
  const __m512i high = _mm512_and_si512(_mm512_srlv_epi32(pairs, _mm512_set4_epi32(6, 4, 2, 0)),
                                        _mm512_set1_epi8(3));
  const __m512i scales =
      _mm512_sub_epi8(_mm512_or_si512(low, _mm512_slli_epi16(high, 4)), _mm512_set1_epi8(32));
  return {scales, scales};
}

template <class Coding>
[[gnu::always_inline]] inline void codes_of_shifts(const uint8_t* block, __m512i* codes) {
  constexpr bool kThird = Coding::kCodeMax == 7;
  const __m512i pair = _mm512_set1_epi8(3), third = _mm512_set1_epi8(4);
  __m512i v = _mm512_loadu_si512(block + (kThird ? 32 : 16));
  asm("" : "+v"(v));  // as in_register
  __m512i bits = _mm512_setzero_si512();
  if constexpr (kThird)  // of four chunks in the low bits of both halves
    bits = _mm512_srlv_epi64(_mm512_broadcast_i64x4(load_256(block)),
                             _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4));
  const auto code = [&]<int j>(std::integral_constant<int, j>) __attribute__((always_inline)) {
    const __m512i two = _mm512_srli_epi16(v, 2 * j);
    if constexpr (!kThird) return _mm512_and_si512(two, pair);
    const __m512i one = j < 2 ? _mm512_slli_epi16(bits, j < 2 ? 2 - j : 0)
                              : _mm512_srli_epi16(bits, j < 2 ? 0 : j - 2);
    return _mm512_ternarylogic_epi32(two, pair, _mm512_and_si512(one, third), kAndOr);
  };
  codes[0] = code(std::integral_constant<int, 0>());
  codes[1] = code(std::integral_constant<int, 1>());
  codes[2] = code(std::integral_constant<int, 2>());
  codes[3] = code(std::integral_constant<int, 3>());
}

// Which group's scale stands at a place: those of shifts kFirst and kFirst + 1.
template <int kFirst>
struct GroupsOfShifts {
  static constexpr bool kSigned = true;
  static constexpr int at(int place) {
    return kFirst * 2 + place / 32 * 8 + place % 32 / 16 + place % 16 / 8 * 2;
  }
};

// The products of the row in quarter kRow of scales.
template <class Coding, int kRow>
[[gnu::always_inline]] inline I add_sixteen(const uint8_t* block, const __m512i* values,
                                            __m512i scales) {
  __m512i codes[4];
  codes_of_shifts<Coding>(block, codes);
  __m512i sum = add_four(_mm512_setzero_si512(), codes[0], codes[1], values,
                         scales_of_row<kRow, GroupsOfShifts<0>>(scales));
  sum =
      add_four(sum, codes[2], codes[3], values + 2, scales_of_row<kRow, GroupsOfShifts<2>>(scales));
  return lower(sum) + upper(sum);
}

template <class Coding>
struct BlocksOfPairs {
  static V multiply(const RawMatmul& m, const Rows& rows, size_t t) {
    const uint8_t* token = m.prepared + t * m.prepared_stride;
    V y = splat_v(0);
    for (size_t b = 0; b < m.groups; ++b) {
      const size_t at = b * Coding::kBytes;
      fetch_weights<Coding, false>(m, rows, at, Coding::kBytes);
      const uint8_t* x = token + b * kBlock;
      __m512i values[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j)
        values[j] = _mm512_inserti64x4(_mm512_castsi256_si512(load_256(x + j * 32)),
                                       load_256(x + 128 + j * 32), 1);
      const SixteenScales scales[2] = {sixteen_scales<Coding>(rows.weight, at),
                                       sixteen_scales<Coding>(rows.weight + 4, at)};
      I whole[8];
      const auto four =
          [&]<int... kRows>(int half, std::integer_sequence<int, kRows...>)
              __attribute__((always_inline)) {
                ((whole[half * 4 + kRows] = add_sixteen<Coding, kRows>(
                      rows.weight[half * 4 + kRows] + at, values, scales[half].scales),
                  in_order(whole[half * 4 + kRows])),
                 ...);
              };
      four(0, std::make_integer_sequence<int, 4>());
      four(1, std::make_integer_sequence<int, 4>());
      const uint8_t* sums = token + m.sums_at + b * kBlockSums * 2;
      const I weighted =
          sums_of_quarters(weighed(scales[0].weights, sums), weighed(scales[1].weights, sums));
      float scale;
      memcpy(&scale, token + m.scales_at + b * 4, 4);
      if constexpr (Coding::kBias) {
        V steps, min_steps;
        two_halves_of(rows.weight, at + Coding::kStepAt, steps, min_steps);
        y = fma_v(steps * splat_v(scale), to_floats(sums_of_rows(whole)), y);
        y = fma_v(min_steps * splat_v(scale), to_floats(no_sum() - weighted), y);
      } else {
        const I products = sums_of_rows(whole) - weighted * splat_sum(Coding::kOffset);
        y = fma_v(halves_of(rows.weight, at + Coding::kStepAt) * splat_v(scale),
                  to_floats(products), y);
      }
    }
    return y;
  }

 private:
  // Sixteen signed bytes a quarter by the sums of sixteen groups, the even ones first.
  static __m512i weighed(__m512i bytes, const uint8_t* sums) {
    const __m512i even = _mm512_srai_epi16(_mm512_slli_epi16(bytes, 8), 8);
    const __m512i odd = _mm512_srai_epi16(bytes, 8);
    return _mm512_add_epi32(_mm512_madd_epi16(even, _mm512_broadcast_i32x4(load_128(sums))),
                            _mm512_madd_epi16(odd, _mm512_broadcast_i32x4(load_128(sums + 16))));
  }
};
template <>
struct Blocks<TwoK> : BlocksOfPairs<TwoK> {};
template <>
struct Blocks<ThreeK> : BlocksOfPairs<ThreeK> {};

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
