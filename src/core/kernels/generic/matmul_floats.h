// Products with weights that are floats, as they are stored or as they were decoded: sixteen lanes
// along the row, tiles of rows and tokens. To be included after the primitives and L.
#pragma once

namespace sluice::kernels::SLUICE_ISA {
namespace {

constexpr size_t kFloatLanes = 16;
constexpr size_t kPartLanes = kFloatLanes / kParts;
constexpr size_t kMxfp8Group = 32;
// Activations that rows meet before the next rows do: few enough to stay in an outer cache of a
// core.
constexpr size_t kCachedValues = 128 << 10;

constexpr size_t bytes_of(Element element) { return element == kElementF32 ? 4 : 2; }

// The last columns of a row, as whole lanes filled up with zeros.
struct Tail {
  alignas(64) uint8_t bytes[4 * kFloatLanes];
};

// ---- a row's weights in lanes, however they are stored ----

template <Element kElement>
struct StoredRow {
  const uint8_t* weights;
  StoredRow() = default;
  StoredRow(const RawMatmul& m, size_t row) : weights(m.weight + row * m.weight_stride) {}
  L lanes(size_t at) const { return load_lanes(kElement, weights + at * bytes_of(kElement)); }
  StoredRow tail(size_t done, size_t columns, Tail& tail) const {
    constexpr size_t kSize = bytes_of(kElement);
    memset(tail.bytes, 0, sizeof tail.bytes);
    memcpy(tail.bytes, weights + done * kSize, (columns - done) * kSize);
    StoredRow row;
    row.weights = tail.bytes;
    return row;
  }
};

// E4M3 codes under scales for 32 each. kSmall: no code is a NaN, and scales take up the factor by
// which f16 reads such codes too small.
template <bool kSmall>
struct Mxfp8Row {
  const uint8_t* codes;
  const float* scales;
  L lanes(size_t at) const {
    const L scale = splat_lanes(scales[at / kMxfp8Group]);
    if constexpr (kSmall) return small_e4m3_lanes(codes + at) * scale;
    return e4m3_lanes(codes + at) * scale;
  }
  // Rows are whole groups.
  Mxfp8Row tail(size_t, size_t, Tail&) const { return *this; }
};

// ---- tiles ----

template <int kRows, int kTokens, class Row>
[[gnu::always_inline]] inline void add_lanes(const Row* w, const float* const* x, size_t at,
                                             L (*sums)[kTokens][kParts]) {
#pragma GCC unroll 2
  for (size_t part = 0; part < kParts; ++part) {
    const size_t from = at + part * kPartLanes;
    L weights[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) weights[r] = w[r].lanes(from);
#pragma GCC unroll 6
    for (int t = 0; t < kTokens; ++t) {
      const L values = load_lanes(kElementF32, reinterpret_cast<const uint8_t*>(x[t] + from));
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r)
        sums[r][t][part] = add_product(sums[r][t][part], weights[r], values);
    }
  }
}

// Row, row + apart and so on; those that are not there repeat the last.
inline size_t tile_row(const RawMatmul& m, size_t row, size_t apart, int index) {
  const size_t at = row + static_cast<size_t>(index) * apart;
  return at < m.rows ? at : m.rows - 1;
}

// Of rows row0, row0 + apart and so on.
template <class Row, int kRows, int kTokens>
void multiply_tile(const RawMatmul& m, const Row (&w)[kRows], size_t row0, size_t apart,
                   size_t t0) {
  const float* x[kTokens];
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
  for (size_t i = 0; i < whole; i += kFloatLanes) add_lanes<kRows, kTokens>(w, x, i, sums);
  if (whole < m.columns) {
    Tail tails[kRows];
    Row last[kRows];
    for (int r = 0; r < kRows; ++r) last[r] = w[r].tail(whole, m.columns, tails[r]);
    for (int t = 0; t < kTokens; ++t) x[t] += whole;
    add_lanes<kRows, kTokens>(last, x, 0, sums);
  }
  for (int r = 0; r < kRows; ++r)
    for (int t = 0; t < kTokens; ++t)
      if (const size_t row = row0 + static_cast<size_t>(r) * apart; row < m.rows)
        m.y[(t0 + static_cast<size_t>(t)) * m.y_stride + row] = fold_parts(sums[r][t]);
}

template <class Row, int kRows, int kTokens>
void float_tile(const RawMatmul& m, size_t row0, size_t apart, size_t t0) {
  Row w[kRows];
  for (int r = 0; r < kRows; ++r) w[r] = Row(m, tile_row(m, row0, apart, r));
  multiply_tile<Row, kRows, kTokens>(m, w, row0, apart, t0);
}

// As many tokens as a tile has or fewer.
template <class Row, int kTokens = kFloatTokens>
void float_tokens(const RawMatmul& m, size_t row, size_t t, size_t tokens) {
  if constexpr (kTokens > 1)
    if (tokens < kTokens) return float_tokens<Row, kTokens - 1>(m, row, t, tokens);
  float_tile<Row, kFloatRows, kTokens>(m, row, 1, t);
}

// Rows a quarter of all apart, so that each stream through memory goes on from row to row.
template <class Row>
void multiply_one(const RawMatmul& m) {
  const size_t quarter = (m.rows + 3) / 4;
  for (size_t row = 0; row < quarter; ++row) float_tile<Row, 4, 1>(m, row, quarter, 0);
}

template <class Row>
void multiply_floats(const RawMatmul& m) {
  if (m.tokens == 1) return multiply_one<Row>(m);
  constexpr auto kTile = static_cast<size_t>(kFloatTokens);
  const size_t fit = kCachedValues / (m.columns + 1) / kTile * kTile;
  const size_t together = fit < kTile ? kTile : fit;
  for (size_t first = 0; first < m.tokens; first += together) {
    const size_t end = first + together < m.tokens ? first + together : m.tokens;
    for (size_t row = 0; row < m.rows; row += static_cast<size_t>(kFloatRows))
      for (size_t t = first; t < end; t += kTile) float_tokens<Row>(m, row, t, end - t);
  }
}

void floats(const RawMatmul& m) {
  switch (m.element) {
    case kElementF32: return multiply_floats<StoredRow<kElementF32>>(m);
    case kElementF16: return multiply_floats<StoredRow<kElementF16>>(m);
    case kElementBF16: return multiply_floats<StoredRow<kElementBF16>>(m);
  }
}

// ---- 8-bit floats, one token ----

// Scales of 2⁻¹²⁷ (the byte 0) to 2¹²⁷ as floats, times 256 where times is 8.
inline float mxfp8_scale(uint32_t byte, uint32_t times) {
  const uint32_t exponent = byte + times, bits = exponent == 0 ? 0x00400000 : exponent << 23;
  float scale;
  memcpy(&scale, &bits, 4);
  return scale;
}

template <bool kSmall>
void mxfp8_tile(const RawMatmul& m, size_t row0, size_t apart) {
  constexpr int kRows = 4;
  const size_t groups = m.columns / kMxfp8Group;
  auto* scales = reinterpret_cast<float*>(m.scratch);
  Mxfp8Row<kSmall> w[kRows];
  for (int r = 0; r < kRows; ++r, scales += groups) {
    const size_t row = tile_row(m, row0, apart, r);
    const uint8_t* bytes = m.scales + row * m.scale_stride;
    for (size_t g = 0; g < groups; ++g) scales[g] = mxfp8_scale(bytes[g], kSmall ? 8 : 0);
    w[r] = {m.weight + row * m.weight_stride, scales};
  }
  multiply_tile<Mxfp8Row<kSmall>, kRows, 1>(m, w, row0, apart, 0);
}

// Whether no code is a NaN, and 256 times each scale a float.
inline bool all_small(const uint8_t* codes, size_t count, const uint8_t* scales) {
  uint8_t most = 0, scale = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint8_t code = codes[i] | 0x80;
    most = code > most ? code : most;
  }
  for (size_t g = 0; g < count / kMxfp8Group; ++g) scale = scales[g] > scale ? scales[g] : scale;
  return most < 0xff && scale <= 254 - 8;
}

void mxfp8(const RawMatmul& m) {
  const size_t quarter = (m.rows + 3) / 4;
  for (size_t row = 0; row < quarter; ++row) {
    bool small = true;
    for (size_t i = row; i < m.rows; i += quarter)
      small &= all_small(m.weight + i * m.weight_stride, m.columns, m.scales + i * m.scale_stride);
    if (small)
      mxfp8_tile<true>(m, row, quarter);
    else
      mxfp8_tile<false>(m, row, quarter);
  }
}

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
