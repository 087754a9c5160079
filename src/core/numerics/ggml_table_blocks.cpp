// Block types whose 4-bit codes index a table of 16 values: IQ4_NL, IQ4_XS, MXFP4, NVFP4.
#include <bit>

#include "numerics/ggml_blocks.h"

namespace sluice::numerics {

const std::array<int8_t, 16> kIq4Values = {-127, -104, -83, -65, -49, -35, -22, -10,
                                           1,    13,   25,  38,  53,  69,  89,  113};

namespace {

// E2M1 doubled, so that the values are integers; the scales are halved instead.
constexpr std::array<int8_t, 16> kFp4Doubled = {0, 1,  2,  3,  4,  6,  8,  12,
                                                0, -1, -2, -3, -4, -6, -8, -12};

// width / 2 bytes: low nibbles are the first half of the elements, high nibbles the second.
void put_nibbles(Bytes nibbles, size_t width, const std::array<int8_t, 16>& values, float scale,
                 float* out) {
  for (size_t j = 0; j < width / 2; ++j) {
    const uint8_t byte = load_u8(nibbles + j);
    out[j] = scale * static_cast<float>(values[byte & 0x0f]);
    out[j + width / 2] = scale * static_cast<float>(values[byte >> 4]);
  }
}

// Half of an E4M3 without sign. The NaN pattern counts as zero; bit 7 is ignored.
float half_e4m3(uint8_t bits) {
  if (bits == 0x7f) return 0.0f;
  const uint32_t exponent = bits >> 3 & 0x0fu, mantissa = bits & 7u;
  if (exponent == 0) return static_cast<float>(mantissa) * 0x1p-10f;
  return std::bit_cast<float>((exponent + 119) << 23 | mantissa << 20);
}

}  // namespace

float half_e8m0(uint8_t bits) {
  const uint32_t pattern = bits < 2 ? 0x00200000u << bits : (uint32_t{bits} - 1) << 23;
  return std::bit_cast<float>(pattern);
}

// A u16 of eight upper pairs of bits behind d, then 4 bytes of lower nibbles.
int iq4_xs_scale(Bytes block, size_t group) {
  const unsigned high = load_le<uint16_t>(block + 2) >> (2 * group) & 3u;
  const unsigned low = load_u8(block + 4 + group / 2) >> (group % 2 * 4) & 0x0fu;
  return static_cast<int>(low | high << 4) - 32;
}

void decode_iq4_nl(Bytes block, float* out) {
  put_nibbles(block + 2, 32, kIq4Values, load_f16(block), out);
}

// d, scales, then 8 × 16 bytes of codes.
void decode_iq4_xs(Bytes block, float* out) {
  const float d = load_f16(block);
  for (size_t group = 0; group < 8; ++group)
    put_nibbles(block + 8 + group * 16, 32, kIq4Values,
                d * static_cast<float>(iq4_xs_scale(block, group)), out + group * 32);
}

void decode_mxfp4(Bytes block, float* out) {
  put_nibbles(block + 1, 32, kFp4Doubled, half_e8m0(load_u8(block)), out);
}

// Four scales, then four groups of 16 elements in 8 bytes each.
void decode_nvfp4(Bytes block, float* out) {
  for (size_t group = 0; group < 4; ++group)
    put_nibbles(block + 4 + group * 8, 16, kFp4Doubled, half_e4m3(load_u8(block + group)),
                out + group * 16);
}

}  // namespace sluice::numerics
