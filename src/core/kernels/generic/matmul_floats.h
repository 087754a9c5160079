// Products with weights that are floats, as they are stored or as they were decoded: sixteen lanes
// along the row, tiles of rows and tokens. To be included after the primitives.
#pragma once

namespace sluice::kernels::SLUICE_ISA {
namespace {

constexpr size_t kFloatLanes = 16;

inline size_t bytes_of(Element element) { return element == kElementF32 ? 4 : 2; }

// The last columns of a row, as whole lanes filled up with zeros.
struct Tail {
  alignas(32) uint8_t bytes[4 * kFloatLanes];
};
inline void load_tail(const RawMatmul& m, const uint8_t* row, size_t done, Tail& tail) {
  memset(tail.bytes, 0, sizeof tail.bytes);
  const size_t size = bytes_of(m.element);
  memcpy(tail.bytes, row + done * size, (m.columns - done) * size);
}

template <int kRows, int kTokens>
inline void add_lanes(Element element, const uint8_t* const* w, const float* const* x,
                      V (*sums)[kTokens][2]) {
#pragma GCC unroll 2
  for (int half_index = 0; half_index < 2; ++half_index) {
    V weights[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r)
      weights[r] = load_8(element, w[r] + static_cast<size_t>(half_index) * 8 * bytes_of(element));
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      const V values = load_v(x[t] + half_index * 8);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r)
        sums[r][t][half_index] = fma_v(weights[r], values, sums[r][t][half_index]);
    }
  }
}

template <Element kElement, int kRows, int kTokens>
void float_tile(const RawMatmul& m, size_t row0, size_t t0) {
  const size_t size = bytes_of(kElement);
  const uint8_t* w[kRows];
  const float* x[kTokens];
  for (int r = 0; r < kRows; ++r) {
    const size_t row = row0 + static_cast<size_t>(r);
    w[r] = m.weight + (row < m.rows ? row : m.rows - 1) * m.weight_stride;
  }
  for (int t = 0; t < kTokens; ++t)
    x[t] = reinterpret_cast<const float*>(m.prepared +
                                          (t0 + static_cast<size_t>(t)) * m.prepared_stride);
  V sums[kRows][kTokens][2];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) sums[r][t][0] = sums[r][t][1] = splat_v(0);
  const size_t whole = m.columns / kFloatLanes * kFloatLanes;
  for (size_t i = 0; i < whole; i += kFloatLanes) {
    const uint8_t* here[kRows];
    const float* values[kTokens];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) here[r] = w[r] + i * size;
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) values[t] = x[t] + i;
    add_lanes<kRows, kTokens>(kElement, here, values, sums);
  }
  if (whole < m.columns) {
    Tail tails[kRows];
    const uint8_t* here[kRows];
    const float* values[kTokens];
    for (int r = 0; r < kRows; ++r) {
      load_tail(m, w[r], whole, tails[r]);
      here[r] = tails[r].bytes;
    }
    for (int t = 0; t < kTokens; ++t) values[t] = x[t] + whole;
    add_lanes<kRows, kTokens>(kElement, here, values, sums);
  }
  for (int r = 0; r < kRows; ++r)
    for (int t = 0; t < kTokens; ++t)
      if (row0 + static_cast<size_t>(r) < m.rows)
        m.y[(t0 + static_cast<size_t>(t)) * m.y_stride + row0 + static_cast<size_t>(r)] =
            fold_lanes(sums[r][t][0], sums[r][t][1]);
}

// Rows outside, so that each is read once and tokens come from the cache.
template <Element kElement>
void multiply_floats(const RawMatmul& m) {
  size_t whole = m.tokens / 3 * 3;
  for (size_t row = 0; row < m.rows; row += 4) {
    for (size_t t = 0; t < whole; t += 3) {
      float_tile<kElement, 2, 3>(m, row, t);
      if (row + 2 < m.rows) float_tile<kElement, 2, 3>(m, row + 2, t);
    }
    for (size_t t = whole; t < m.tokens; ++t) float_tile<kElement, 4, 1>(m, row, t);
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
