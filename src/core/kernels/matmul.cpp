#include "kernels/matmul.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "base/error.h"
#include "kernels/decode.h"
#include "kernels/kernel_table.h"
#include "kernels/matmul_model.h"
#include "kernels/raw_matmul.h"
#include "numerics/block_codec.h"

namespace sluice::kernels {
namespace {

using numerics::DType;
using numerics::EncodedBytes;
using numerics::QuantMode;
using numerics::WeightFormat;
using numerics::WeightView;

constexpr size_t kDecodedRows = 16;  // of formats that are decoded first

size_t round_up(size_t value, size_t step) { return (value + step - 1) / step * step; }

std::optional<Element> element_of(DType dtype) {
  switch (dtype) {
    case DType::kF32: return kElementF32;
    case DType::kF16: return kElementF16;
    case DType::kBF16: return kElementBF16;
    default: return std::nullopt;
  }
}

RawCoding affine_coding(unsigned bits) {
  switch (bits) {
    case 2: return kAffine2;
    case 3: return kAffine3;
    case 4: return kAffine4;
    case 5: return kAffine5;
    case 6: return kAffine6;
    default: return kAffine8;
  }
}

RawCoding block_coding(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0: return kQ4_0Blocks;
    case DType::kQ4_1: return kQ4_1Blocks;
    case DType::kQ5_0: return kQ5_0Blocks;
    case DType::kQ5_1: return kQ5_1Blocks;
    case DType::kQ8_0: return kQ8_0Blocks;
    case DType::kQ2_K: return kQ2KBlocks;
    case DType::kQ3_K: return kQ3KBlocks;
    case DType::kQ4_K: return kQ4KBlocks;
    case DType::kQ5_K: return kQ5KBlocks;
    case DType::kQ6_K: return kQ6KBlocks;
    case DType::kIQ4_NL: return kIQ4NLBlocks;
    case DType::kIQ4_XS: return kIQ4XSBlocks;
    case DType::kMXFP4: return kMXFP4Blocks;
    default: break;
  }
  SLUICE_CHECK(!"a coded block type");
  return kCodings;
}

RawCoding coding_of(const WeightFormat& format) {
  switch (format.quant.mode) {
    case QuantMode::kFloat: return block_coding(format.dtype);
    case QuantMode::kAffine: return affine_coding(format.quant.bits);
    case QuantMode::kMxfp4: return kMxfp4Codes;
    case QuantMode::kNvfp4: return kNvfp4Codes;
    case QuantMode::kMxfp8: break;
  }
  SLUICE_CHECK(!"a coded format");
  return kCodings;
}

bool stored_as_floats(const WeightFormat& format) {
  return format.quant.mode == QuantMode::kFloat && element_of(format.dtype).has_value();
}

// 1 KiB of eight streams and the activations, beside what is being computed.
bool roomy_inner_cache() {
  static const bool kRoomy = detect_cpu().inner_cache_bytes >= 48 << 10;
  return kRoomy;
}

const uint8_t* raw(const std::byte* bytes) { return reinterpret_cast<const uint8_t*>(bytes); }

// What all products of one call share; rows are counted from row_begin.
RawMatmul raw_matmul(const WeightView& w, const PreparedLayout& layout, const std::byte* prepared,
                     size_t tokens, size_t row_begin, size_t row_end, float* y, size_t y_stride,
                     std::byte* scratch) {
  const EncodedBytes bytes = row_bytes(w.format, w.columns);
  RawMatmul m{};
  m.weight = raw(w.weight) + row_begin * bytes.weight;
  m.weight_stride = bytes.weight;
  m.scale_stride = bytes.scales;
  if (bytes.scales > 0) m.scales = raw(w.scales) + row_begin * bytes.scales;
  // Formats without biases never read them; the pointer only has to be one.
  m.biases = bytes.biases > 0 ? raw(w.biases) + row_begin * bytes.biases : m.scales;
  m.rows = row_end - row_begin;
  m.columns = w.columns;
  m.groups = layout.groups;
  m.group = static_cast<int>(layout.group);
  m.roomy = roomy_inner_cache();
  m.element = element_of(w.format.dtype).value_or(kElementF32);
  m.prepared = raw(prepared);
  m.prepared_stride = layout.bytes;
  m.scales_at = layout.scales_at;
  m.sums_at = layout.sums_at;
  m.tokens = tokens;
  m.y = y;
  m.y_stride = y_stride;
  m.scratch = reinterpret_cast<uint8_t*>(scratch);
  return m;
}

// One row to f32 with the fastest decoder there is.
void decode_to(const KernelTable& table, const WeightView& w, size_t row, std::span<float> out) {
  const EncodedBytes bytes = row_bytes(w.format, w.columns);
  const auto part = [row](const std::byte* from, size_t size) {
    return std::span<const std::byte>(size == 0 ? from : from + row * size, size);
  };
  const auto weight = part(w.weight, bytes.weight), scales = part(w.scales, bytes.scales);
  if (w.format.quant.mode == QuantMode::kAffine)
    table.decode_affine({weight, scales, part(w.biases, bytes.biases)}, w.format.quant,
                        w.format.dtype, out);
  else if (w.format.quant.mode == QuantMode::kFloat)
    element_decoder(table)(w.format.dtype, weight, out);
  else
    table.decode_fp({weight, scales}, w.format.quant, out);
}

// Some rows at a time into scratch, and from there as floats.
void matmul_decoded(SimdLevel level, const RawMatmulOps& ops, const WeightView& w, size_t row_begin,
                    RawMatmul m) {
  const KernelTable& table = kernel_table(level);
  auto* decoded = reinterpret_cast<float*>(m.scratch);
  const size_t rows = m.rows;
  m.weight = m.scratch;
  m.weight_stride = w.columns * 4;
  m.element = kElementF32;
  for (size_t first = 0; first < rows; first += kDecodedRows) {
    m.rows = std::min(kDecodedRows, rows - first);
    for (size_t i = 0; i < m.rows; ++i)
      decode_to(table, w, row_begin + first + i, {decoded + i * w.columns, w.columns});
    ops.floats(m);
    m.y += kDecodedRows;
  }
}

// What lies within a set: the first processors with AVX-512 lack its byte products, and the next
// ones its byte permutations. The fastest first.
std::vector<MatmulTable> make_tables(SimdLevel level) {
  std::vector<MatmulTable> tables;
  const auto add = [&](SimdLevel of, const RawMatmulOps* ops) {
    if (ops != nullptr) tables.emplace_back(of, ops);
  };
  if (level == SimdLevel::kAvx512) {
    add(level, avx512_vbmi_matmul_ops());
    add(level, avx512_matmul_ops());
    if (tables.empty()) add(SimdLevel::kAvx2, avx2_matmul_ops());
  }
  if (level == SimdLevel::kAvx2) add(level, avx2_matmul_ops());
  if (level == SimdLevel::kNeon) add(level, neon_matmul_ops());
  if (tables.empty()) tables.emplace_back(SimdLevel::kScalar, nullptr);
  return tables;
}

}  // namespace

