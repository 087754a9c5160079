// How the products read each coded format: 32 codes at a time, and the scales and biases of eight
// groups of eight rows. Bit positions as in numerics/ggml_*_blocks.cpp and docs/formats.md. To be
// included after the primitives of an instruction set.
#pragma once

namespace sluice::kernels::SLUICE_ISA {
namespace {

// Of eight rows and up to eight groups: [group][row].
struct Parameters {
  alignas(32) float scales[8][8];
  alignas(32) float biases[8][8];
};

// The rows of a block of eight; rows that are not there repeat the last.
struct Rows {
  const uint8_t* weight[8];
  const uint8_t* scales[8];
  const uint8_t* biases[8];
};

inline Rows rows_at(const RawMatmul& m, size_t first) {
  Rows rows;
  for (size_t i = 0; i < 8; ++i) {
    const size_t row = first + i < m.rows ? first + i : m.rows - 1;
    rows.weight[i] = m.weight + row * m.weight_stride;
    rows.scales[i] = m.scales + row * m.scale_stride;
    rows.biases[i] = m.biases + row * m.scale_stride;
  }
  return rows;
}

// ---- affine ----

inline void affine_part(Element element, const uint8_t* const* rows, size_t g0, float (*out)[8]) {
  V v[8];
  const size_t at = g0 * (element == kElementF32 ? 4 : 2);
  for (int i = 0; i < 8; ++i) v[i] = load_8(element, rows[i] + at);
  transpose(v);
  for (int i = 0; i < 8; ++i) store_v(out[i], v[i]);
}

template <int kWidth>
struct Affine {
  static constexpr int kCodeMax = (1 << kWidth) - 1;
  static constexpr bool kBias = true;
  static C chunk(const uint8_t* row, size_t index) {
    const uint8_t* p = row + index * (4 * kWidth);
    if constexpr (kWidth == 2)
      return pairs_apart(p);
    else if constexpr (kWidth == 4)
      return nibbles_apart(p);
    else if constexpr (kWidth == 8)
      return codes(p);
    else
      return stream<kWidth>(p);
  }
  static void parameters(const RawMatmul& m, const Rows& rows, size_t g0, int, Parameters& out) {
    affine_part(m.element, rows.scales, g0, out.scales);
    affine_part(m.element, rows.biases, g0, out.biases);
  }
};

// ---- fp modes of four bits ----

// Twice a code's value, plus 12.
alignas(16) constexpr uint8_t kDoubledE2M1[16] = {12, 13, 14, 15, 16, 18, 20, 24,
                                                  12, 11, 10, 9,  8,  6,  4,  0};

inline float float_of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
inline float e8m0(uint8_t byte) {
  return float_of_bits(byte == 0 ? 0x00400000u : static_cast<uint32_t>(byte) << 23);
}
inline float e4m3(uint8_t byte) {
  const uint32_t magnitude = byte & 0x7fu;
  const uint32_t bits = magnitude == 0x7f ? 0x7fc00000u : magnitude << 20;
  const float value = float_of_bits(bits) * 0x1p120f;
  return byte & 0x80 ? -value : value;
}

// Scales are halved, as codes are doubled.
template <bool kNvfp4>
struct FourBitFloats {
  static constexpr int kCodeMax = 24;
  static constexpr bool kBias = false;
  static C chunk(const uint8_t* row, size_t index) {
    const uint8_t* p = row + index * 16;
    return look_up(kDoubledE2M1, kNvfp4 ? nibbles(p) : nibbles_apart(p));
  }
  static void parameters(const RawMatmul&, const Rows& rows, size_t g0, int groups,
                         Parameters& out) {
    for (int i = 0; i < 8; ++i)
      for (int g = 0; g < groups; ++g) {
        const uint8_t byte = rows.scales[i][g0 + static_cast<size_t>(g)];
        out.scales[g][i] = 0.5f * (kNvfp4 ? e4m3(byte) : e8m0(byte));
      }
  }
};

// ---- GGUF ----

// One block for each group of 32: d, and for some a minimum.
template <int kBytes, bool kMinimum>
void block_parameters(const Rows& rows, size_t g0, int groups, Parameters& out) {
  for (int i = 0; i < 8; ++i)
    for (int g = 0; g < groups; ++g) {
      const uint8_t* block = rows.weight[i] + (g0 + static_cast<size_t>(g)) * kBytes;
      out.scales[g][i] = half(block);
      if (kMinimum) out.biases[g][i] = half(block + 2);
    }
}

template <int kBytes, int kWidth, bool kMinimum>
struct SmallBlocks {
  static constexpr int kCodeMax = (1 << kWidth) - 1;
  static constexpr bool kBias = kMinimum;
  static C chunk(const uint8_t* row, size_t index) {
    const uint8_t* block = row + index * kBytes + (kMinimum ? 4 : 2);
    if constexpr (kWidth == 8)
      return codes(block) ^ splat_code(0x80);
    else if constexpr (kWidth == 4)
      return nibbles_apart(block);
    else
      return nibbles_apart(block + 4) | (spread_bits(block) & splat_code(16));
  }
  static void parameters(const RawMatmul&, const Rows& rows, size_t g0, int groups,
                         Parameters& out) {
    block_parameters<kBytes, kMinimum>(rows, g0, groups, out);
  }
};

// Pair `index` of four in each of 32 bytes, and so on.
inline C pick_pair(C bytes, size_t index) {
  return shift_right(bytes, static_cast<int>(2 * index)) & splat_code(3);
}
inline C pick_nibble(C bytes, size_t index) {
  return shift_right(bytes, static_cast<int>(4 * index)) & splat_code(15);
}
inline C pick_bit(C bytes, size_t index) {
  return shift_right(bytes, static_cast<int>(index)) & splat_code(1);
}

// Q4_K and Q5_K: blocks of 256 with eight groups of 32.
template <int kWidth>
struct FourFiveK {
  static constexpr int kCodeMax = (1 << kWidth) - 1;
  static constexpr bool kBias = true;
  static constexpr size_t kBytes = kWidth == 4 ? 144 : 176;
  static C chunk(const uint8_t* row, size_t index) {
    const uint8_t* block = row + index / 8 * kBytes;
    const size_t group = index % 8;
    const C low = pick_nibble(codes(block + (kWidth == 4 ? 16 : 48) + group / 2 * 32), group % 2);
    if constexpr (kWidth == 4)
      return low;
    else
      return low | shift_left(pick_bit(codes(block + 16), group), 4);
  }
  static void parameters(const RawMatmul&, const Rows& rows, size_t g0, int, Parameters& out) {
    for (int i = 0; i < 8; ++i) {
      const uint8_t* block = rows.weight[i] + g0 / 8 * kBytes;
      const uint8_t* packed = block + 4;
      const float d = half(block), dmin = half(block + 2);
      for (int g = 0; g < 8; ++g) {
        const int scale = g < 4 ? packed[g] & 63 : (packed[g + 4] & 15) | packed[g - 4] >> 6 << 4;
        const int min = g < 4 ? packed[g + 4] & 63 : packed[g + 4] >> 4 | packed[g] >> 6 << 4;
        out.scales[g][i] = d * static_cast<float>(scale);
        out.biases[g][i] = -(dmin * static_cast<float>(min));
      }
    }
  }
};

// Blocks of 256 with sixteen groups of 16.
struct TwoK {
  static constexpr int kCodeMax = 3;
  static constexpr bool kBias = true;
  static C chunk(const uint8_t* row, size_t index) {
    const uint8_t* block = row + index / 8 * 84;
    return pick_pair(codes(block + 16 + index % 8 / 4 * 32), index % 4);
  }
  static void parameters(const RawMatmul&, const Rows& rows, size_t g0, int, Parameters& out) {
    for (int i = 0; i < 8; ++i) {
      const uint8_t* block = rows.weight[i] + g0 / 16 * 84;
      const float d = half(block + 80), dmin = half(block + 82);
      for (size_t g = 0; g < 8; ++g) {
        const int packed = block[g0 % 16 + g];
        out.scales[g][i] = d * static_cast<float>(packed & 15);
        out.biases[g][i] = -(dmin * static_cast<float>(packed >> 4));
      }
    }
  }
};

struct ThreeK {
  static constexpr int kCodeMax = 7;
  static constexpr bool kBias = false;
  static C chunk(const uint8_t* row, size_t index) {
    const uint8_t* block = row + index / 8 * 110;
    const C pairs = pick_pair(codes(block + 32 + index % 8 / 4 * 32), index % 4);
    return pairs | shift_left(pick_bit(codes(block), index % 8), 2);
  }
  static void parameters(const RawMatmul&, const Rows& rows, size_t g0, int, Parameters& out) {
    for (int i = 0; i < 8; ++i) {
      const uint8_t* block = rows.weight[i] + g0 / 16 * 110;
      const uint8_t* packed = block + 96;
      const float d = half(block + 108);
      for (size_t g = 0; g < 8; ++g) {
        const size_t index = g0 % 16 + g;
        const int low = packed[index % 8] >> (index < 8 ? 0 : 4) & 15;
        const int high = packed[8 + index % 4] >> (2 * (index / 4)) & 3;
        out.scales[g][i] = d * static_cast<float>((low | high << 4) - 32);
      }
    }
  }
};

struct SixK {
  static constexpr int kCodeMax = 63;
  static constexpr bool kBias = false;
  static C chunk(const uint8_t* row, size_t index) {
    const uint8_t* block = row + index / 8 * 210;
    const size_t part = index % 8 / 4, quarter = index % 4;
    const C low = pick_nibble(codes(block + part * 64 + quarter % 2 * 32), quarter / 2);
    return low | shift_left(pick_pair(codes(block + 128 + part * 32), quarter), 4);
  }
  static void parameters(const RawMatmul&, const Rows& rows, size_t g0, int, Parameters& out) {
    for (int i = 0; i < 8; ++i) {
      const uint8_t* block = rows.weight[i] + g0 / 16 * 210;
      const float d = half(block + 208);
      for (size_t g = 0; g < 8; ++g)
        out.scales[g][i] = d * static_cast<float>(static_cast<int8_t>(block[192 + g0 % 16 + g]));
    }
  }
};

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
