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

// Eight rows; those that are not there repeat the last.
struct Rows {
  const uint8_t* weight[8];
  const uint8_t* scales[8];
  const uint8_t* biases[8];
};

// From the first row on, every step-th.
inline Rows rows_at(const RawMatmul& m, size_t first, size_t step) {
  Rows rows;
  for (size_t i = 0; i < 8; ++i) {
    const size_t at = first + i * step;
    const size_t row = at < m.rows ? at : m.rows - 1;
    rows.weight[i] = m.weight + row * m.weight_stride;
    rows.scales[i] = m.scales + row * m.scale_stride;
    rows.biases[i] = m.biases + row * m.scale_stride;
  }
  return rows;
}

inline uint64_t word_64(const uint8_t* p) {
  uint64_t word;
  memcpy(&word, p, 8);
  return word;
}
inline uint32_t word_32(const uint8_t* p) {
  uint32_t word;
  memcpy(&word, p, 4);
  return word;
}

// ---- affine ----

template <Element kElement>
[[gnu::always_inline]] inline void affine_part(const uint8_t* const* rows, size_t g0,
                                               float (*out)[8]) {
  V v[8];
  const size_t at = g0 * (kElement == kElementF32 ? 4 : 2);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) v[i] = load_8(kElement, rows[i] + at);
  store_transposed(v, out);
}

template <Element kElement>
inline void affine_parts(const Rows& rows, size_t g0, Parameters& out) {
  affine_part<kElement>(rows.scales, g0, out.scales);
  affine_part<kElement>(rows.biases, g0, out.biases);
}

// A coding has chunk(), and where pairs of chunks read faster together chunk_pair(): their low
// nibbles and their high ones, those of the first chunk in the lower half; and wide_chunk() where
// even and odd codes come apart by themselves.
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
  static void chunk_pair(const uint8_t* row, size_t index, C& low, C& high)
    requires(kWidth == 4)
  {
    part_nibbles(row + index * 16, low, high);
  }
  static void wide_chunk(const uint8_t* row, size_t index, S& even, S& odd)
    requires(kWidth == 3 || kWidth == 5 || kWidth == 6)
  {
    stream_wide<kWidth>(row + index * (4 * kWidth), even, odd);
  }
  static void parameters(const RawMatmul& m, const Rows& rows, size_t g0, int, Parameters& out) {
    switch (m.element) {
      case kElementF32: return affine_parts<kElementF32>(rows, g0, out);
      case kElementF16: return affine_parts<kElementF16>(rows, g0, out);
      case kElementBF16: return affine_parts<kElementBF16>(rows, g0, out);
    }
  }
};

// ---- fp modes of four bits ----

// Twice a code's value, plus 12.
alignas(16) constexpr uint8_t kDoubledE2M1[16] = {12, 13, 14, 15, 16, 18, 20, 24,
                                                  12, 11, 10, 9,  8,  6,  4,  0};

// Scales are halved, as codes are doubled.
template <bool kNvfp4>
struct FourBitFloats {
  static constexpr int kCodeMax = 24;
  static constexpr bool kBias = false;
  static C chunk(const uint8_t* row, size_t index) {
    const uint8_t* p = row + index * 16;
    return look_up(kDoubledE2M1, kNvfp4 ? nibbles(p) : nibbles_apart(p));
  }
  static void chunk_pair(const uint8_t* row, size_t index, C& low, C& high)
    requires(!kNvfp4)
  {
    part_nibbles(row + index * 16, low, high);
    low = look_up(kDoubledE2M1, low);
    high = look_up(kDoubledE2M1, high);
  }
  static void parameters(const RawMatmul&, const Rows& rows, size_t g0, int, Parameters& out) {
    V scales[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const uint64_t bytes = word_64(rows.scales[i] + g0);
      scales[i] = splat_v(0.5f) * (kNvfp4 ? e4m3_to_floats(bytes) : e8m0_to_floats(bytes));
    }
    store_transposed(scales, out.scales);
  }
};

// ---- GGUF ----

template <int kBlockBytes, int kWidth, bool kMinimum>
struct SmallBlocks {
  static constexpr size_t kBytes = kBlockBytes;
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
  static void chunk_pair(const uint8_t* row, size_t index, C& low, C& high)
    requires(kWidth == 4)
  {
    const uint8_t* block = row + index * kBytes + (kMinimum ? 4 : 2);
    part_nibbles(block, block + kBytes, low, high);
  }
  static void parameters(const RawMatmul&, const Rows& rows, size_t g0, int groups,
                         Parameters& out) {
    for (int g = 0; g < groups; ++g) {
      const size_t at = (g0 + static_cast<size_t>(g)) * kBytes;
      V scales, minima;
      if constexpr (kMinimum) {
        two_halves_of(rows.weight, at, scales, minima);
        store_v(out.biases[g], minima);
      } else {
        scales = halves_of(rows.weight, at);
      }
      store_v(out.scales[g], scales);
    }
  }
};

