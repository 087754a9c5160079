// IQ1 to IQ3: indices into code books of vectors, with signs and small scales beside them.
#include <bit>

#include "numerics/ggml_blocks.h"
#include "numerics/ggml_codebooks.h"

namespace sluice::numerics {
namespace {

// What the digits of a code book stand for.
constexpr float kIq2Magnitudes[] = {8, 25, 43, 0};  // 2 bits; no entry has the digit 3
constexpr float kIq3XxsMagnitudes[] = {4, 12, 20, 28, 36, 44, 52, 62};
constexpr float kIq3SMagnitudes[] = {1, 3, 5, 7, 9, 11, 13, 15};
constexpr float kIq1Delta = 0.125f;

float sign_of(unsigned signs, size_t index) { return (signs >> index & 1u) != 0 ? -1.0f : 1.0f; }

// Seven stored signs; the eighth makes their number even.
unsigned eight_signs(unsigned seven) {
  seven &= 127u;
  return seven | static_cast<unsigned>(std::popcount(seven) & 1) << 7;
}

// Eight elements of one IQ2 vector; a set bit in signs makes its element negative.
void put_iq2(unsigned entry, unsigned signs, float scale, float* out) {
  for (size_t j = 0; j < 8; ++j)
    out[j] = scale * kIq2Magnitudes[entry >> (2 * j) & 3u] * sign_of(signs, j);
}

// Four elements of one IQ3 vector.
void put_iq3(unsigned entry, const float* magnitudes, unsigned signs, float scale, float* out) {
  for (size_t j = 0; j < 4; ++j)
    out[j] = scale * magnitudes[entry >> (3 * j) & 7u] * sign_of(signs, j);
}

// Eight elements of one IQ1 vector of −1, 0 and 1, all moved by delta.
void put_iq1(unsigned entry, float delta, float scale, float* out) {
  for (size_t j = 0; j < 8; ++j) {
    const int digit = static_cast<int>(entry >> (2 * j) & 3u);
    out[j] = scale * (static_cast<float>(digit - 1) + delta);
  }
}

float iq2_scale(float d, unsigned code) { return d * (0.5f + static_cast<float>(code)) * 0.25f; }

// Two scale nibbles a byte, the low one first.
unsigned nibble(Bytes packed, size_t index) {
  return load_u8(packed + index / 2) >> (index % 2 * 4) & 0x0fu;
}

}  // namespace

// Groups of 32, 8 bytes each: four indices, then 4 × 7 signs and a 4-bit scale.
void decode_iq2_xxs(Bytes block, float* out) {
  const float d = load_f16(block);
  for (size_t group = 0; group < 8; ++group) {
    Bytes indices = block + 2 + group * 8;
    const uint32_t rest = load_le<uint32_t>(indices + 4);
    const float scale = iq2_scale(d, rest >> 28);
    for (size_t v = 0; v < 4; ++v)
      put_iq2(kIq2XxsBook[load_u8(indices + v)], eight_signs(rest >> (7 * v)), scale,
              out + group * 32 + v * 8);
  }
}

// 32 numbers of 9 bits of index and 7 signs, then a scale nibble per 16 elements.
void decode_iq2_xs(Bytes block, float* out) {
  const float d = load_f16(block);
  for (size_t v = 0; v < 32; ++v) {
    const uint16_t packed = load_le<uint16_t>(block + 2 + v * 2);
    put_iq2(kIq2XsBook[packed & 511u], eight_signs(packed >> 9),
            iq2_scale(d, nibble(block + 66, v / 2)), out + v * 8);
  }
}

// 32 low bytes of indices, 32 bytes of signs, 8 bytes of index bits 8 and 9 (a pair a vector), a
// scale nibble per 16 elements.
void decode_iq2_s(Bytes block, float* out) {
  const float d = load_f16(block);
  for (size_t v = 0; v < 32; ++v) {
    const unsigned high = load_u8(block + 66 + v / 4) >> (v % 4 * 2) & 3u;
    const unsigned index = load_u8(block + 2 + v) | high << 8;
    put_iq2(kIq2SBook[index], load_u8(block + 34 + v), iq2_scale(d, nibble(block + 74, v / 2)),
            out + v * 8);
  }
}

// 64 indices, then per group of 32: 4 × 7 signs and a 4-bit scale.
void decode_iq3_xxs(Bytes block, float* out) {
  const float d = load_f16(block);
  for (size_t group = 0; group < 8; ++group) {
    const uint32_t rest = load_le<uint32_t>(block + 66 + group * 4);
    const float scale = d * (0.5f + static_cast<float>(rest >> 28)) * 0.5f;
    for (size_t v = 0; v < 8; ++v) {
      const unsigned signs = eight_signs(rest >> (v / 2 * 7)) >> (v % 2 * 4);
      put_iq3(kIq3XxsBook[load_u8(block + 2 + group * 8 + v)], kIq3XxsMagnitudes, signs, scale,
              out + group * 32 + v * 4);
    }
  }
}

// 64 low bytes of indices, 8 bytes of their ninth bits, 32 bytes of signs, a scale nibble per 32
// elements.
void decode_iq3_s(Bytes block, float* out) {
  const float d = load_f16(block);
  for (size_t v = 0; v < 64; ++v) {
    const unsigned high = load_u8(block + 66 + v / 8) >> (v % 8) & 1u;
    const unsigned index = load_u8(block + 2 + v) | high << 8;
    const unsigned signs = static_cast<unsigned>(load_u8(block + 74 + v / 2)) >> (v % 2 * 4);
    const float scale = d * static_cast<float>(1 + 2 * nibble(block + 106, v / 8));
    put_iq3(kIq3SBook[index], kIq3SMagnitudes, signs, scale, out + v * 4);
  }
}

// 32 low bytes of indices; per group of 32 a u16 of four upper 3 bits, a 3-bit scale, and the sign
// of delta.
void decode_iq1_s(Bytes block, float* out) {
  const float d = load_f16(block);
  for (size_t group = 0; group < 8; ++group) {
    const unsigned high = load_le<uint16_t>(block + 34 + group * 2);
    const float scale = d * static_cast<float>(2 * (high >> 12 & 7u) + 1);
    const float delta = (high & 0x8000u) != 0 ? -kIq1Delta : kIq1Delta;
    for (size_t v = 0; v < 4; ++v) {
      const unsigned index = load_u8(block + 2 + group * 4 + v) | (high >> (3 * v) & 7u) << 8;
      put_iq1(kIq1Book[index], delta, scale, out + group * 32 + v * 8);
    }
  }
}

// 32 low bytes of indices, a nibble a vector (upper 3 bits, sign of delta), and four u16, each of
// four 3-bit scales (one per 16 elements) and, on top, a quarter of the f16 d, lowest first.
void decode_iq1_m(Bytes block, float* out) {
  unsigned bits = 0;
  for (size_t i = 0; i < 4; ++i)
    bits |= static_cast<unsigned>(load_le<uint16_t>(block + 48 + i * 2) >> 12) << (4 * i);
  const float d = f16_to_f32(static_cast<uint16_t>(bits));
  for (size_t v = 0; v < 32; ++v) {
    const unsigned scales = load_le<uint16_t>(block + 48 + v / 8 * 2);
    const float scale = d * static_cast<float>(2 * (scales >> (v % 8 / 2 * 3) & 7u) + 1);
    const unsigned high = nibble(block + 32, v);
    const float delta = (high & 8u) != 0 ? -kIq1Delta : kIq1Delta;
    put_iq1(kIq1Book[load_u8(block + v) | (high & 7u) << 8], delta, scale, out + v * 8);
  }
}

}  // namespace sluice::numerics
