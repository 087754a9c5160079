// Codes, scales and biases of MLX's own folders, and the MXFP4 blocks of gpt-oss.
#include <algorithm>

#include "base/checked.h"
#include "io/packed_joiner.h"

namespace sluice::io {
namespace {

using numerics::DType;
using numerics::QuantFormat;
using numerics::QuantMode;
using numerics::Shape;

constexpr std::string_view kWeight = ".weight", kScales = ".scales", kBiases = ".biases";
constexpr std::string_view kMxfp4Codes = "_blocks", kMxfp4Scales = "_scales";

struct Defaults {
  int64_t bits = 4, group_size = 64;
};

// What MLX takes where an entry leaves a number out or has null, as mlx_lm's mixed recipes write.
Defaults defaults_of(std::string_view mode) {
  for (const QuantFormat& format : numerics::kFpFormats)
    if (mode == numerics::quant_mode_name(format.mode)) return {format.bits, format.group_size};
  return {};
}

// An entry for the path decides, else the global settings, as in mlx_lm's loader.
Result<QuantFormat> format_of(const Joiner& joiner, const Json& quantization,
                              const std::string& path) {
  const Json* entry = json_find(quantization, path);
  if (entry != nullptr && !entry->is_object())
    return fail(ErrorCode::kCorrupt, "{}: quantization says {} for {}, which has scales",
                joiner.label(), dump_json(*entry), path);
  const Json& settings = entry != nullptr ? *entry : quantization;
  const std::string where = joiner.label() + ": quantization";
  std::string mode(numerics::quant_mode_name(QuantMode::kAffine));
  if (json_find(settings, "mode") != nullptr) {
    SLUICE_ASSIGN(mode, json_string(settings, "mode", where));
  }
  const auto number = [&](std::string_view key, int64_t max, int64_t usual) -> Result<int64_t> {
    const Json* value = json_find(settings, key);
    if (entry != nullptr && (value == nullptr || value->is_null())) return usual;
    return json_int(settings, key, 1, max, where);
  };
  const Defaults usual = defaults_of(mode);
  SLUICE_ASSIGN(const int64_t bits, number("bits", 8, usual.bits));
  SLUICE_ASSIGN(const int64_t group, number("group_size", 1024, usual.group_size));
  const bool affine = mode == numerics::quant_mode_name(QuantMode::kAffine);
  const auto format = numerics::parse_format(affine ? fmt::format("{}/{}", bits, group) : mode);
  if (!format || format->bits != bits || format->group_size != group)
    return fail(ErrorCode::kUnsupported, "{}: mode {} of {} bits and group {} is not known", where,
                mode, bits, group);
  return *format;
}

Status join_weight(Joiner& joiner, const QuantFormat& format, StoredTensor& weight,
                   StoredTensor& scales, StoredTensor* biases) {
  const std::string how = " at " + numerics::format_text(format);
  const bool affine = format.mode == QuantMode::kAffine;
  if (affine && biases == nullptr)
    return fail(ErrorCode::kCorrupt, "{}: {} has scales but no biases", joiner.path(),
                weight.info.name);
  const Shape& packed = weight.info.shape;
  const bool good_type =
      affine ? is_plain_float(scales.info.dtype) : scales.info.dtype == DType::kU8;
  if (packed.size() < 2 || !good_type || scales.info.shape.size() != packed.size())
    return joiner.misfit(scales, weight, how);
  Shape shape = scales.info.shape;
  const auto columns = checked_mul(shape.back(), format.group_size);
  const auto bits = columns ? checked_mul(*columns, format.bits) : std::nullopt;
  const auto packed_bits = checked_mul(packed.back(), 32);
  shape.back() = columns.value_or(0);
  if (!bits || !packed_bits || *bits != *packed_bits || *bits == 0 ||
      !std::equal(packed.begin(), packed.end() - 1, shape.begin()) ||
      !numerics::element_count(shape))
    return joiner.misfit(scales, weight, how);
  if (affine &&
      (biases->info.shape != scales.info.shape || biases->info.dtype != scales.info.dtype))
    return joiner.misfit(*biases, weight, how);

  Packing packing{.kind = PackingKind::kMlx,
                  .format = format,
                  .model_dtype = affine ? scales.info.dtype : DType::kBF16,
                  .parts = {part_of(weight), part_of(scales)},
                  .part_count = 2};
  if (affine) packing.parts[packing.part_count++] = part_of(*biases);
  joiner.pack(weight, std::move(shape), packing, {&scales, affine ? biases : nullptr});
  return {};
}

// Blocks of 32 codes, low half of a byte first, each block with its exponent: MLX's mxfp4 byte for
// byte, but that the codes have an axis for the blocks and one for their bytes.
Status join_blocks(Joiner& joiner, StoredTensor& blocks, StoredTensor& scales) {
  const QuantFormat format{QuantMode::kMxfp4, 4, 32};
  constexpr uint64_t kBytesOfBlock = 16;
  Shape shape = scales.info.shape, expected = scales.info.shape;
  expected.push_back(kBytesOfBlock);
  const auto columns =
      shape.empty() ? std::nullopt : checked_mul(shape.back(), uint64_t{format.group_size});
  if (shape.size() < 2 || blocks.info.shape != expected || !columns || *columns == 0 ||
      blocks.info.dtype != DType::kU8 || scales.info.dtype != DType::kU8)
    return joiner.misfit(scales, blocks, "");
  Packing packing{.kind = PackingKind::kMlx,
                  .format = format,
                  .parts = {part_of(blocks), part_of(scales)},
                  .part_count = 2};
  packing.parts[0].row_bytes = shape.back() * kBytesOfBlock;
  shape.back() = *columns;
  if (!numerics::element_count(shape))
    return fail(ErrorCode::kCorrupt, "{}: {} has too many elements", joiner.path(),
                described(blocks));
  joiner.pack(blocks, std::move(shape), packing, {&scales});
  return {};
}

}  // namespace

Status join_mlx(Joiner& joiner, const Json& quantization) {
  for (StoredTensor& scales : joiner.tensors()) {
    const std::string& name = scales.info.name;
    if (!name.ends_with(kScales)) continue;
    const std::string path = name.substr(0, name.size() - kScales.size());
    StoredTensor* weight = joiner.find(path, kWeight);
    if (weight == nullptr || weight->info.dtype != DType::kU32) continue;
    SLUICE_ASSIGN(const QuantFormat format, format_of(joiner, quantization, path));
    SLUICE_TRY(join_weight(joiner, format, *weight, scales, joiner.find(path, kBiases)));
  }
  return {};
}

Status join_mxfp4_blocks(Joiner& joiner) {
  for (StoredTensor& scales : joiner.tensors()) {
    const std::string& name = scales.info.name;
    if (!name.ends_with(kMxfp4Scales)) continue;
    StoredTensor* blocks =
        joiner.find(name.substr(0, name.size() - kMxfp4Scales.size()), kMxfp4Codes);
    if (blocks == nullptr)
      return fail(ErrorCode::kCorrupt, "{}: {} has no {} beside it", joiner.path(), name,
                  kMxfp4Codes.substr(1));
    SLUICE_TRY(join_blocks(joiner, *blocks, scales));
  }
  return {};
}

}  // namespace sluice::io