// Two words of four bytes.
inline uint64_t joined(uint32_t low, uint32_t high) {
  return low | static_cast<uint64_t>(high) << 32;
}

// Less 32 in every byte, each below 64, without borrowing from the next.
inline uint64_t less_32(uint64_t bytes) {
  return ((bytes | 0x8080808080808080u) - 0x2020202020202020u) ^ 0x8080808080808080u;
}

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

// What K-quants share: blocks of 256 with kParts groups, whose scales are bytes under an f16 at
// kStepAt, and whose minima, where they have them, under a second one behind it. scale_bytes and
// min_bytes: of eight groups, the first in the lowest byte; signed.
template <class Coding>
struct KBlocks {
  static void parameters(const RawMatmul&, const Rows& rows, size_t g0, int, Parameters& out) {
    V scales[8], biases[8];
    const size_t eighth = g0 % Coding::kParts / 8;
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const uint8_t* block = rows.weight[i] + g0 / Coding::kParts * Coding::kBytes;
      scales[i] = splat_v(half(block + Coding::kStepAt)) *
                  signed_bytes_to_floats(Coding::scale_bytes(block, eighth));
      if constexpr (Coding::kBias)
        biases[i] = splat_v(-half(block + Coding::kStepAt + 2)) *
                    signed_bytes_to_floats(Coding::min_bytes(block, eighth));
    }
    store_transposed(scales, out.scales);
    if constexpr (Coding::kBias) store_transposed(biases, out.biases);
  }
  static W whole_scales(const uint8_t* block) {
    if constexpr (Coding::kParts == 8)
      return eight_whole(Coding::scale_bytes(block, 0));
    else
      return sixteen_whole(Coding::scale_bytes(block, 0), Coding::scale_bytes(block, 1));
  }
  static W whole_mins(const uint8_t* block) {
    if constexpr (Coding::kParts == 8)
      return eight_whole(Coding::min_bytes(block, 0));
    else
      return sixteen_whole(Coding::min_bytes(block, 0), Coding::min_bytes(block, 1));
  }
};

// Q4_K and Q5_K.
template <int kWidth>
struct FourFiveK : KBlocks<FourFiveK<kWidth>> {
  static constexpr int kCodeMax = (1 << kWidth) - 1;
  static constexpr bool kBias = true;
  static constexpr size_t kBytes = kWidth == 4 ? 144 : 176, kParts = 8, kStepAt = 0;
  static C chunk(const uint8_t* row, size_t index) {
    const uint8_t* block = row + index / 8 * kBytes;
    const size_t group = index % 8;
    const C low = pick_nibble(codes(block + (kWidth == 4 ? 16 : 48) + group / 2 * 32), group % 2);
    if constexpr (kWidth == 4)
      return low;
    else
      return low | shift_left(pick_bit(codes(block + 16), group), 4);
  }
  static uint64_t scale_bytes(const uint8_t* block, size_t) {
    const uint32_t a = word_32(block + 4), c = word_32(block + 12);
    return joined(a & 0x3f3f3f3fu, (c & 0x0f0f0f0fu) | (a >> 2 & 0x30303030u));
  }
  static uint64_t min_bytes(const uint8_t* block, size_t) {
    const uint32_t b = word_32(block + 8), c = word_32(block + 12);
    return joined(b & 0x3f3f3f3fu, (c >> 4 & 0x0f0f0f0fu) | (b >> 2 & 0x30303030u));
  }
};

struct TwoK : KBlocks<TwoK> {
  static constexpr int kCodeMax = 3;
  static constexpr bool kBias = true;
  static constexpr size_t kBytes = 84, kParts = 16, kStepAt = 80;
  static C chunk(const uint8_t* row, size_t index) {
    const uint8_t* block = row + index / 8 * kBytes;
    return pick_pair(codes(block + 16 + index % 8 / 4 * 32), index % 4);
  }
  static uint64_t scale_bytes(const uint8_t* block, size_t eighth) {
    return word_64(block + eighth * 8) & 0x0f0f0f0f0f0f0f0fu;
  }
  static uint64_t min_bytes(const uint8_t* block, size_t eighth) {
    return word_64(block + eighth * 8) >> 4 & 0x0f0f0f0f0f0f0f0fu;
  }
};

