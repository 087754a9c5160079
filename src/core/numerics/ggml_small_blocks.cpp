// Block types of one or two bits under a single scale: TQ1_0, TQ2_0, Q1_0, Q2_0. All of them are
// (code − 1)·d with codes 0 to 3, which is why they move to affine exactly.
#include <span>

#include "numerics/ggml_blocks.h"

namespace sluice::numerics {
namespace {

// Digit `place` of a byte of base-3 digits. The byte is the fraction number · 256 / 243, rounded
// up: times 3^place, modulo 1, leaves the digit as the whole part of thrice the rest.
uint8_t base3_digit(uint8_t byte, size_t place) {
  constexpr uint8_t kPowers[] = {1, 3, 9, 27, 81};
  const auto rest = static_cast<uint8_t>(byte * kPowers[place]);
  return static_cast<uint8_t>(rest * 3u >> 8);
}

// bytes · places elements: place after place over all bytes.
uint8_t* put_digits(Bytes at, size_t bytes, size_t places, uint8_t* codes) {
  for (size_t place = 0; place < places; ++place)
    for (size_t i = 0; i < bytes; ++i) *codes++ = base3_digit(load_u8(at + i), place);
  return codes;
}

template <size_t kElements>
void decode_codes(void (*codes_of)(Bytes, uint8_t*), Bytes block, float d, float* out) {
  uint8_t codes[kElements];
  codes_of(block, codes);
  for (size_t i = 0; i < kElements; ++i) out[i] = static_cast<float>(int{codes[i]} - 1) * d;
}

}  // namespace

// 32 and 16 bytes of five base-3 digits, 4 bytes of four, d.
void codes_tq1_0(Bytes block, uint8_t* codes) {
  codes = put_digits(block, 32, 5, codes);
  codes = put_digits(block + 32, 16, 5, codes);
  put_digits(block + 48, 4, 4, codes);
}

// 64 bytes of pairs, d. Two halves of 128; quarter q of a half is pair q of its 32 bytes.
void codes_tq2_0(Bytes block, uint8_t* codes) {
  for (size_t quarter = 0; quarter < 8; ++quarter)
    for (size_t i = 0; i < 32; ++i)
      *codes++ = load_u8(block + quarter / 4 * 32 + i) >> (quarter % 4 * 2) & 3;
}

// d, 16 bytes: bit i is the sign of element i, set for plus.
void codes_q1_0(Bytes block, uint8_t* codes) {
  for (size_t i = 0; i < 128; ++i)
    codes[i] = static_cast<uint8_t>((load_u8(block + 2 + i / 8) >> (i % 8) & 1) << 1);
}

// d, 16 bytes: pair i is element i.
void codes_q2_0(Bytes block, uint8_t* codes) {
  for (size_t i = 0; i < 64; ++i) codes[i] = load_u8(block + 2 + i / 4) >> (i % 4 * 2) & 3;
}

void decode_tq1_0(Bytes block, float* out) {
  decode_codes<256>(codes_tq1_0, block, load_f16(block + 52), out);
}
void decode_tq2_0(Bytes block, float* out) {
  decode_codes<256>(codes_tq2_0, block, load_f16(block + 64), out);
}
void decode_q1_0(Bytes block, float* out) {
  decode_codes<128>(codes_q1_0, block, load_f16(block), out);
}
void decode_q2_0(Bytes block, float* out) {
  decode_codes<64>(codes_q2_0, block, load_f16(block), out);
}

}  // namespace sluice::numerics