Activations auto_activations(const WeightFormat& format, bool precise) {
  const auto coded = numerics::coded_format(format);
  if (!coded) return Activations::kF32;
  return precise || coded->code_max > 31 ? Activations::kI16 : Activations::kI8;
}

Activations taken_activations(const WeightFormat& format, Activations asked) {
  return numerics::coded_format(format) ? asked : Activations::kF32;
}

size_t row_step(const WeightFormat&, Activations) { return kMatmulRowStep; }

size_t MatmulTable::prepared_bytes(const WeightFormat& format, Activations activations,
                                   size_t columns) const {
  return prepared_layout(format, activations, columns).bytes;
}

void MatmulTable::prepare(const WeightFormat& format, Activations activations,
                          std::span<const float> x, std::byte* out) const {
  const PreparedLayout layout = prepared_layout(format, activations, x.size());
  if (ops_ == nullptr || layout.activations == Activations::kF32)
    return prepare_model(layout, x, out);
  std::memset(out, 0, layout.bytes);
  auto* bytes = reinterpret_cast<uint8_t*>(out);
  ops_->prepare({x.data(), x.size(), static_cast<int>(layout.group), layout.wide,
                 layout.activations == Activations::kI8 ? 127.0f : 32767.0f, !layout.coded.has_bias,
                 layout.coded.offset, layout.blocks ? static_cast<int>(layout.coded.group) : 0,
                 ops_->position(coding_of(format), layout.wide),
                 reinterpret_cast<float*>(bytes + layout.scales_at), bytes,
                 bytes + layout.sums_at});
}

