// Q2_K to Q6_K: 256 elements, two f16 scales at most, and packed small scales for groups of 16
// or 32.
#include "numerics/ggml_blocks.h"

namespace sluice::numerics {
namespace {

struct ScaleMin {
  uint8_t scale, min;
};

// Eight pairs of 6-bit numbers in 12 bytes: the first four pairs take the low six bits of bytes
// 0–7; the last four take a nibble each of bytes 8–11 and the two high bits of bytes 0–7.
ScaleMin scale_min_k4(Bytes packed, size_t index) {
  const auto byte = [&](size_t i) { return load_u8(packed + i); };
  if (index < 4)
    return {static_cast<uint8_t>(byte(index) & 63), static_cast<uint8_t>(byte(index + 4) & 63)};
  return {static_cast<uint8_t>((byte(index + 4) & 0x0f) | ((byte(index - 4) >> 6) << 4)),
          static_cast<uint8_t>((byte(index + 4) >> 4) | ((byte(index) >> 6) << 4))};
}

// Eight groups of 32; w = (d·scale)·code − (dmin·min). high: the fifth bits, bit g of byte l for
// element l of group g; nullptr for Q4_K.
void decode_k4_k5(float d, float dmin, Bytes scales, Bytes high, Bytes nibbles, float* out) {
  for (size_t group = 0; group < 8; ++group) {
    const ScaleMin packed = scale_min_k4(scales, group);
    const float scale = d * static_cast<float>(packed.scale);
    const float min = dmin * static_cast<float>(packed.min);
    Bytes bytes = nibbles + group / 2 * 32;
    for (size_t l = 0; l < 32; ++l) {
      unsigned code = group % 2 == 0 ? load_u8(bytes + l) & 0x0f : load_u8(bytes + l) >> 4;
      if (high != nullptr) code += ((load_u8(high + l) >> group) & 1u) << 4;
      out[group * 32 + l] = scale * static_cast<float>(code) - min;
    }
  }
}

// Sixteen 6-bit scales in 12 bytes, minus 32: scale i has its low nibble in byte i mod 8 (high
// nibble from 8 on), its upper two bits in pair i / 4 of byte 8 + i mod 4.
int scale_k3(Bytes packed, size_t index) {
  const unsigned low = load_u8(packed + index % 8) >> (index < 8 ? 0 : 4) & 0x0fu;
  const unsigned high = load_u8(packed + 8 + index % 4) >> (2 * (index / 4)) & 3u;
  return static_cast<int>(low | high << 4) - 32;
}

}  // namespace

// Q2_K and Q3_K: two halves of 128, each with 32 bytes of bit pairs: quarter q of a half takes pair
// q of byte l. Groups of 16 share a scale.

// 16 bytes of scale (low) and minimum (high nibble), 64 of pairs, d, dmin.
void decode_q2_k(Bytes block, float* out) {
  const float d = load_f16(block + 80), dmin = load_f16(block + 82);
  for (size_t group = 0; group < 16; ++group) {
    const uint8_t packed = load_u8(block + group);
    const float scale = d * static_cast<float>(packed & 0x0f);
    const float min = dmin * static_cast<float>(packed >> 4);
    const size_t shift = group % 8 / 2 * 2;
    Bytes pairs = block + 16 + group / 8 * 32 + group % 2 * 16;
    for (size_t l = 0; l < 16; ++l) {
      const int code = load_u8(pairs + l) >> shift & 3;
      out[group * 16 + l] = scale * static_cast<float>(code) - min;
    }
  }
}

// 32 bytes of third bits (bit g / 2 of byte l for group g), 64 of pairs, 12 of scales, d. The third
// bit is stored inverted: clear takes 4 away.
void decode_q3_k(Bytes block, float* out) {
  const float d = load_f16(block + 108);
  for (size_t group = 0; group < 16; ++group) {
    const float scale = d * static_cast<float>(scale_k3(block + 96, group));
    const size_t shift = group % 8 / 2 * 2;
    Bytes high = block + group % 2 * 16;
    Bytes pairs = block + 32 + group / 8 * 32 + group % 2 * 16;
    for (size_t l = 0; l < 16; ++l) {
      const int pair = load_u8(pairs + l) >> shift & 3;
      const int third = load_u8(high + l) >> (group / 2) & 1;
      out[group * 16 + l] = scale * static_cast<float>(pair - 4 + 4 * third);
    }
  }
}

void decode_q4_k(Bytes block, float* out) {
  decode_k4_k5(load_f16(block), load_f16(block + 2), block + 4, nullptr, block + 16, out);
}
void decode_q5_k(Bytes block, float* out) {
  decode_k4_k5(load_f16(block), load_f16(block + 2), block + 4, block + 16, block + 48, out);
}

// Two halves of 128: 64 bytes of low nibbles, 32 bytes of high bit pairs and eight signed scales
// each. Quarter q of a half takes nibble q/2 of byte l + 32·(q mod 2) and bit pair q of byte l.
void decode_q6_k(Bytes block, float* out) {
  const float d = load_f16(block + 208);
  for (size_t half = 0; half < 2; ++half) {
    Bytes low = block + half * 64;
    Bytes high = block + 128 + half * 32;
    Bytes scales = block + 192 + half * 8;
    for (size_t quarter = 0; quarter < 4; ++quarter) {
      for (size_t l = 0; l < 32; ++l) {
        const unsigned byte = load_u8(low + l + 32 * (quarter % 2));
        const unsigned nibble = quarter < 2 ? byte & 0x0f : byte >> 4;
        const unsigned pair = (load_u8(high + l) >> (2 * quarter)) & 3u;
        const int code = static_cast<int>(nibble | (pair << 4)) - 32;
        const int scale = load_i8(scales + quarter * 2 + l / 16);
        out[half * 128 + quarter * 32 + l] =
            d * static_cast<float>(scale) * static_cast<float>(code);
      }
    }
  }
}

}  // namespace sluice::numerics
