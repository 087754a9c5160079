// Products of few tokens with K-quants of four and six bits in registers of 512 bits, as in
// matmul_quads.h. To be included after the primitives and P.
#pragma once

#include <utility>

#include "kernels/avx512/matmul_quads.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

// ---- K-quants of four and five bits ----

// Sixteen bytes of each of four rows, one row's in each quarter.
[[gnu::always_inline]] inline __m512i sixteen_of_four(const uint8_t* const* rows, size_t at) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(load_halves(rows[0] + at, rows[1] + at)),
                            load_halves(rows[2] + at, rows[3] + at), 1);
}

// Eight rows' whole scales and minima of one block: in each quarter eight scales and eight minima
// of a row, as bytes. And the two f16 above them.
struct BlockScales {
  __m512i rows[2];
  V steps, min_steps;
};
[[gnu::always_inline]] inline BlockScales block_scales(const uint8_t* const* rows, size_t at) {
  BlockScales out;
  __m512i words[2];
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    words[half] = sixteen_of_four(rows + half * 4, at);
    // Six low bits of the first four; of the others four bits come from the last word and two from
    // the top of the first four.
    const __m512i own =
        _mm512_shuffle_epi32(words[half], static_cast<_MM_PERM_ENUM>(0xa5));  // 1 1 2 2
    const __m512i last =
        _mm512_shuffle_epi32(words[half], static_cast<_MM_PERM_ENUM>(0xff));  // 3 3 3 3
    const __m512i tops =
        _mm512_and_si512(_mm512_srlv_epi32(own, _mm512_set4_epi32(2, 0, 2, 0)),
                         _mm512_set4_epi32(0x30303030, 0x3f3f3f3f, 0x30303030, 0x3f3f3f3f));
    const __m512i rest = _mm512_and_si512(_mm512_srlv_epi32(last, _mm512_set4_epi32(4, 0, 0, 0)),
                                          _mm512_set4_epi32(0x0f0f0f0f, 0, 0x0f0f0f0f, 0));
    out.rows[half] = _mm512_or_si512(tops, rest);
  }
  const __m256i both = _mm512_castsi512_si256(_mm512_permutex2var_epi32(
      words[0], _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 0, 0, 0, 0, 0, 0, 0), words[1]));
  out.steps = {_mm256_cvtph_ps(_mm256_cvtepi32_epi16(both))};
  out.min_steps = {_mm256_cvtph_ps(_mm256_cvtepi32_epi16(_mm256_srli_epi32(both, 16)))};
  return out;
}

// Each quarter's four numbers added up: of a's quarters, then of b's.
inline I sums_of_quarters(__m512i a, __m512i b) {
  const auto added = [](__m512i x, __m512i y) __attribute__((always_inline)) {
    const __m512 p = _mm512_castsi512_ps(x), q = _mm512_castsi512_ps(y);
    return _mm512_add_epi32(_mm512_castps_si512(_mm512_shuffle_ps(p, q, 0x88)),
                            _mm512_castps_si512(_mm512_shuffle_ps(p, q, 0xdd)));
  };
  const __m512i pairs = added(a, b);
  const __m512i all = added(pairs, pairs);
  return lower(_mm512_permutexvar_epi32(
      _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 0, 0, 0, 0, 0, 0, 0, 0), all));
}

// Scales of the row in quarter kRow, from bytes to 16 bits; Groups says whose stands at each place
// of a byte, and whether they are signed.
template <int kRow, class Groups>
[[gnu::always_inline]] inline __m512i scales_of_row(__m512i scales) {
  constexpr int kByte = Groups::kSigned ? 1 : 0;  // of a word, where the scale goes
  alignas(64) static constexpr struct Places {
    uint8_t at[64];
    constexpr Places() : at() {
      for (int i = 0; i < 64; ++i) {
#ifdef __AVX512VBMI__
        at[i] = static_cast<uint8_t>(kRow * 16 + Groups::at(i));
#else
        at[i] = static_cast<uint8_t>(i % 2 == kByte ? Groups::at(i) : 0x80);
#endif
      }
    }
  } kPlaces;
  const __m512i places = _mm512_load_si512(kPlaces.at);
#ifdef __AVX512VBMI__
  const __m512i words =
      _mm512_maskz_permutexvar_epi8(uint64_t{0x5555555555555555} << kByte, places, scales);
#else
  const __m512i words =
      _mm512_shuffle_epi8(_mm512_shuffle_i64x2(scales, scales, kRow * 0x55), places);
#endif
  return Groups::kSigned ? _mm512_srai_epi16(words, 8) : words;
}
// Of four groups from kFirst on: four times the first's and the second's in the lower quarters, and
// so the others' in the upper ones.
template <int kFirst>
struct FourGroups {
  static constexpr bool kSigned = false;
  static constexpr int at(int place) { return kFirst + place / 32 * 2 + place % 16 / 8; }
};

