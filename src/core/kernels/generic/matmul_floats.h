// Products with weights that are floats, as they are stored or as they were decoded: sixteen lanes
// along the row, tiles of rows and tokens. To be included after the primitives and L.
#pragma once

namespace sluice::kernels::SLUICE_ISA {
namespace {

constexpr size_t kFloatLanes = 16;
constexpr size_t kPartLanes = kFloatLanes / kParts;
// Activations that rows meet before the next rows do: few enough to stay in an outer cache of a
// core.
constexpr size_t kCachedValues = 128 << 10;

inline size_t bytes_of(Element element) { return element == kElementF32 ? 4 : 2; }

// The last columns of a row, as whole lanes filled up with zeros.
struct Tail {
  alignas(64) uint8_t bytes[4 * kFloatLanes];
};
inline void load_tail(const RawMatmul& m, const uint8_t* row, size_t done, Tail& tail) {
  memset(tail.bytes, 0, sizeof tail.bytes);
  const size_t size = bytes_of(m.element);
  memcpy(tail.bytes, row + done * size, (m.columns - done) * size);
}

template <int kRows, int kTokens>
[[gnu::always_inline]] inline void add_lanes(Element element, const uint8_t* const* w,
                                             const float* const* x, size_t at,
                                             L (*sums)[kTokens][kParts]) {
  const size_t size = bytes_of(element);
#pragma GCC unroll 2
  for (size_t part = 0; part < kParts; ++part) {
    const size_t from = at + part * kPartLanes;
    L weights[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) weights[r] = load_lanes(element, w[r] + from * size);
#pragma GCC unroll 6
    for (int t = 0; t < kTokens; ++t) {
      const L values = load_lanes(kElementF32, reinterpret_cast<const uint8_t*>(x[t] + from));
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r)
        sums[r][t][part] = add_product(sums[r][t][part], weights[r], values);
    }
  }
}

// Rows row0, row0 + apart and so on.
template <Element kElement, int kRows, int kTokens>
void float_tile(const RawMatmul& m, size_t row0, size_t apart, size_t t0) {
  const uint8_t* w[kRows];
  const float* x[kTokens];
  for (int r = 0; r < kRows; ++r) {
    const size_t row = row0 + static_cast<size_t>(r) * apart;
    w[r] = m.weight + (row < m.rows ? row : m.rows - 1) * m.weight_stride;
  }
  for (int t = 0; t < kTokens; ++t)
    x[t] = reinterpret_cast<const float*>(m.prepared +
                                          (t0 + static_cast<size_t>(t)) * m.prepared_stride);
  L sums[kRows][kTokens][kParts];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 6
    for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 2
      for (int part = 0; part < kParts; ++part) sums[r][t][part] = no_lanes();
  const size_t whole = m.columns / kFloatLanes * kFloatLanes;
  for (size_t i = 0; i < whole; i += kFloatLanes)
    add_lanes<kRows, kTokens>(kElement, w, x, i, sums);
  if (whole < m.columns) {
    Tail tails[kRows];
    const uint8_t* here[kRows];
    for (int r = 0; r < kRows; ++r) {
      load_tail(m, w[r], whole, tails[r]);
      here[r] = tails[r].bytes;
    }
    for (int t = 0; t < kTokens; ++t) x[t] += whole;
    add_lanes<kRows, kTokens>(kElement, here, x, 0, sums);
  }
  for (int r = 0; r < kRows; ++r)
    for (int t = 0; t < kTokens; ++t)
      if (const size_t row = row0 + static_cast<size_t>(r) * apart; row < m.rows)
        m.y[(t0 + static_cast<size_t>(t)) * m.y_stride + row] = fold_parts(sums[r][t]);
}

// As many tokens as a tile has or fewer.
template <Element kElement, int kTokens = kFloatTokens>
void float_tokens(const RawMatmul& m, size_t row, size_t t, size_t tokens) {
  if constexpr (kTokens > 1)
    if (tokens < kTokens) return float_tokens<kElement, kTokens - 1>(m, row, t, tokens);
  float_tile<kElement, kFloatRows, kTokens>(m, row, 1, t);
}

// Rows a quarter of all apart, so that each stream through memory goes on from row to row.
template <Element kElement>
void multiply_one(const RawMatmul& m) {
  const size_t quarter = (m.rows + 3) / 4;
  for (size_t row = 0; row < quarter; ++row) float_tile<kElement, 4, 1>(m, row, quarter, 0);
}

template <Element kElement>
void multiply_floats(const RawMatmul& m) {
  if (m.tokens == 1) return multiply_one<kElement>(m);
  constexpr auto kTile = static_cast<size_t>(kFloatTokens);
  const size_t fit = kCachedValues / (m.columns + 1) / kTile * kTile;
  const size_t together = fit < kTile ? kTile : fit;
  for (size_t first = 0; first < m.tokens; first += together) {
    const size_t end = first + together < m.tokens ? first + together : m.tokens;
    for (size_t row = 0; row < m.rows; row += static_cast<size_t>(kFloatRows))
      for (size_t t = first; t < end; t += kTile) float_tokens<kElement>(m, row, t, end - t);
  }
}

void floats(const RawMatmul& m) {
  switch (m.element) {
    case kElementF32: return multiply_floats<kElementF32>(m);
    case kElementF16: return multiply_floats<kElementF16>(m);
    case kElementBF16: return multiply_floats<kElementBF16>(m);
  }
}

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
