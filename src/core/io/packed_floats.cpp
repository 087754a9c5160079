// 8-bit floats and integers with scales, NVFP4 and MXFP4, as vLLM, compressed-tensors and modelopt
// name their parts.
#include <algorithm>
#include <optional>
#include <vector>

#include "base/checked.h"
#include "io/packed_joiner.h"

namespace sluice::io {
namespace {

using numerics::DType;
using numerics::QuantFormat;
using numerics::QuantMode;
using numerics::Shape;

constexpr std::string_view kScaleInv = "_scale_inv", kScale = "_scale", kPacked = "_packed";
constexpr int64_t kBlockSideMax = 4096;

// Of activations and caches, which a model of weights has no place for; and a shape that follows
// from the codes.
constexpr std::string_view kUnused[] = {
    ".input_scale",  ".input_scale_ub", ".output_scale", ".input_global_scale",
    ".weight_shape", ".k_scale",        ".v_scale",      ".q_scale"};

// Of compressed-tensors.
constexpr std::string_view kKnownFormats[] = {"dense",
                                              "pack-quantized",
                                              "float-quantized",
                                              "naive-quantized",
                                              "int-quantized",
                                              "nvfp4-pack-quantized",
                                              "mxfp4-pack-quantized",
                                              "mxfp8-quantized",
                                              "mxfp8-pack-quantized",
                                              "mixed-precision"};

// Rows and columns that share a scale.
struct Sides {
  uint64_t rows = 1, columns = 1;
};

bool is_small_element(DType dtype) {
  return dtype == DType::kF8E4M3 || dtype == DType::kF8E5M2 || dtype == DType::kI8;
}

bool is_exponent(DType dtype) { return dtype == DType::kU8 || dtype == DType::kF8E8M0; }

bool fits_32_bits(uint64_t value) { return value <= UINT32_MAX; }

Result<std::optional<Sides>> sides_from(const Json* size, std::string_view key,
                                        const std::string& where) {
  if (size == nullptr || size->is_null()) return std::nullopt;
  if (!size->is_array() || size->size() != 2)
    return fail(ErrorCode::kUnsupported, "{}: {} should be two numbers", where, key);
  uint64_t sides[2] = {};
  for (size_t i = 0; i < 2; ++i) {
    const Json holder{{key, (*size)[i]}};
    SLUICE_ASSIGN(const int64_t side, json_int(holder, key, 1, kBlockSideMax, where));
    sides[i] = static_cast<uint64_t>(side);
  }
  return Sides{sides[0], sides[1]};
}

// Of scales by block; nothing where the configuration has none.
Result<std::optional<Sides>> block_sides(const Joiner& joiner, const Json& settings) {
  const std::string where = joiner.label() + ": quantization_config";
  constexpr std::string_view kKey = "weight_block_size", kGroupKey = "block_structure";
  SLUICE_ASSIGN(std::optional<Sides> sides, sides_from(json_find(settings, kKey), kKey, where));
  const Json* groups = json_find(settings, "config_groups");
  if (sides || groups == nullptr || !groups->is_object()) return sides;
  for (const auto& [name, group] : groups->items()) {
    const Json* weights = json_find(group, "weights");
    if (weights == nullptr || !weights->is_object()) continue;
    const Json* size = json_find(*weights, kGroupKey);
    if (size != nullptr && size->is_string()) continue;  // "128x128", an older spelling
    SLUICE_ASSIGN(const auto found, sides_from(size, kGroupKey, where));
    if (found) sides = found;
  }
  return sides;
}

uint64_t blocks(uint64_t size, uint64_t side) { return size / side + (size % side != 0); }

// How scales of that shape spread over a weight [.., N, K]: one for all, for each row, for each row
// or column of a matrix, or by block.
std::optional<Sides> spread(const Shape& weight, const Shape& scales,
                            const std::optional<Sides>& block) {
  const uint64_t rows = weight[weight.size() - 2], columns = weight.back();
  const uint64_t all_rows = numerics::element_count(weight).value_or(0) / columns;
  if (numerics::element_count(scales) == 1) return Sides{all_rows, columns};
  if (scales.size() == 1 && weight.size() == 2 && scales[0] == rows) return Sides{1, columns};
  if (scales.size() != weight.size() ||
      !std::equal(weight.begin(), weight.end() - 2, scales.begin()))
    return std::nullopt;
  const uint64_t down = scales[scales.size() - 2], across = scales.back();
  if (block && down == blocks(rows, block->rows) && across == blocks(columns, block->columns) &&
      (weight.size() == 2 || rows % block->rows == 0))
    return block;
  if (down == rows && across == 1) return Sides{1, columns};
  if (down == 1 && across == 1) return Sides{rows, columns};
  if (down == 1 && across == columns) return Sides{rows, 1};
  return std::nullopt;
}

std::string blocks_text(const std::optional<Sides>& block) {
  return block ? fmt::format(" in blocks of {}×{}", block->rows, block->columns) : std::string();
}

Status join_elements(Joiner& joiner, const std::optional<Sides>& block, StoredTensor& weight,
                     StoredTensor& scales) {
  const Shape& shape = weight.info.shape;
  const bool exponents = is_exponent(scales.info.dtype);
  std::optional<Sides> sides;
  if (is_small_element(weight.info.dtype) && shape.size() >= 2 && shape.back() > 0 &&
      numerics::element_count(shape).value_or(0) > 0 &&
      (exponents || is_plain_float(scales.info.dtype)))
    sides = spread(shape, scales.info.shape, block);
  const QuantFormat mxfp8{QuantMode::kMxfp8, 8, 32};
  if (!sides && exponents && weight.info.dtype == DType::kF8E4M3 && shape.size() >= 2) {
    // MLX's mxfp8, byte for byte.
    Shape values = scales.info.shape;
    if (values.size() == shape.size()) values.back() = checked_mul(values.back(), 32).value_or(0);
    if (values != shape) return joiner.misfit(scales, weight, blocks_text(block));
    joiner.pack(weight, values,
                {.kind = PackingKind::kMlx,
                 .format = mxfp8,
                 .parts = {part_of(weight), part_of(scales)},
                 .part_count = 2},
                {&scales});
    return {};
  }
  if (!sides || !fits_32_bits(sides->rows) || !fits_32_bits(sides->columns))
    return joiner.misfit(scales, weight, blocks_text(block));
  PackedPart part = part_of(scales, static_cast<uint32_t>(sides->rows));
  if (exponents) part.dtype = DType::kF8E8M0;
  part.row_bytes = blocks(shape.back(), sides->columns) * dtype_info(part.dtype).block_bytes;
  joiner.pack(weight, shape,
              {.kind = PackingKind::kScaledElements,
               .columns_spanned = static_cast<uint32_t>(sides->columns),
               .model_dtype = scales.info.dtype == DType::kF16 ? DType::kF16 : DType::kBF16,
               .parts = {part_of(weight), part},
               .part_count = 2},
              {&scales});
  return {};
}

// The values' shape of two codes a byte, and scales for groups of that many.
std::optional<Shape> fp4_shape(const Shape& codes, const Shape& scales, uint64_t group) {
  if (codes.size() < 2 || scales.size() != codes.size()) return std::nullopt;
  Shape shape = codes, from_scales = scales;
  const auto columns = checked_mul(shape.back(), 2), grouped = checked_mul(scales.back(), group);
  if (!columns || !grouped || *columns == 0) return std::nullopt;
  shape.back() = *columns;
  from_scales.back() = *grouped;
  if (shape != from_scales || numerics::element_count(shape).value_or(0) == 0) return std::nullopt;
  return shape;
}

// stem: the name that the model knows, "P.weight".
Status join_fp4(Joiner& joiner, const std::string& stem, StoredTensor& codes, StoredTensor& scales,
                bool divides) {
  const bool mxfp4 = is_exponent(scales.info.dtype);
  const QuantFormat format =
      mxfp4 ? QuantFormat{QuantMode::kMxfp4, 4, 32} : QuantFormat{QuantMode::kNvfp4, 4, 16};
  const auto shape = fp4_shape(codes.info.shape, scales.info.shape, format.group_size);
  if (!shape || codes.info.dtype != DType::kU8 || (!mxfp4 && scales.info.dtype != DType::kF8E4M3))
    return joiner.misfit(scales, codes, " as " + numerics::format_text(format));
  Packing packing{.kind = PackingKind::kMlx,
                  .format = format,
                  .parts = {part_of(codes), part_of(scales)},
                  .part_count = 2};
  if (mxfp4) {
    joiner.pack(codes, *shape, packing, {&scales}, stem);
    return {};
  }
  const std::string_view ending = divides ? "_global_scale" : "_scale_2";
  StoredTensor* factor = joiner.find(stem, ending);
  if (factor == nullptr)
    return fail(ErrorCode::kCorrupt, "{}: {} has no {}{} beside it", joiner.path(),
                described(codes), stem, ending);
  const uint64_t rows = (*shape)[shape->size() - 2];
  const uint64_t all_rows = numerics::element_count(*shape).value_or(0) / shape->back();
  const uint64_t factors = numerics::element_count(factor->info.shape).value_or(0);
  const bool one = factors == 1;
  if (factor->info.dtype != DType::kF32 || (!one && factors != all_rows / rows) ||
      !fits_32_bits(all_rows))
    return joiner.misfit(*factor, codes, " as its factor");
  packing.kind = PackingKind::kScaledNvfp4;
  packing.divides = divides;
  packing.columns_spanned = format.group_size;
  packing.parts[2] = part_of(*factor, static_cast<uint32_t>(one ? all_rows : rows));
  packing.parts[2].row_bytes = sizeof(float);
  packing.part_count = 3;
  joiner.pack(codes, *shape, packing, {&scales, factor}, stem);
  return {};
}

Status check_format(const Joiner& joiner, const Json& settings) {
  const auto known = [](const Json* format) {
    return format == nullptr || format->is_null() ||
           (format->is_string() && std::ranges::count(kKnownFormats, format->get<std::string>()));
  };
  const auto refused = [&](const Json& format) {
    return fail(ErrorCode::kUnsupported,
                "{}: compressed-tensors' format {} is not supported; give the original checkpoint",
                joiner.label(), dump_json(format));
  };
  const Json* format = json_find(settings, "format");
  if (!known(format)) return refused(*format);
  const Json* sparsity = json_find(settings, "sparsity_config");
  const Json* sparse = sparsity != nullptr ? json_find(*sparsity, "format") : nullptr;
  if (sparse != nullptr && *sparse != "dense") return refused(*sparse);
  return {};
}

// What should have been joined.
Status check_the_rest(Joiner& joiner) {
  for (const StoredTensor& tensor : joiner.tensors()) {
    if (tensor.packing != nullptr || joiner.is_taken(tensor)) continue;
    const bool weight = tensor.info.name.ends_with("weight") || tensor.info.shape.size() > 1;
    const bool small = is_small_element(tensor.info.dtype) || tensor.info.dtype == DType::kU8;
    if (tensor.info.name.ends_with(kPacked) || (weight && small))
      return fail(ErrorCode::kCorrupt, "{}: {} has no scales beside it", joiner.path(),
                  described(tensor));
  }
  return {};
}

}  // namespace

Status join_scaled(Joiner& joiner, const Json& settings, bool compressed_tensors) {
  if (compressed_tensors) SLUICE_TRY(check_format(joiner, settings));
  SLUICE_ASSIGN(const std::optional<Sides> block, block_sides(joiner, settings));
  for (StoredTensor& scales : joiner.tensors()) {
    const std::string& name = scales.info.name;
    if (std::ranges::any_of(kUnused, [&](std::string_view end) { return name.ends_with(end); })) {
      joiner.take(scales);
      continue;
    }
    const bool inverse = name.ends_with(kScaleInv);
    if (!inverse && !name.ends_with(kScale)) continue;
    if (name.ends_with("_global_scale")) continue;  // goes with its scales
    const std::string stem = name.substr(0, name.size() - (inverse ? kScaleInv : kScale).size());
    StoredTensor* weight = joiner.find(stem, "");
    StoredTensor* packed = joiner.find(stem, kPacked);
    if (packed != nullptr && packed->info.dtype == DType::kI32)
      SLUICE_TRY(join_packed_integers(joiner, settings, stem, *packed, scales));
    else if (packed != nullptr)
      SLUICE_TRY(join_fp4(joiner, stem, *packed, scales, compressed_tensors));
    else if (weight == nullptr)
      return fail(ErrorCode::kCorrupt, "{}: {} has no weight beside it", joiner.path(), name);
    else if (weight->info.dtype == DType::kU8)
      SLUICE_TRY(join_fp4(joiner, stem, *weight, scales, compressed_tensors));
    else
      SLUICE_TRY(join_elements(joiner, block, *weight, scales));
  }
  return check_the_rest(joiner);
}

}  // namespace sluice::io