// In the lower half bit kBit of each byte, in the upper one bit kBit + 2, as a code's fifth.
template <int kBit>
[[gnu::always_inline]] inline __m512i fifth_bits(__m512i bits) {
#ifdef __GFNI__
  constexpr int64_t kOne = int64_t{1} << (24 + kBit);
  const __m512i places =
      _mm512_inserti64x4(_mm512_set1_epi64(kOne), _mm256_set1_epi64x(kOne << 2), 1);
  return _mm512_gf2p8affine_epi64_epi8(bits, places, 0);
#else
  constexpr auto kLeft = [](int bit) { return static_cast<int16_t>(bit < 4 ? 4 - bit : 0); };
  constexpr auto kRight = [](int bit) { return static_cast<int16_t>(bit < 4 ? 0 : bit - 4); };
  const __m512i left =
      _mm512_inserti64x4(_mm512_set1_epi16(kLeft(kBit)), _mm256_set1_epi16(kLeft(kBit + 2)), 1);
  const __m512i right =
      _mm512_inserti64x4(_mm512_set1_epi16(kRight(kBit)), _mm256_set1_epi16(kRight(kBit + 2)), 1);
  return _mm512_and_si512(_mm512_srlv_epi16(_mm512_sllv_epi16(bits, left), right),
                          _mm512_set1_epi8(16));
#endif
}

constexpr int kAndOr = 0xea;  // the first's bits that the second has, and the third's

// Codes of four groups from kFirst on: 64 bytes are low nibbles of the first and third, and high
// ones of the others; fifth bits, where there are any, lie in 32 bytes for all eight groups.
template <int kWidth, int kFirst>
[[gnu::always_inline]] inline void codes_of_four(const uint8_t* codes, __m512i fifths, __m512i& low,
                                                 __m512i& high) {
  const __m512i nibble = _mm512_set1_epi8(15);
  __m512i v = _mm512_loadu_si512(codes);
  asm("" : "+v"(v));  // as in_register
  if constexpr (kWidth == 4) {
    low = _mm512_and_si512(v, nibble);
    high = high_nibbles(v);
  } else {
    low = _mm512_ternarylogic_epi32(v, nibble, fifth_bits<kFirst>(fifths), kAndOr);
    high = _mm512_or_si512(high_nibbles(v), fifth_bits<kFirst + 1>(fifths));
  }
}

// Adds the products of four groups under their scales. Partial sums fit into 16 bits.
[[gnu::always_inline]] inline __m512i add_four(__m512i sum, __m512i low, __m512i high,
                                               const __m512i* values, __m512i scales) {
  const __m512i zero = _mm512_setzero_si512();
  return _mm512_dpwssd_epi32(sum,
                             _mm512_packs_epi32(_mm512_dpbusd_epi32(zero, low, values[0]),
                                                _mm512_dpbusd_epi32(zero, high, values[1])),
                             scales);
}
// The products of the row in quarter kRow of scales.
template <int kWidth, int kRow>
[[gnu::always_inline]] inline I add_block(const uint8_t* block, const __m512i* values,
                                          __m512i scales) {
  constexpr int kCodesAt = kWidth == 4 ? 16 : 48;
  const __m512i fifths =
      kWidth == 4 ? _mm512_setzero_si512() : _mm512_broadcast_i64x4(load_256(block + 16));
  __m512i low, high;
  codes_of_four<kWidth, 0>(block + kCodesAt, fifths, low, high);
  __m512i sum = add_four(_mm512_setzero_si512(), low, high, values,
                         scales_of_row<kRow, FourGroups<0>>(scales));
  codes_of_four<kWidth, 4>(block + kCodesAt + 64, fifths, low, high);
  sum = add_four(sum, low, high, values + 2, scales_of_row<kRow, FourGroups<4>>(scales));
  return lower(sum) + upper(sum);
}

