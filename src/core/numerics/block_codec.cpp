// Decoding of stored elements to f32 and the exact moves of affine GGUF blocks. Scalar and
// obvious on purpose: this is the specification that the kernels must match bit for bit.
// Block layouts: docs/formats.md#gguf; arithmetic in the order ggml performs it, because every
// f32 rounding counts.
#include "numerics/block_codec.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "base/error.h"
#include "numerics/float_types.h"
#include "numerics/fp.h"

namespace sluice::numerics {
namespace {

using Bytes = const std::byte*;

uint8_t load_u8(Bytes at) { return std::to_integer<uint8_t>(*at); }
int8_t load_i8(Bytes at) { return static_cast<int8_t>(load_u8(at)); }

// Assembled byte by byte: any alignment, any host byte order.
template <class T>
T load_le(Bytes at) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value |= static_cast<T>(T{load_u8(at + i)} << (8 * i));
  return value;
}

template <class T>
void store_le(T value, std::byte* at) {
  for (size_t i = 0; i < sizeof(T); ++i) at[i] = static_cast<std::byte>(value >> (8 * i));
}

float load_f16(Bytes at) { return f16_to_f32(load_le<uint16_t>(at)); }

float f8_e8m0_to_f32(uint8_t bits) {
  if (bits == 0xff) return std::numeric_limits<float>::quiet_NaN();
  return std::ldexp(1.0f, int{bits} - 127);
}

// The integer codes of one 32-wide block, before any offset is subtracted; for the 4- and 5-bit
// types low nibbles are elements 0–15 and high nibbles 16–31.
using Codes32 = std::array<uint8_t, 32>;

Codes32 codes4(Bytes nibbles) {
  Codes32 codes;
  for (size_t j = 0; j < 16; ++j) {
    codes[j] = load_u8(nibbles + j) & 0x0f;
    codes[j + 16] = load_u8(nibbles + j) >> 4;
  }
  return codes;
}

// high: 32 fifth bits, bit j of element j.
Codes32 codes5(Bytes high, Bytes nibbles) {
  Codes32 codes = codes4(nibbles);
  const uint32_t bits = load_le<uint32_t>(high);
  for (size_t j = 0; j < 32; ++j) codes[j] |= static_cast<uint8_t>(((bits >> j) & 1u) << 4);
  return codes;
}

// w = d·(code − offset).
void decode_symmetric(const Codes32& codes, int offset, float d, float* out) {
  for (size_t j = 0; j < 32; ++j) out[j] = static_cast<float>(int{codes[j]} - offset) * d;
}

// w = d·code + m.
void decode_asymmetric(const Codes32& codes, float d, float m, float* out) {
  for (size_t j = 0; j < 32; ++j) out[j] = static_cast<float>(codes[j]) * d + m;
}

void decode_q4_0(Bytes block, float* out) {
  decode_symmetric(codes4(block + 2), 8, load_f16(block), out);
}
void decode_q4_1(Bytes block, float* out) {
  decode_asymmetric(codes4(block + 4), load_f16(block), load_f16(block + 2), out);
}
void decode_q5_0(Bytes block, float* out) {
  decode_symmetric(codes5(block + 2, block + 6), 16, load_f16(block), out);
}
void decode_q5_1(Bytes block, float* out) {
  decode_asymmetric(codes5(block + 4, block + 8), load_f16(block), load_f16(block + 2), out);
}
void decode_q8_0(Bytes block, float* out) {
  const float d = load_f16(block);
  for (size_t j = 0; j < 32; ++j) out[j] = static_cast<float>(load_i8(block + 2 + j)) * d;
}

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

template <class Decode>
void decode_each(DType dtype, std::span<const std::byte> in, std::span<float> out,
                 Decode&& decode) {
  const DTypeInfo& info = dtype_info(dtype);
  SLUICE_CHECK(out.size() % info.block_elements == 0);
  SLUICE_CHECK(in.size() == out.size() / info.block_elements * info.block_bytes);
  Bytes from = in.data();
  float* to = out.data();
  for (size_t left = out.size() / info.block_elements; left != 0; --left) {
    decode(from, to);
    from += info.block_bytes;
    to += info.block_elements;
  }
}

struct Move {
  uint8_t bits;
  int offset;  // code = stored code; bias = −offset·d; 0: bias is the stored m
};

std::optional<Move> move_of(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0: return Move{4, 8};
    case DType::kQ4_1: return Move{4, 0};
    case DType::kQ5_0: return Move{5, 16};
    case DType::kQ5_1: return Move{5, 0};
    case DType::kQ8_0: return Move{8, 128};
    default: return std::nullopt;
  }
}