struct ThreeK : KBlocks<ThreeK> {
  static constexpr int kCodeMax = 7, kOffset = 4;
  static constexpr bool kBias = false;
  static constexpr size_t kBytes = 110, kParts = 16, kStepAt = 108;
  static C chunk(const uint8_t* row, size_t index) {
    const uint8_t* block = row + index / 8 * kBytes;
    const C pairs = pick_pair(codes(block + 32 + index % 8 / 4 * 32), index % 4);
    return pairs | shift_left(pick_bit(codes(block), index % 8), 2);
  }
  static uint64_t scale_bytes(const uint8_t* block, size_t eighth) {
    const uint32_t pairs = word_32(block + 104) >> 4 * eighth;
    const uint64_t low = word_64(block + 96) >> 4 * eighth & 0x0f0f0f0f0f0f0f0fu;
    const uint64_t high = joined(pairs & 0x03030303u, pairs >> 2 & 0x03030303u);
    return less_32(low | high << 4);
  }
};

struct SixK : KBlocks<SixK> {
  static constexpr int kCodeMax = 63, kOffset = 32;
  static constexpr bool kBias = false;
  static constexpr size_t kBytes = 210, kParts = 16, kStepAt = 208;
  static C chunk(const uint8_t* row, size_t index) {
    const uint8_t* block = row + index / 8 * kBytes;
    const size_t part = index % 8 / 4, quarter = index % 4;
    const C low = pick_nibble(codes(block + part * 64 + quarter % 2 * 32), quarter / 2);
    return low | shift_left(pick_pair(codes(block + 128 + part * 32), quarter), 4);
  }
  static uint64_t scale_bytes(const uint8_t* block, size_t eighth) {
    return word_64(block + 192 + eighth * 8);
  }
};

// Nibbles that stand for one of sixteen values, 128 above them.
alignas(16) constexpr uint8_t kIq4Codes[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                               129, 141, 153, 166, 181, 197, 217, 241};

struct IQ4NL {
  static constexpr size_t kBytes = 18;
  static constexpr int kCodeMax = 241;
  static constexpr bool kBias = false;
  static C chunk(const uint8_t* row, size_t index) {
    return look_up(kIq4Codes, nibbles_apart(row + index * kBytes + 2));
  }
  static void parameters(const RawMatmul& m, const Rows& rows, size_t g0, int groups,
                         Parameters& out) {
    SmallBlocks<kBytes, 4, false>::parameters(m, rows, g0, groups, out);
  }
};

struct IQ4XS : KBlocks<IQ4XS> {
  static constexpr int kCodeMax = 241;
  static constexpr bool kBias = false;
  static constexpr size_t kBytes = 136, kParts = 8, kStepAt = 0;
  static C chunk(const uint8_t* row, size_t index) {
    return look_up(kIq4Codes, nibbles_apart(row + index / 8 * kBytes + 8 + index % 8 * 16));
  }
  // Nibbles of four bytes and pairs of two, each to a byte of its own; less 32.
  static uint64_t scale_bytes(const uint8_t* block, size_t) {
    const uint32_t words = word_32(block);
    uint64_t low = word_32(block + 4), high = words >> 16;
    low = (low | low << 16) & 0x0000ffff0000ffffu;
    low = (low | low << 8) & 0x00ff00ff00ff00ffu;
    low = (low | low << 4) & 0x0f0f0f0f0f0f0f0fu;
    high = (high | high << 24) & 0x000000ff000000ffu;
    high = (high | high << 12) & 0x000f000f000f000fu;
    high = (high | high << 6) & 0x0303030303030303u;
    return less_32(low | high << 4);
  }
};

struct MXFP4 {
  static constexpr size_t kBytes = 17;
  static constexpr int kCodeMax = 24;
  static constexpr bool kBias = false;
  static C chunk(const uint8_t* row, size_t index) {
    return look_up(kDoubledE2M1, nibbles_apart(row + index * kBytes + 1));
  }
  // Half a power of two.
  static void parameters(const RawMatmul&, const Rows& rows, size_t g0, int groups,
                         Parameters& out) {
    for (int g = 0; g < groups; ++g)
      for (size_t i = 0; i < 8; ++i) {
        const uint32_t bits = rows.weight[i][(g0 + static_cast<size_t>(g)) * kBytes];
        const uint32_t pattern = bits < 2 ? 0x00200000u << bits : (bits - 1) << 23;
        memcpy(&out.scales[g][i], &pattern, 4);
      }
  }
};

// Whether scales lie among the codes, in blocks.
template <class Coding>
constexpr bool kInBlocks = requires { Coding::kBytes; };
// Blocks of 32 codes.
template <class Coding>
constexpr bool kInSmallBlocks = false;
template <class Coding>
  requires(kInBlocks<Coding>)
constexpr bool kInSmallBlocks<Coding> = Coding::kBytes <= 40;

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
