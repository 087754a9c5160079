#include "numerics/coded_row.h"

#include <cmath>

#include "base/error.h"
#include "numerics/affine.h"
#include "numerics/block_codec.h"
#include "numerics/bytes.h"
#include "numerics/fp.h"
#include "numerics/ggml_blocks.h"

namespace sluice::numerics {
namespace {

constexpr int kE2M1Offset = 12;  // six doubled
constexpr int kIq4Offset = 128;
constexpr uint8_t kDoubledE2M1[] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

// One block taken apart.
struct Parts {
  uint8_t* codes;
  float* scales;
  float* biases;
};

// Thirty-two elements under one scale; the first half in the low nibbles. high: fifth bits, or
// null.
void nibble_codes(Bytes nibbles, Bytes high, uint8_t* codes) {
  for (size_t i = 0; i < 32; ++i) {
    const unsigned low = load_u8(nibbles + i % 16) >> (i / 16 * 4) & 15u;
    const unsigned bit = high == nullptr ? 0 : load_u8(high + i / 8) >> (i % 8) & 1u;
    codes[i] = static_cast<uint8_t>(low | bit << 4);
  }
}

// Thirty-two elements whose nibbles stand for IQ4_NL's values.
void iq4_codes(Bytes nibbles, uint8_t* codes) {
  nibble_codes(nibbles, nullptr, codes);
  for (size_t i = 0; i < 32; ++i)
    codes[i] = static_cast<uint8_t>(kIq4Values[codes[i]] + kIq4Offset);
}

void table_block(DType dtype, Bytes block, const Parts& out) {
  if (dtype == DType::kMXFP4) {
    out.scales[0] = half_e8m0(load_u8(block));
    nibble_codes(block + 1, nullptr, out.codes);
    for (size_t i = 0; i < 32; ++i) out.codes[i] = kDoubledE2M1[out.codes[i]];
  } else if (dtype == DType::kIQ4_NL) {
    out.scales[0] = load_f16(block);
    iq4_codes(block + 2, out.codes);
  } else {
    for (size_t g = 0; g < 8; ++g) {
      out.scales[g] = load_f16(block) * static_cast<float>(iq4_xs_scale(block, g));
      iq4_codes(block + 8 + g * 16, out.codes + g * 32);
    }
  }
}

void small_block(DType dtype, Bytes block, const Parts& out) {
  const bool minimum = dtype == DType::kQ4_1 || dtype == DType::kQ5_1;
  out.scales[0] = load_f16(block);
  out.biases[0] = minimum ? load_f16(block + 2) : 0.0f;
  Bytes rest = block + (minimum ? 4 : 2);
  if (dtype == DType::kQ8_0) {
    for (size_t i = 0; i < 32; ++i) out.codes[i] = load_u8(rest + i) ^ 0x80;
  } else if (dtype == DType::kQ4_0 || dtype == DType::kQ4_1) {
    nibble_codes(rest, nullptr, out.codes);
  } else {
    nibble_codes(rest + 4, rest, out.codes);
  }
}

// Pair `index` of the bytes of its half: how Q2_K and Q3_K lie.
unsigned pair_of(Bytes pairs, size_t i) {
  return load_u8(pairs + i / 128 * 32 + i % 32) >> (i % 128 / 32 * 2) & 3u;
}

void q2_k_block(Bytes block, uint8_t* codes, BlockScales& out) {
  out.step = load_f16(block + 80);
  out.min_step = load_f16(block + 82);
  for (size_t g = 0; g < 16; ++g) {
    const uint8_t packed = load_u8(block + g);
    out.scales[g] = static_cast<int8_t>(packed & 15);
    out.mins[g] = static_cast<int8_t>(packed >> 4);
  }
  for (size_t i = 0; i < 256; ++i) codes[i] = static_cast<uint8_t>(pair_of(block + 16, i));
}

void q3_k_block(Bytes block, uint8_t* codes, BlockScales& out) {
  out.step = load_f16(block + 108);
  Bytes packed = block + 96;
  for (size_t g = 0; g < 16; ++g) {
    const unsigned low = load_u8(packed + g % 8) >> (g < 8 ? 0 : 4) & 15u;
    const unsigned high = load_u8(packed + 8 + g % 4) >> (2 * (g / 4)) & 3u;
    out.scales[g] = static_cast<int8_t>(static_cast<int>(low | high << 4) - 32);
  }
  for (size_t i = 0; i < 256; ++i) {
    const unsigned third = load_u8(block + i % 32) >> (i / 32) & 1u;
    codes[i] = static_cast<uint8_t>(pair_of(block + 32, i) | third << 2);
  }
}

void q4_q5_k_block(bool five, Bytes block, uint8_t* codes, BlockScales& out) {
  out.step = load_f16(block);
  out.min_step = load_f16(block + 2);
  const auto packed = [block](size_t i) { return unsigned{load_u8(block + 4 + i)}; };
  for (size_t g = 0; g < 8; ++g) {
    const unsigned scale =
        g < 4 ? packed(g) & 63 : (packed(g + 4) & 15) | (packed(g - 4) >> 6) << 4;
    const unsigned min = g < 4 ? packed(g + 4) & 63 : packed(g + 4) >> 4 | (packed(g) >> 6) << 4;
    out.scales[g] = static_cast<int8_t>(scale);
    out.mins[g] = static_cast<int8_t>(min);
  }
  Bytes nibbles = block + (five ? 48 : 16);
  for (size_t i = 0; i < 256; ++i) {
    const unsigned low = load_u8(nibbles + i / 64 * 32 + i % 32) >> (i / 32 % 2 * 4) & 15u;
    const unsigned bit = five ? load_u8(block + 16 + i % 32) >> (i / 32) & 1u : 0;
    codes[i] = static_cast<uint8_t>(low | bit << 4);
  }
}

void q6_k_block(Bytes block, uint8_t* codes, BlockScales& out) {
  out.step = load_f16(block + 208);
  for (size_t g = 0; g < 16; ++g) out.scales[g] = load_i8(block + 192 + g);
  for (size_t i = 0; i < 256; ++i) {
    const size_t half = i / 128, quarter = i % 128 / 32, l = i % 32;
    const unsigned low = load_u8(block + half * 64 + quarter % 2 * 32 + l) >> (quarter / 2 * 4);
    const unsigned high = load_u8(block + 128 + half * 32 + l) >> (2 * quarter) & 3u;
    codes[i] = static_cast<uint8_t>((low & 15u) | high << 4);
  }
}

void k_block(DType dtype, Bytes block, uint8_t* codes, BlockScales& out) {
  switch (dtype) {
    case DType::kQ2_K: return q2_k_block(block, codes, out);
    case DType::kQ3_K: return q3_k_block(block, codes, out);
    case DType::kQ6_K: return q6_k_block(block, codes, out);
    default: return q4_q5_k_block(dtype == DType::kQ5_K, block, codes, out);
  }
}

void block_parts(DType dtype, const CodedFormat& coded, Bytes block, const Parts& out) {
  switch (dtype) {
    case DType::kIQ4_NL:
    case DType::kIQ4_XS:
    case DType::kMXFP4: return table_block(dtype, block, out);
    default: break;
  }
  if (coded.block == 0) return small_block(dtype, block, out);
  BlockScales whole;
  k_block(dtype, block, out.codes, whole);
  for (size_t g = 0; g < coded.block / coded.group; ++g) {
    out.scales[g] = whole.step * static_cast<float>(whole.scales[g]);
    out.biases[g] = coded.has_bias ? -(whole.min_step * static_cast<float>(whole.mins[g])) : 0;
  }
}

std::optional<CodedFormat> coded_blocks(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0: return CodedFormat{32, 15, 8, false};
    case DType::kQ4_1: return CodedFormat{32, 15, 0, true};
    case DType::kQ5_0: return CodedFormat{32, 31, 16, false};
    case DType::kQ5_1: return CodedFormat{32, 31, 0, true};
    case DType::kQ8_0: return CodedFormat{32, 255, 128, false};
    case DType::kIQ4_NL:
    case DType::kIQ4_XS: return CodedFormat{32, 241, kIq4Offset, false};
    case DType::kMXFP4: return CodedFormat{32, 24, kE2M1Offset, false};
    case DType::kQ2_K: return CodedFormat{16, 3, 0, true, 256};
    case DType::kQ3_K: return CodedFormat{16, 7, 4, false, 256};
    case DType::kQ4_K: return CodedFormat{32, 15, 0, true, 256};
    case DType::kQ5_K: return CodedFormat{32, 31, 0, true, 256};
    case DType::kQ6_K: return CodedFormat{16, 63, 32, false, 256};
    default: return std::nullopt;
  }
}

void fp_parts(QuantMode mode, Bytes weight, Bytes scales, size_t columns, const Parts& out) {
  const bool nvfp4 = mode == QuantMode::kNvfp4;
  for (size_t i = 0; i < columns; ++i)
    out.codes[i] = kDoubledE2M1[load_u8(weight + i / 2) >> (i % 2 * 4) & 15u];
  for (size_t g = 0; g < columns / (nvfp4 ? 16 : 32); ++g) {
    const uint8_t byte = load_u8(scales + g);
    out.scales[g] = 0.5f * (nvfp4 ? e4m3_value(byte) : std::ldexp(1.0f, byte - 127));
  }
}

}  // namespace