template <int kWidth>
struct Blocks<FourFiveK<kWidth>> {
  static V multiply(const RawMatmul& m, const Rows& rows, size_t t) {
    constexpr size_t kBytes = FourFiveK<kWidth>::kBytes;
    const uint8_t* token = m.prepared + t * m.prepared_stride;
    V y = splat_v(0);
    for (size_t b = 0; b < m.groups; ++b) {
      const size_t at = b * kBytes;
      fetch_weights<FourFiveK<kWidth>, false>(m, rows, at, kBytes);
      const uint8_t* x = token + b * kBlock;
      __m512i values[4];
#pragma GCC unroll 2
      for (int i = 0; i < 4; i += 2) {
        const __m512i first = _mm512_loadu_si512(x + i * 64);
        const __m512i second = _mm512_loadu_si512(x + i * 64 + 64);
        values[i] = _mm512_shuffle_i64x2(first, second, 0x44);
        values[i + 1] = _mm512_shuffle_i64x2(first, second, 0xee);
      }
      const BlockScales scales = block_scales(rows.weight, at);
      I whole[8];
      const auto four = [&]<int... kRows>(int half, std::integer_sequence<int, kRows...>)
                            __attribute__((always_inline)) {
                              ((whole[half * 4 + kRows] = add_block<kWidth, kRows>(
                                    rows.weight[half * 4 + kRows] + at, values, scales.rows[half]),
                                in_order(whole[half * 4 + kRows])),
                               ...);
                            };
      four(0, std::make_integer_sequence<int, 4>());
      four(1, std::make_integer_sequence<int, 4>());
      const __m512i sums = _mm512_broadcast_i32x4(load_128(token + m.sums_at + b * kBlockSums * 2));
      const auto weighed = [&](__m512i bytes) __attribute__((always_inline)) {
        return _mm512_madd_epi16(_mm512_unpackhi_epi8(bytes, _mm512_setzero_si512()), sums);
      };
      const I minima = sums_of_quarters(weighed(scales.rows[0]), weighed(scales.rows[1]));
      float scale;
      memcpy(&scale, token + m.scales_at + b * 4, 4);
      y = fma_v(scales.steps * splat_v(scale), to_floats(sums_of_rows(whole)), y);
      y = fma_v(scales.min_steps * splat_v(scale), to_floats(no_sum() - minima), y);
    }
    return y;
  }
};

// ---- K-quants of six bits with activations of 16 bits ----

// Half a block, whose codes are two registers: groups 0 to 3, then 4 to 7, one in each quarter. Two
// bits of each code come from bytes that both share.
[[gnu::always_inline]] inline void six_bit_codes(const uint8_t* low, const uint8_t* high,
                                                 __m512i& first, __m512i& last) {
  const __m512i nibble = _mm512_set1_epi8(15);
  __m512i v = _mm512_loadu_si512(low);
  asm("" : "+v"(v));  // as in_register
  const __m512i bits = _mm512_broadcast_i64x4(load_256(high));
#ifdef __GFNI__
  // Bits 0 and 1, and in the upper half 2 and 3, become bits 4 and 5; for the last 4 and 5, 6
  // and 7.
  constexpr int64_t kLow = 0x01020000, kHigh = 0x04080000;
  const __m512i places = _mm512_inserti64x4(_mm512_set1_epi64(kLow), _mm256_set1_epi64x(kHigh), 1);
  const __m512i tops = _mm512_gf2p8affine_epi64_epi8(bits, places, 0);
  const __m512i last_tops = _mm512_gf2p8affine_epi64_epi8(bits, _mm512_slli_epi64(places, 4), 0);
  first = _mm512_ternarylogic_epi32(v, nibble, tops, kAndOr);
  last = _mm512_or_si512(high_nibbles(v), last_tops);
#else
  const __m512i all = _mm512_set1_epi8(63);
  const __m512i left = _mm512_inserti64x4(_mm512_set1_epi16(4), _mm256_set1_epi16(2), 1);
  const __m512i right = _mm512_inserti64x4(_mm512_set1_epi16(0), _mm256_set1_epi16(2), 1);
  constexpr int kChoose = 0xca;  // of the first's bits b, else c
  first = _mm512_and_si512(
      all, _mm512_ternarylogic_epi32(nibble, v, _mm512_sllv_epi16(bits, left), kChoose));
  last = _mm512_and_si512(all, _mm512_ternarylogic_epi32(nibble, _mm512_srli_epi16(v, 4),
                                                         _mm512_srlv_epi16(bits, right), kChoose));
#endif
}

