// Products of many tokens in registers of 512 bits: a step of a panel, four codes of each of
// sixteen rows, is one register, and so are a token's sums and results. Where codes have four bits,
// panels are filled sixteen rows at a time too. To be included after generic/matmul_panels.h.
#pragma once

#include <utility>

#include "kernels/generic/matmul_panels.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

// ---- panels of four bits ----

// Sixteen bytes hold a chunk: its low nibbles, then its high ones. at(): where that of a row's
// chunk is; values(): what nibbles stand for.
template <class Coding>
struct NibbleChunks {
  static constexpr bool kThere = false;
};
template <>
struct NibbleChunks<Affine<4>> {
  static constexpr bool kThere = true;
  static size_t at(size_t chunk) { return chunk * 16; }
  static __m512i values(__m512i nibbles) { return nibbles; }
};
template <const uint8_t* kTable>
struct LookedUp {
  static constexpr bool kThere = true;
  static __m512i values(__m512i nibbles) {
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(load_128(kTable)), nibbles);
  }
};
template <>
struct NibbleChunks<FourBitFloats<false>> : LookedUp<kDoubledE2M1> {
  static size_t at(size_t chunk) { return chunk * 16; }
};
template <>
struct NibbleChunks<MXFP4> : LookedUp<kDoubledE2M1> {
  static size_t at(size_t chunk) { return chunk * MXFP4::kBytes + 1; }
};
template <>
struct NibbleChunks<IQ4NL> : LookedUp<kIq4Codes> {
  static size_t at(size_t chunk) { return chunk * IQ4NL::kBytes + 2; }
};
template <>
struct NibbleChunks<IQ4XS> : LookedUp<kIq4Codes> {
  static size_t at(size_t chunk) { return chunk / 8 * IQ4XS::kBytes + 8 + chunk % 8 * 16; }
};
template <int kBlockBytes, bool kMinimum>
struct NibbleChunks<SmallBlocks<kBlockBytes, 4, kMinimum>> {
  static constexpr bool kThere = true;
  static size_t at(size_t chunk) { return chunk * kBlockBytes + (kMinimum ? 4 : 2); }
  static __m512i values(__m512i nibbles) { return nibbles; }
};

// Quarter j: sixteen bytes of row 4 j + kFirst, of which a has the first eight and b the others.
template <size_t kFirst>
[[gnu::always_inline]] inline __m512i every_fourth(const Rows& a, const Rows& b, size_t at) {
  return _mm512_inserti64x4(
      _mm512_castsi256_si512(load_halves(a.weight[kFirst] + at, a.weight[kFirst + 4] + at)),
      load_halves(b.weight[kFirst] + at, b.weight[kFirst + 4] + at), 1);
}

template <class Coding>
  requires(NibbleChunks<Coding>::kThere)
struct FillCodes<Coding> {
  using Chunks = NibbleChunks<Coding>;
  static void fill(const RawMatmul& m, const Rows& first, const Rows& last, const Panel& panel) {
    const size_t chunks = (m.columns + kChunk - 1) / kChunk;
    for (size_t chunk = 0; chunk < chunks; ++chunk) {
      const size_t at = Chunks::at(chunk);
      const __m512i a = every_fourth<0>(first, last, at), b = every_fourth<1>(first, last, at);
      const __m512i c = every_fourth<2>(first, last, at), d = every_fourth<3>(first, last, at);
      // Four by four words within each quarter: word w of all rows, in their order.
      const __m512i ab = _mm512_unpacklo_epi32(a, b), ab_high = _mm512_unpackhi_epi32(a, b);
      const __m512i cd = _mm512_unpacklo_epi32(c, d), cd_high = _mm512_unpackhi_epi32(c, d);
      uint8_t* to = panel.codes + chunk * 8 * kStepBytes;
      store(to, _mm512_unpacklo_epi64(ab, cd));
      store(to + kStepBytes, _mm512_unpackhi_epi64(ab, cd));
      store(to + 2 * kStepBytes, _mm512_unpacklo_epi64(ab_high, cd_high));
      store(to + 3 * kStepBytes, _mm512_unpackhi_epi64(ab_high, cd_high));
    }
  }

 private:
  // A word's low nibbles, and four steps on its high ones.
  static void store(uint8_t* to, __m512i v) {
    const __m512i mask = _mm512_set1_epi8(15);
    _mm512_store_si512(to, Chunks::values(_mm512_and_si512(v, mask)));
    _mm512_store_si512(to + 4 * kStepBytes,
                       Chunks::values(_mm512_and_si512(_mm512_srli_epi16(v, 4), mask)));
  }
};

// ---- tiles ----

inline __m512i splat_word(const uint8_t* p) {
  int word;
  memcpy(&word, p, 4);
  return _mm512_set1_epi32(word);
}

