// What a block's bytes decode to, and which of MLX's formats they move into as they are.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "numerics/block_codec.h"
#include "numerics/dtype.h"
#include "numerics/fp.h"
#include "stream/block_reader.h"

namespace sluice::stream {
namespace {

using io::Packing;
using io::PackingKind;

uint64_t blocks_of(uint64_t size, uint64_t side) { return size / side + (size % side != 0); }

numerics::ConstAffineRow affine_row(const ModuleSource& source, std::span<const std::byte> block,
                                    uint64_t rows, uint64_t r) {
  return {source.part_row(block, rows, 0, r), source.part_row(block, rows, 1, r),
          source.part_row(block, rows, 2, r)};
}

// Elements that have no type of their own among floats.
void decode_stored(numerics::DType dtype, std::span<const std::byte> in,
                   const SourceDecoders& decoders, std::span<float> out) {
  if (dtype != numerics::DType::kI8) return decoders.elements(dtype, in, out);
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<float>(std::to_integer<int8_t>(in[i]));
}

// The weights of all rows at once, then every row's by its scales.
void decode_scaled(const ModuleSource& source, std::span<const std::byte> block, uint64_t rows,
                   const SourceDecoders& decoders, std::span<float> values) {
  const Packing& packing = *source.packing;
  const uint64_t columns = values.size() / rows, span = source.columns_per_scale;
  const std::span<const std::byte> weights = block.first(rows * source.part_row_bytes[0]);
  decode_stored(packing.parts[0].dtype, weights, decoders, values);
  std::vector<float> scales(blocks_of(columns, span));
  for (uint64_t r = 0; r < rows; ++r) {
    decoders.elements(packing.parts[1].dtype, source.part_row(block, rows, 1, r), scales);
    const std::span<float> row = values.subspan(r * columns, columns);
    for (size_t begin = 0; begin < columns; begin += span)
      for (float& value : row.subspan(begin, std::min<size_t>(span, columns - begin)))
        value *= scales[begin / span];
  }
}

// Of one row of a kIntegers block: what its parts say, unpacked.
struct IntegerRow {
  std::vector<uint8_t> codes, zeros;  // zeros of groups, as meant
  std::vector<float> scales;
  std::vector<uint32_t> indices;  // empty: groups follow each other