Codes32 codes_of(DType dtype, Bytes block) {
  switch (dtype) {
    case DType::kQ4_0: return codes4(block + 2);
    case DType::kQ4_1: return codes4(block + 4);
    case DType::kQ5_0: return codes5(block + 2, block + 6);
    case DType::kQ5_1: return codes5(block + 4, block + 8);
    default: break;
  }
  SLUICE_CHECK(dtype == DType::kQ8_0);
  Codes32 codes;
  for (size_t j = 0; j < 32; ++j) codes[j] = static_cast<uint8_t>(load_u8(block + 2 + j) ^ 0x80u);
  return codes;
}

}  // namespace

void decode_elements(DType dtype, std::span<const std::byte> in, std::span<float> out) {
  const auto each = [&](auto&& decode) { decode_each(dtype, in, out, decode); };
  switch (dtype) {
    case DType::kF32:
      return each([](Bytes b, float* o) { *o = std::bit_cast<float>(load_le<uint32_t>(b)); });
    case DType::kF16: return each([](Bytes b, float* o) { *o = load_f16(b); });
    case DType::kBF16:
      return each([](Bytes b, float* o) { *o = bf16_to_f32(load_le<uint16_t>(b)); });
    case DType::kF64:
      return each([](Bytes b, float* o) {
        *o = static_cast<float>(std::bit_cast<double>(load_le<uint64_t>(b)));
      });
    case DType::kF8E4M3: return each([](Bytes b, float* o) { *o = e4m3_value(load_u8(b)); });
    case DType::kF8E5M2:  // the upper byte of an f16
      return each(
          [](Bytes b, float* o) { *o = f16_to_f32(static_cast<uint16_t>(load_u8(b) << 8)); });
    case DType::kF8E8M0: return each([](Bytes b, float* o) { *o = f8_e8m0_to_f32(load_u8(b)); });
    case DType::kQ4_0: return each(decode_q4_0);
    case DType::kQ4_1: return each(decode_q4_1);
    case DType::kQ5_0: return each(decode_q5_0);
    case DType::kQ5_1: return each(decode_q5_1);
    case DType::kQ8_0: return each(decode_q8_0);
    case DType::kQ4_K: return each(decode_q4_k);
    case DType::kQ5_K: return each(decode_q5_k);
    case DType::kQ6_K: return each(decode_q6_k);
    default: SLUICE_CHECK(!"decode_elements: not a float type");
  }
}

void encode_elements(DType dtype, std::span<const float> in, std::span<std::byte> out) {
  SLUICE_CHECK(out.size() == in.size() * dtype_info(dtype).block_bytes);
  std::byte* to = out.data();
  switch (dtype) {
    case DType::kF32:
      for (const float value : in) {
        store_le(std::bit_cast<uint32_t>(value), to);
        to += 4;
      }
      return;
    case DType::kF16:
      for (const float value : in) {
        store_le(f32_to_f16(value), to);
        to += 2;
      }
      return;
    case DType::kBF16:
      for (const float value : in) {
        store_le(f32_to_bf16(value), to);
        to += 2;
      }
      return;
    default: SLUICE_CHECK(!"encode_elements: only F32, F16 and BF16");
  }
}

std::optional<QuantFormat> lossless_affine(DType dtype) {
  const auto move = move_of(dtype);
  if (!move) return std::nullopt;
  return QuantFormat{QuantMode::kAffine, move->bits, 32};
}

bool move_lossless(DType dtype, std::span<const std::byte> in, const AffineRow& out) {
  const auto move = move_of(dtype);
  SLUICE_CHECK(move.has_value());
  const size_t block_bytes = dtype_info(dtype).block_bytes;
  SLUICE_CHECK(in.size() % block_bytes == 0);
  const size_t blocks = in.size() / block_bytes;
  const size_t packed_bytes = 32u * move->bits / 8;
  SLUICE_CHECK(out.weight.size() == blocks * packed_bytes);
  SLUICE_CHECK(out.scales.size() == blocks * 2 && out.biases.size() == blocks * 2);

  for (size_t i = 0; i < blocks; ++i) {
    Bytes block = in.data() + i * block_bytes;
    const uint16_t d_bits = load_le<uint16_t>(block);
    const float d = f16_to_f32(d_bits);
    uint16_t bias_bits;
    if (move->offset == 0) {
      bias_bits = load_le<uint16_t>(block + 2);
      if (!std::isfinite(f16_to_f32(bias_bits))) return false;
    } else {
      const float bias = static_cast<float>(-move->offset) * d;  // exact in f32
      bias_bits = f32_to_f16(bias);
      if (f16_to_f32(bias_bits) != bias) return false;  // overflow, or d is NaN
    }
    if (!std::isfinite(d)) return false;
    const Codes32 codes = codes_of(dtype, block);
    pack_codes(codes, move->bits, out.weight.subspan(i * packed_bytes, packed_bytes));
    store_le(d_bits, out.scales.data() + i * 2);
    store_le(bias_bits, out.biases.data() + i * 2);
  }
  return true;
}

}  // namespace sluice::numerics