std::optional<CodedFormat> coded_format(const WeightFormat& format) {
  switch (format.quant.mode) {
    case QuantMode::kFloat: return coded_blocks(format.dtype);
    case QuantMode::kAffine:
      return CodedFormat{format.quant.group_size, (1u << format.quant.bits) - 1, 0, true};
    case QuantMode::kMxfp4:
    case QuantMode::kNvfp4: return CodedFormat{format.quant.group_size, 24, kE2M1Offset, false};
    case QuantMode::kMxfp8: return std::nullopt;
  }
  return std::nullopt;
}

void take_row_apart(const WeightView& view, size_t row, std::span<uint8_t> codes,
                    std::span<float> scales, std::span<float> biases) {
  const auto coded = coded_format(view.format);
  SLUICE_CHECK(coded.has_value() && row < view.rows && codes.size() == view.columns);
  SLUICE_CHECK(scales.size() == view.columns / coded->group && biases.size() == scales.size());
  const EncodedBytes bytes = row_bytes(view.format, view.columns);
  Bytes weight = view.weight + row * bytes.weight;
  if (!coded->has_bias)
    for (float& bias : biases) bias = 0;
  if (view.format.quant.mode == QuantMode::kFloat) {
    const DTypeInfo& info = dtype_info(view.format.dtype);
    for (size_t i = 0; i < view.columns; i += info.block_elements) {
      const size_t g = i / coded->group;
      block_parts(view.format.dtype, *coded, weight + i / info.block_elements * info.block_bytes,
                  {codes.data() + i, scales.data() + g, biases.data() + g});
    }
    return;
  }
  Bytes row_scales = view.scales + row * bytes.scales;
  if (view.format.quant.mode != QuantMode::kAffine)
    return fp_parts(view.format.quant.mode, weight, row_scales, view.columns,
                    {codes.data(), scales.data(), biases.data()});
  unpack_codes({weight, bytes.weight}, view.format.quant.bits, codes);
  decode_elements(view.format.dtype, {row_scales, bytes.scales}, scales);
  decode_elements(view.format.dtype, {view.biases + row * bytes.biases, bytes.biases}, biases);
}

void take_blocks_apart(const WeightView& view, size_t row, std::span<uint8_t> codes,
                       std::span<BlockScales> blocks) {
  const auto coded = coded_format(view.format);
  SLUICE_CHECK(coded.has_value() && coded->block > 0 && row < view.rows);
  SLUICE_CHECK(codes.size() == view.columns && blocks.size() == view.columns / coded->block);
  Bytes weight = view.weight + row * row_bytes(view.format, view.columns).weight;
  for (size_t b = 0; b < blocks.size(); ++b)
    k_block(view.format.dtype, weight + b * dtype_info(view.format.dtype).block_bytes,
            codes.data() + b * coded->block, blocks[b]);
}

}  // namespace sluice::numerics