struct WideValues {
  __m512i even, odd;
};
// Of two chunks.
inline WideValues wide_values(const uint8_t* values) {
  const __m512i a = _mm512_loadu_si512(values), b = _mm512_loadu_si512(values + 64);
  return {_mm512_shuffle_i64x2(a, b, 0x44), _mm512_shuffle_i64x2(a, b, 0xee)};
}
[[gnu::always_inline]] inline __m512i dot_wide(__m512i codes, const WideValues& x) {
  const __m512i even = _mm512_and_si512(codes, _mm512_set1_epi16(0xff));
  const __m512i odd = _mm512_srli_epi16(codes, 8);
  return _mm512_dpwssd_epi32(_mm512_dpwssd_epi32(_mm512_setzero_si512(), even, x.even), odd, x.odd);
}

// Of eight groups of eight rows: their bytes by one permutation where there is one for bytes. steps
// are those of the block, read where it begins.
inline void six_bit_scales([[maybe_unused]] const RawMatmul& m, const Rows& rows, size_t g0,
                           [[maybe_unused]] V& steps, Parameters& out) {
#ifdef __AVX512VBMI__
  const size_t block = g0 / SixK::kParts * SixK::kBytes;
  if (g0 % SixK::kParts == 0) steps = halves_of(rows.weight, block + SixK::kStepAt);
  __m512i all = _mm512_setzero_si512();
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    const uint64_t bytes = SixK::scale_bytes(rows.weight[i] + block, g0 % SixK::kParts / 8);
    all = _mm512_mask_broadcastq_epi64(all, static_cast<__mmask8>(1 << i),
                                       _mm_cvtsi64_si128(static_cast<int64_t>(bytes)));
  }
  store_scales(steps, all, out);
#else
  SixK::parameters(m, rows, g0, 8, out);
#endif
}

template <>
struct Front<SixK, true, 16> {
  static size_t multiply(const RawMatmul& m, const Rows& rows, size_t t, V& y) {
    const size_t whole = m.groups / 8 * 8;  // all, as blocks have sixteen
    const uint8_t* token = m.prepared + t * m.prepared_stride;
    Parameters parameters;
    V steps = splat_v(0);
    for (size_t g0 = 0; g0 < whole; g0 += 8) {
      fetch_weights<SixK, false>(m, rows, g0 / 8 * (SixK::kBytes / 2), SixK::kBytes / 2);
      six_bit_scales(m, rows, g0, steps, parameters);
      const size_t block = g0 / 16 * SixK::kBytes, half = g0 / 8 % 2;
      const uint8_t* values = token + g0 / 2 * 2 * kChunk;
      const WideValues x[2] = {wide_values(values), wide_values(values + 128)};
      __m512i products[8][2];
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        const uint8_t* p = rows.weight[i] + block;
        __m512i first, last;
        six_bit_codes(p + half * 64, p + 128 + half * 32, first, last);
        products[i][0] = dot_wide(first, x[0]);
        products[i][1] = dot_wide(last, x[1]);
      }
#pragma GCC unroll 2
      for (size_t j = 0; j < 2; ++j) {
        I sums[4];
        group_sums<32>(sums_of_four(products[0][j], products[1][j], products[2][j], products[3][j]),
                       sums_of_four(products[4][j], products[5][j], products[6][j], products[7][j]),
                       sums);
#pragma GCC unroll 4
        for (size_t i = 0; i < 4; ++i) {
          const size_t g = j * 4 + i;
          y = fold<false>(y, sums[i], parameters.scales[g], parameters.biases[g],
                          token_group(m, token, g0 + g));
        }
      }
    }
    return whole;
  }
};

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