// Adds four steps from `codes` on. Values of 16 bits: each step takes two pairs, a chunk's even
// ones and 32 bytes on its odd ones.
template <bool kWide, int kTokens>
[[gnu::always_inline]] inline void add_four_steps(const uint8_t* codes, const uint8_t* values,
                                                  size_t stride, __m512i* sums) {
#pragma GCC unroll 4
  for (int step = 0; step < 4; ++step) {
    __m512i c = _mm512_load_si512(codes + step * static_cast<int>(kStepBytes));
    asm("" : "+v"(c));  // as in_register
    const __m512i even = _mm512_and_si512(c, _mm512_set1_epi16(0xff));
    const __m512i odd = _mm512_srli_epi16(c, 8);
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) {
      const uint8_t* x = values + static_cast<size_t>(t) * stride + step * 4;
      if constexpr (kWide) {
        sums[t] = _mm512_dpwssd_epi32(sums[t], even, splat_word(x));
        sums[t] = _mm512_dpwssd_epi32(sums[t], odd, splat_word(x + kChunk));
      } else {
        sums[t] = _mm512_dpbusd_epi32(sums[t], c, splat_word(x));
      }
    }
  }
}

// The same arithmetic as fold().
template <bool kBias>
[[gnu::always_inline]] inline __m512 fold_sixteen(__m512 y, __m512i sum, const float* parameters,
                                                  const TokenGroup& token) {
  const __m512 scales = _mm512_mul_ps(_mm512_load_ps(parameters), _mm512_set1_ps(token.scale));
  if constexpr (kBias) {
    float part;
    memcpy(&part, token.sum, 4);
    y = _mm512_fmadd_ps(scales, _mm512_cvtepi32_ps(sum), y);
    return _mm512_fmadd_ps(_mm512_load_ps(parameters + kPanelRows), _mm512_set1_ps(part), y);
  } else {
    return _mm512_fmadd_ps(scales, _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, splat_word(token.sum))),
                           y);
  }
}

template <int kTokens>
[[gnu::always_inline]] inline void store_sixteen(const RawMatmul& m, size_t first, size_t t0,
                                                 const __m512* y) {
  const size_t rows = m.rows - first < kPanelRows ? m.rows - first : kPanelRows;
  const auto mask = static_cast<__mmask16>((1u << rows) - 1);
#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t)
    _mm512_mask_storeu_ps(m.y + (t0 + static_cast<size_t>(t)) * m.y_stride + first, mask, y[t]);
}

template <bool kBias, bool kWide, int kTokens>
void sixteen_rows(const RawMatmul& m, const Panel& panel, size_t first, size_t t0) {
  const size_t stride = m.prepared_stride, steps = static_cast<size_t>(m.group) / 4;
  const uint8_t* tokens = m.prepared + t0 * stride;
  __m512 y[kTokens];
#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t) y[t] = _mm512_setzero_ps();
  for (size_t g = 0; g < m.groups; ++g) {
    __m512i sums[kTokens];
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) sums[t] = _mm512_setzero_si512();
    for (size_t step = g * steps; step < (g + 1) * steps; step += 4) {
      const size_t at = kWide ? step / 8 * 2 * kChunk + step % 8 * 4 : step * 4;
      add_four_steps<kWide, kTokens>(panel.codes + step * kStepBytes, tokens + at, stride, sums);
    }
    if (t0 == 0) fetch_next_panel(m, first, g);
    const float* parameters = panel.parameters + g * 2 * kPanelRows;
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t)
      y[t] = fold_sixteen<kBias>(y[t], sums[t], parameters,
                                 token_group(m, tokens + static_cast<size_t>(t) * stride, g));
  }
  store_sixteen<kTokens>(m, first, t0, y);
}

// Tiles of at most kMost tokens and of even size: a small one at the end would wait for each of its
// few sums.
template <class Tile, size_t... kFewer>
void tile_of(const RawMatmul& m, const Panel& panel, size_t row, size_t t, size_t count,
             std::index_sequence<kFewer...>) {
  ((count == kFewer + 1 ? Tile::template multiply<static_cast<int>(kFewer + 1)>(m, panel, row, t)
                        : void()),
   ...);
}
template <class Tile, size_t kMost>
void even_tiles(const RawMatmul& m, const Panel& panel, size_t row) {
  size_t tiles = (m.tokens + kMost - 1) / kMost;
  for (size_t t = 0; t < m.tokens; --tiles) {
    const size_t count = (m.tokens - t + tiles - 1) / tiles;
    tile_of<Tile>(m, panel, row, t, count, std::make_index_sequence<kMost>());
    t += count;
  }
}

template <class Coding, bool kWide>
struct Tiles<ByGroups<Coding, kWide>> {
  static void multiply(const RawMatmul& m, const Panel& panel, size_t row) {
    even_tiles<Tile, 12>(m, panel, row);
  }

 private:
  struct Tile {
    template <int kTokens>
    static void multiply(const RawMatmul& m, const Panel& panel, size_t row, size_t t) {
      sixteen_rows<Coding::kBias, kWide, kTokens>(m, panel, row, t);
    }
  };
};

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