  void read(const ModuleSource& source, std::span<const std::byte> block, uint64_t rows, uint64_t r,
            uint64_t columns, const DecodeFunction& elements);
  size_t group(uint64_t column, uint32_t span) const {
    return indices.empty() ? column / span : indices[column];
  }
};

void IntegerRow::read(const ModuleSource& source, std::span<const std::byte> block, uint64_t rows,
                      uint64_t r, uint64_t columns, const DecodeFunction& elements) {
  const Packing& packing = *source.packing;
  codes.resize(columns);
  numerics::unpack_codes(source.part_row(block, rows, 0, r), packing.bits, codes);
  const std::span<const std::byte> stored = source.part_row(block, rows, 1, r);
  scales.resize(stored.size() / dtype_info(packing.parts[1].dtype).block_bytes);
  elements(packing.parts[1].dtype, stored, scales);
  zeros.assign(scales.size(), packing.zero);
  if (packing.has_zeros) {
    const std::span<const std::byte> fields = source.part_row(block, rows, 2, r);
    const auto mask = static_cast<uint8_t>((1u << packing.bits) - 1);
    for (size_t g = 0; g < zeros.size(); ++g) {
      const auto byte = std::to_integer<uint8_t>(fields[packing.bits == 4 ? g / 2 : g]);
      const unsigned zero = packing.bits == 4 && g % 2 != 0 ? byte >> 4 : byte;
      zeros[g] = static_cast<uint8_t>((zero + packing.zeros_are_less_one) & mask);
    }
  }
  indices.clear();
  if (!packing.has_indices) return;
  indices.resize(columns);
  std::memcpy(indices.data(), source.part_row(block, rows, packing.indices_part(), r).data(),
              columns * sizeof(uint32_t));
}

void decode_integers(const ModuleSource& source, std::span<const std::byte> block, uint64_t rows,
                     const SourceDecoders& decoders, std::span<float> values) {
  const uint64_t columns = values.size() / rows;
  const uint32_t span = source.packing->columns_spanned;
  IntegerRow row;
  for (uint64_t r = 0; r < rows; ++r) {
    row.read(source, block, rows, r, columns, decoders.elements);
    const std::span<float> out = values.subspan(r * columns, columns);
    for (uint64_t begin = 0; begin < columns && row.indices.empty(); begin += span) {
      const float scale = row.scales[begin / span];
      const int zero = row.zeros[begin / span];
      for (uint64_t c = begin; c < std::min(columns, begin + span); ++c)
        out[c] = static_cast<float>(int{row.codes[c]} - zero) * scale;
    }
    // A group that does not exist is no number, which is refused where values are checked.
    for (uint64_t c = 0; c < row.indices.size(); ++c)
      out[c] = row.indices[c] < row.scales.size()
                   ? static_cast<float>(int{row.codes[c]} - int{row.zeros[row.indices[c]]}) *
                         row.scales[row.indices[c]]
                   : std::numeric_limits<float>::quiet_NaN();
  }
}

// The scales of one row of a kScaledNvfp4 block.
void read_nvfp4_scales(const ModuleSource& source, std::span<const std::byte> block, uint64_t rows,
                       uint64_t r, std::span<float> scales) {
  const std::span<const std::byte> stored = source.part_row(block, rows, 1, r);
  float factor;
  numerics::decode_elements(source.packing->parts[2].dtype, source.part_row(block, rows, 2, r),
                            std::span(&factor, 1));
  for (size_t g = 0; g < scales.size(); ++g) {
    const float scale = numerics::e4m3_value(std::to_integer<uint8_t>(stored[g]));
    scales[g] = source.packing->divides ? scale / factor : scale * factor;
  }
}

void decode_scaled_nvfp4(const ModuleSource& source, std::span<const std::byte> block,
                         uint64_t rows, std::span<float> values) {
  constexpr auto kOne = std::byte{0x38};  // of E4M3
  const uint64_t columns = values.size() / rows, span = source.packing->columns_spanned;
  std::vector<float> scales(columns / span);
  const std::vector<std::byte> ones(scales.size(), kOne);
  for (uint64_t r = 0; r < rows; ++r) {
    const std::span<float> row = values.subspan(r * columns, columns);
    numerics::decode_fp({source.part_row(block, rows, 0, r), ones}, source.packing->format, row);
    read_nvfp4_scales(source, block, rows, r, scales);
    for (size_t c = 0; c < columns; ++c) row[c] *= scales[c / span];
  }
}

// The same codes; scales of groups that are cut into smaller ones are repeated. Every code decodes
// to the source's value: scales and −zero·scale must be numbers of the model's type, and then, if
// scales have 16 bits, code·scale and its sum with the bias are exact in f32 as long as they are
// finite. Of f32 scales every code is tried.
bool move_integers(const ModuleSource& source, std::span<const std::byte> block, uint64_t rows,
                   uint64_t r, const numerics::QuantFormat& format, numerics::DType model_dtype,
                   const numerics::AffineRow& out) {
  const Packing& packing = *source.packing;
  const uint64_t group = format.group_size, columns = out.weight.size() * 8 / packing.bits;
  IntegerRow row;
  row.read(source, block, rows, r, columns, numerics::decode_elements);
  for (uint64_t c = 0; c < row.indices.size(); ++c)
    if (row.indices[c] != c / packing.columns_spanned) return false;
  std::ranges::copy(source.part_row(block, rows, 0, r), out.weight.begin());
  const size_t width = dtype_info(model_dtype).block_bytes;
  const int codes = 1 << packing.bits;
  for (uint64_t g = 0; g < columns / group; ++g) {
    const uint64_t from = g * group / packing.columns_spanned;
    const float scale = row.scales[from];
    const int zero = row.zeros[from];
    const float exact[] = {scale, -static_cast<float>(zero) * scale};
    float stored[2];
    const std::span<std::byte> places[] = {out.scales.subspan(g * width, width),
                                           out.biases.subspan(g * width, width)};
    for (size_t i = 0; i < 2; ++i) {
      numerics::encode_elements(model_dtype, std::span(exact + i, 1), places[i]);
      numerics::decode_elements(model_dtype, places[i], std::span(stored + i, 1));
      if (stored[i] != exact[i] || !std::isfinite(exact[i])) return false;
    }
    const bool every_code = packing.parts[1].dtype == numerics::DType::kF32;
    for (int code = every_code ? 0 : codes - 1; code < codes; ++code)
      if (static_cast<float>(code) * stored[0] + stored[1] !=
          static_cast<float>(code - zero) * scale)
        return false;
  }
  return true;
}

// Codes under a scale that is a power of two, the same for all of a group.
bool move_scaled_elements(const ModuleSource& source, std::span<const std::byte> block,
                          uint64_t rows, uint64_t r, const numerics::AffineRow& out) {
  constexpr int kBias = 127, kLargest = 254;
  const uint64_t columns = out.weight.size(), span = source.columns_per_scale;
  const uint64_t group = columns / out.scales.size();
  std::vector<float> scales(blocks_of(columns, span));
  numerics::decode_elements(source.packing->parts[1].dtype, source.part_row(block, rows, 1, r),
                            scales);
  std::ranges::copy(source.part_row(block, rows, 0, r), out.weight.begin());
  for (uint64_t g = 0; g < out.scales.size(); ++g) {
    const float scale = scales[g * group / span];
    for (uint64_t c = g * group; c < (g + 1) * group; ++c)
      if (scales[c / span] != scale) return false;
    int exponent = 0;
    if (std::frexp(scale, &exponent) != 0.5f) return false;
    exponent += kBias - 1;
    if (exponent < 0 || exponent > kLargest) return false;
    out.scales[g] = static_cast<std::byte>(exponent);
  }
  return true;
}

// Where the factor is a power of two, or happens to make numbers of E4M3 of all scales.
bool move_scaled_nvfp4(const ModuleSource& source, std::span<const std::byte> block, uint64_t rows,
                       uint64_t r, const numerics::AffineRow& out) {
  std::vector<float> scales(out.scales.size());
  read_nvfp4_scales(source, block, rows, r, scales);
  std::ranges::copy(source.part_row(block, rows, 0, r), out.weight.begin());
  for (size_t g = 0; g < scales.size(); ++g) {
    const uint8_t byte = numerics::nearest_e4m3(scales[g]);
    if (std::signbit(scales[g]) || numerics::e4m3_value(byte) != scales[g]) return false;
    out.scales[g] = std::byte{byte};
  }
  return true;
}

// The same codes in groups of MLX's, the largest first, in a model whose type has all the scales.
std::vector<numerics::QuantFormat> integer_formats(const Packing& packing,
                                                   numerics::DType model_dtype) {
  std::vector<numerics::QuantFormat> formats;
  const numerics::DType scales = packing.parts[1].dtype;
  if (!packing.in_order || (scales != model_dtype && model_dtype != numerics::DType::kF32))
    return {};
  for (const uint16_t group : numerics::kAffineGroups)
    if (packing.columns_spanned % group == 0)
      formats.insert(formats.begin(), {numerics::QuantMode::kAffine, packing.bits, group});
  return formats;
}

void reorder_columns(const families::ColumnOrder& order, uint64_t rows, std::span<float> values) {
  const uint64_t columns = values.size() / rows;
  SLUICE_CHECK(columns == order.outer * order.inner * order.width);
  std::vector<float> stored(columns);
  for (uint64_t r = 0; r < rows; ++r) {
    const std::span<float> row = values.subspan(r * columns, columns);
    std::ranges::copy(row, stored.begin());
    for (uint64_t i = 0; i < order.outer; ++i)
      for (uint64_t j = 0; j < order.inner; ++j)
        std::copy_n(stored.begin() + static_cast<ptrdiff_t>((j * order.outer + i) * order.width),
                    order.width,
                    row.begin() + static_cast<ptrdiff_t>((i * order.inner + j) * order.width));
  }
}

}  // namespace

std::span<const std::byte> ModuleSource::part_row(std::span<const std::byte> block, uint64_t rows,
                                                  uint32_t part, uint64_t r) const {
  uint64_t start = 0;
  for (uint32_t before = 0; before < part; ++before) start += rows * part_row_bytes[before];
  return block.subspan(start + r * part_row_bytes[part], part_row_bytes[part]);
}

bool is_decodable(const ModuleSource& source) { return dtype_info(source.dtype).is_float; }

void decode_block(const ModuleSource& source, std::span<const std::byte> block, uint64_t rows,
                  const SourceDecoders& decoders, std::span<float> values) {
  if (source.packing == nullptr) {
    decoders.elements(source.dtype, block, values);
    numerics::apply(source.step, source.dtype, values);
    if (!source.columns.in_order()) reorder_columns(source.columns, rows, values);
    return;
  }
  switch (source.packing->kind) {
    case PackingKind::kScaledElements: return decode_scaled(source, block, rows, decoders, values);
    case PackingKind::kIntegers: return decode_integers(source, block, rows, decoders, values);
    case PackingKind::kScaledNvfp4: return decode_scaled_nvfp4(source, block, rows, values);
    case PackingKind::kMlx: break;
  }
  const uint64_t columns = values.size() / rows;
  for (uint64_t r = 0; r < rows; ++r) {
    const std::span<float> row = values.subspan(r * columns, columns);
    if (numerics::is_fp(source.packing->format))
      numerics::decode_fp({source.part_row(block, rows, 0, r), source.part_row(block, rows, 1, r)},
                          source.packing->format, row);
    else
      decoders.affine(affine_row(source, block, rows, r), source.packing->format,
                      source.packing->parts[1].dtype, row);
  }
}

std::vector<numerics::QuantFormat> lossless_formats(const ModuleSource& source,
                                                    numerics::DType model_dtype) {
  if (!source.as_stored()) return {};
  if (source.packing != nullptr) {
    const Packing& packing = *source.packing;
    if (packing.kind == PackingKind::kScaledNvfp4) return {packing.format};
    if (packing.kind == PackingKind::kScaledElements &&
        packing.parts[0].dtype == numerics::DType::kF8E4M3)
      return {{numerics::QuantMode::kMxfp8, 8, 32}};
    if (packing.kind == PackingKind::kIntegers) return integer_formats(packing, model_dtype);
    if (packing.kind != PackingKind::kMlx) return {};
    if (packing.format.mode == numerics::QuantMode::kMxfp4)
      return {packing.format, numerics::kMxfp4AsAffine};
    if (is_fp(packing.format) || packing.parts[1].dtype == model_dtype) return {packing.format};
    return {};
  }
  auto format = numerics::lossless_fp(source.dtype);
  if (!format && model_dtype == numerics::DType::kF16)
    format = numerics::lossless_affine(source.dtype);
  return format ? std::vector{*format} : std::vector<numerics::QuantFormat>();
}

bool always_lossless(const ModuleSource& source, numerics::DType model_dtype) {
  if (source.packing == nullptr) return false;
  const Packing& packing = *source.packing;
  if (packing.kind == PackingKind::kMlx) return true;
  if (packing.kind != PackingKind::kIntegers || !packing.in_order) return false;
  // Zeros in the middle are powers of two.
  const bool middle = !packing.has_zeros || packing.symmetric;
  return packing.parts[1].dtype != numerics::DType::kF32 &&
         (middle || model_dtype == numerics::DType::kF32);
}

bool move_row(const ModuleSource& source, std::span<const std::byte> block, uint64_t rows,
              uint64_t r, const numerics::QuantFormat& format, numerics::DType model_dtype,
              const numerics::AffineRow& out) {
  if (source.packing == nullptr) {
    const std::span<const std::byte> in = source.part_row(block, rows, 0, r);
    return numerics::lossless_fp(source.dtype)
               ? numerics::move_lossless_fp(source.dtype, in, {out.weight, out.scales})
               : numerics::move_lossless(source.dtype, in, out);
  }
  if (source.packing->kind == PackingKind::kIntegers)
    return move_integers(source, block, rows, r, format, model_dtype, out);
  if (source.packing->kind == PackingKind::kScaledNvfp4)
    return move_scaled_nvfp4(source, block, rows, r, out);
  if (source.packing->kind == PackingKind::kScaledElements)
    return move_scaled_elements(source, block, rows, r, out);
  const numerics::ConstAffineRow in = affine_row(source, block, rows, r);
  if (format != source.packing->format)
    return numerics::mxfp4_to_affine({in.weight, in.scales}, model_dtype, out);
  std::ranges::copy(in.weight, out.weight.begin());
  std::ranges::copy(in.scales, out.scales.begin());
  std::ranges::copy(in.biases, out.biases.begin());
  return true;
}

}  // namespace sluice::stream
