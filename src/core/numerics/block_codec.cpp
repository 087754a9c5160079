// Decoding of stored elements to f32 and the exact moves of affine GGUF blocks. Scalar and
// obvious on purpose: this is the specification that the kernels must match bit for bit.
// Block layouts: docs/formats.md#gguf; arithmetic in the order ggml performs it, because every
// f32 rounding counts.
#include "numerics/block_codec.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "base/error.h"
#include "numerics/bytes.h"
#include "numerics/float_types.h"
#include "numerics/fp.h"
#include "numerics/ggml_blocks.h"

namespace sluice::numerics {
namespace {

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

// w = (code − offset)·d, or code·d + m where there is no offset.
struct Move {
  uint8_t bits;
  uint16_t group;  // ≤ block_elements, which may be several groups under one scale
  int offset;      // code = stored code; bias = −offset·d; 0: bias is the stored m
  size_t scale_at = 0;
};

std::optional<Move> move_of(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0: return Move{4, 32, 8};
    case DType::kQ4_1: return Move{4, 32, 0};
    case DType::kQ5_0: return Move{5, 32, 16};
    case DType::kQ5_1: return Move{5, 32, 0};
    case DType::kQ8_0: return Move{8, 32, 128};
    case DType::kIQ4_NL: return Move{8, 32, 128};
    case DType::kTQ1_0: return Move{2, 128, 1, 52};
    case DType::kTQ2_0: return Move{2, 128, 1, 64};
    case DType::kQ1_0: return Move{2, 128, 1};
    case DType::kQ2_0: return Move{2, 64, 1};
    default: return std::nullopt;
  }
}

constexpr size_t kMoveElementsMax = 256;

void copy_codes(const Codes32& from, uint8_t* codes) { std::ranges::copy(from, codes); }

// codes: block_elements of them.
void codes_of(DType dtype, Bytes block, uint8_t* codes) {
  switch (dtype) {
    case DType::kQ4_0: return copy_codes(codes4(block + 2), codes);
    case DType::kQ4_1: return copy_codes(codes4(block + 4), codes);
    case DType::kQ5_0: return copy_codes(codes5(block + 2, block + 6), codes);
    case DType::kQ5_1: return copy_codes(codes5(block + 4, block + 8), codes);
    case DType::kQ8_0:
      for (size_t j = 0; j < 32; ++j)
        codes[j] = static_cast<uint8_t>(load_u8(block + 2 + j) ^ 0x80u);
      return;
    case DType::kIQ4_NL: {
      const Codes32 indices = codes4(block + 2);
      for (size_t j = 0; j < 32; ++j) codes[j] = static_cast<uint8_t>(kIq4Values[indices[j]] + 128);
      return;
    }
    case DType::kTQ1_0: return codes_tq1_0(block, codes);
    case DType::kTQ2_0: return codes_tq2_0(block, codes);
    case DType::kQ1_0: return codes_q1_0(block, codes);
    case DType::kQ2_0: return codes_q2_0(block, codes);
    default: SLUICE_CHECK(!"codes_of: not a type that moves");
  }
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
    case DType::kF8E4M3: {
      // Computing a value takes several times as long as looking it up, and models come in these.
      std::array<float, 256> values;
      for (size_t i = 0; i < values.size(); ++i) values[i] = e4m3_value(static_cast<uint8_t>(i));
      return each([&values](Bytes b, float* o) { *o = values[load_u8(b)]; });
    }
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
    case DType::kQ2_K: return each(decode_q2_k);
    case DType::kQ3_K: return each(decode_q3_k);
    case DType::kIQ1_S: return each(decode_iq1_s);
    case DType::kIQ1_M: return each(decode_iq1_m);
    case DType::kIQ2_XXS: return each(decode_iq2_xxs);
    case DType::kIQ2_XS: return each(decode_iq2_xs);
    case DType::kIQ2_S: return each(decode_iq2_s);
    case DType::kIQ3_XXS: return each(decode_iq3_xxs);
    case DType::kIQ3_S: return each(decode_iq3_s);
    case DType::kIQ4_NL: return each(decode_iq4_nl);
    case DType::kIQ4_XS: return each(decode_iq4_xs);
    case DType::kTQ1_0: return each(decode_tq1_0);
    case DType::kTQ2_0: return each(decode_tq2_0);
    case DType::kQ1_0: return each(decode_q1_0);
    case DType::kQ2_0: return each(decode_q2_0);
    case DType::kMXFP4: return each(decode_mxfp4);
    case DType::kNVFP4: return each(decode_nvfp4);
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

void apply(ValueStep step, DType dtype, std::span<float> values) {
  for (float& value : values) {
    switch (step) {
      case ValueStep::kNone: continue;
      case ValueStep::kAddOne: value += 1; break;
      case ValueStep::kSubtractOne: value -= 1; break;
      // The one correctly rounded logarithm of a float, on every machine: that of the double.
      case ValueStep::kLogOfMinus: value = static_cast<float>(std::log(-double{value})); break;
    }
    if (dtype == DType::kF16) value = f16_to_f32(f32_to_f16(value));
    if (dtype == DType::kBF16) value = bf16_to_f32(f32_to_bf16(value));
  }
}

std::optional<QuantFormat> lossless_affine(DType dtype) {
  const auto move = move_of(dtype);
  if (!move) return std::nullopt;
  return QuantFormat{QuantMode::kAffine, move->bits, move->group};
}

bool move_lossless(DType dtype, std::span<const std::byte> in, const AffineRow& out) {
  const auto move = move_of(dtype);
  SLUICE_CHECK(move.has_value());
  const DTypeInfo& info = dtype_info(dtype);
  SLUICE_CHECK(in.size() % info.block_bytes == 0);
  const size_t blocks = in.size() / info.block_bytes;
  const size_t groups = info.block_elements / move->group;
  const size_t packed_bytes = size_t{info.block_elements} * move->bits / 8;
  SLUICE_CHECK(out.weight.size() == blocks * packed_bytes);
  SLUICE_CHECK(out.scales.size() == blocks * groups * 2 && out.biases.size() == out.scales.size());

  uint8_t codes[kMoveElementsMax];
  for (size_t i = 0; i < blocks; ++i) {
    Bytes block = in.data() + i * info.block_bytes;
    const uint16_t d_bits = load_le<uint16_t>(block + move->scale_at);
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
    codes_of(dtype, block, codes);
    pack_codes(std::span(codes).first(info.block_elements), move->bits,
               out.weight.subspan(i * packed_bytes, packed_bytes));
    for (size_t g = i * groups; g < (i + 1) * groups; ++g) {
      store_le(d_bits, out.scales.data() + g * 2);
      store_le(bias_bits, out.biases.data() + g * 2);
    }
  }
  return true;
}

namespace {

// How the blocks of an fp type lie: scales first, then groups whose low nibbles are the first half
// of the elements. ggml's values are doubled and its scales halved, which cancels out.
struct FpBlocks {
  QuantFormat format;
  size_t groups;
};

std::optional<FpBlocks> fp_blocks_of(DType dtype) {
  switch (dtype) {
    case DType::kMXFP4: return FpBlocks{{QuantMode::kMxfp4, 4, 32}, 1};
    case DType::kNVFP4: return FpBlocks{{QuantMode::kNvfp4, 4, 16}, 4};
    default: return std::nullopt;
  }
}

// Scales that both sides read alike. ggml takes E4M3 for unsigned and its NaN for 0.
bool same_scale(uint8_t scale, QuantMode mode) {
  return mode == QuantMode::kMxfp4 ? scale != 0xff : scale < 0x7f;
}

// ggml has no −0: code 8 is 0 to it.
uint8_t without_negative_zero(uint8_t code) { return code == 8 ? uint8_t{0} : code; }

}  // namespace

std::optional<QuantFormat> lossless_fp(DType dtype) {
  const auto blocks = fp_blocks_of(dtype);
  if (!blocks) return std::nullopt;
  return blocks->format;
}

bool move_lossless_fp(DType dtype, std::span<const std::byte> in, const FpRow& out) {
  const auto layout = fp_blocks_of(dtype);
  SLUICE_CHECK(layout.has_value());
  const size_t block_bytes = dtype_info(dtype).block_bytes;
  const size_t blocks = in.size() / block_bytes, size = layout->format.group_size;
  SLUICE_CHECK(in.size() % block_bytes == 0);
  SLUICE_CHECK(out.scales.size() == blocks * layout->groups);
  SLUICE_CHECK(out.weight.size() == out.scales.size() * size / 2);
  uint8_t codes[32];
  for (size_t group = 0; group < out.scales.size(); ++group) {
    Bytes block = in.data() + group / layout->groups * block_bytes;
    const size_t place = group % layout->groups;
    out.scales[group] = block[place];
    if (!same_scale(load_u8(block + place), layout->format.mode)) return false;
    Bytes nibbles = block + layout->groups + place * (size / 2);
    for (size_t j = 0; j < size / 2; ++j) {
      codes[j] = without_negative_zero(load_u8(nibbles + j) & 0x0f);
      codes[j + size / 2] = without_negative_zero(load_u8(nibbles + j) >> 4);
    }
    pack_codes({codes, size}, 4, out.weight.subspan(group * (size / 2), size / 2));
  }
  return true;
}

}  // namespace sluice::numerics