void MatmulTable::decode_row(const WeightView& w, size_t row, std::span<float> out) const {
  SLUICE_CHECK(row < w.rows && out.size() == w.columns);
  decode_to(kernel_table(level_), w, row, out);
}

size_t MatmulTable::scratch_bytes(const WeightFormat& format, Activations activations,
                                  size_t columns, size_t) const {
  const PreparedLayout layout = prepared_layout(format, activations, columns);
  if (ops_ == nullptr) return scratch_bytes_model(layout, columns);
  if (layout.activations != Activations::kF32)  // a panel
    return round_up(columns, 32) * kMatmulRowStep +
           layout.groups * (layout.blocks ? kBlockPanelBytes : 2 * kMatmulRowStep * 4);
  return stored_as_floats(format) ? 64 : round_up(kDecodedRows * columns * 4, 64);
}

void MatmulTable::matmul(const WeightView& w, Activations activations, const std::byte* prepared,
                         size_t tokens, size_t row_begin, size_t row_end, float* y, size_t y_stride,
                         std::byte* scratch) const {
  SLUICE_CHECK(row_begin <= row_end && row_end <= w.rows && y_stride >= row_end - row_begin);
  SLUICE_CHECK(row_begin % row_step(w.format, activations) == 0);
  if (row_begin == row_end || tokens == 0) return;
  const PreparedLayout layout = prepared_layout(w.format, activations, w.columns);
  if (ops_ == nullptr)
    return matmul_model(w, layout, prepared, tokens, row_begin, row_end, y, y_stride, scratch);
  const RawMatmul m =
      raw_matmul(w, layout, prepared, tokens, row_begin, row_end, y, y_stride, scratch);
  if (layout.activations != Activations::kF32)
    ops_->coded(coding_of(w.format), layout.wide, layout.blocks, m);
  else if (stored_as_floats(w.format))
    ops_->floats(m);
  else if (w.format.quant.mode == QuantMode::kMxfp8 && tokens == 1)
    ops_->mxfp8(m);
  else
    matmul_decoded(level_, *ops_, w, row_begin, m);
}

uint64_t MatmulTable::multiply_only(Activations activations, uint64_t count) const {
  if (ops_ == nullptr) return 0;
  switch (activations) {
    case Activations::kF32: return ops_->multiply_only(kFloatProducts, count);
    case Activations::kI16: return ops_->multiply_only(kWordProducts, count);
    case Activations::kI8: return ops_->multiply_only(kByteProducts, count);
  }
  return 0;
}

std::span<const MatmulTable> matmul_tables(SimdLevel level) {
  static const std::vector<MatmulTable> kScalar = make_tables(SimdLevel::kScalar);
  static const std::vector<MatmulTable> kNeon = make_tables(SimdLevel::kNeon);
  static const std::vector<MatmulTable> kAvx2 = make_tables(SimdLevel::kAvx2);
  static const std::vector<MatmulTable> kAvx512 = make_tables(SimdLevel::kAvx512);
  switch (level) {
    case SimdLevel::kNeon: return kNeon;
    case SimdLevel::kAvx2: return kAvx2;
    case SimdLevel::kAvx512: return kAvx512;
    case SimdLevel::kScalar: break;
  }
  return kScalar;
}

const MatmulTable& matmul_table(SimdLevel level) { return matmul_tables(level).front(); }

}  // namespace sluice::kernels
