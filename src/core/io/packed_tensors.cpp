#include "io/packed_tensors.h"

#include <algorithm>
#include <tuple>

#include "base/checked.h"

namespace sluice::io {
namespace {

using numerics::DType;
using numerics::QuantFormat;
using numerics::QuantMode;
using numerics::Shape;

constexpr std::string_view kWeight = ".weight", kScales = ".scales", kBiases = ".biases";
constexpr std::string_view kBlockScales = ".weight_scale_inv";
constexpr std::string_view kMxfp4Codes = "_blocks", kMxfp4Scales = "_scales";
constexpr int64_t kBlockSideMax = 4096;

bool is_plain_float(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

uint64_t row_bytes(const StoredTensor& tensor) {
  // A stored tensor's bytes have been checked, so its rows' fit too.
  return tensor.info.shape.back() * dtype_info(tensor.info.dtype).block_bytes;
}

PackedPart part_of(const StoredTensor& tensor, uint32_t rows_spanned = 1) {
  return {tensor.info.dtype, tensor.file, tensor.offset, row_bytes(tensor), rows_spanned};
}

std::string described(const StoredTensor& tensor) {
  return fmt::format("{} {} {}", tensor.info.name, dtype_info(tensor.info.dtype).name,
                     numerics::shape_text(tensor.info.shape));
}

// Replaces tensors by packed ones and drops those that became parts of them.
class Joiner {
 public:
  explicit Joiner(Checkpoint& checkpoint)
      : checkpoint_(checkpoint), joined_(checkpoint.tensors.size(), false) {}

  Status join_mlx(const Json& quantization);
  Status join_fp8_blocks(const Json& settings);
  Status join_mxfp4();
  Status finish();

 private:
  StoredTensor* find(std::string_view stem, std::string_view ending);
  Result<QuantFormat> format_of(const Json& quantization, const std::string& path) const;
  Status join_mlx_weight(const QuantFormat& format, StoredTensor& weight, StoredTensor& scales,
                         StoredTensor* biases);
  Status join_mxfp4_weight(StoredTensor& blocks, StoredTensor& scales);
  Status join_fp8_weight(uint32_t rows, uint32_t columns, StoredTensor& weight,
                         StoredTensor& scales);
  void take(StoredTensor& part) { joined_[&part - checkpoint_.tensors.data()] = true; }
  std::string label() const { return fmt::format("{}: config.json", checkpoint_.path); }

  Checkpoint& checkpoint_;
  std::vector<bool> joined_;
};

StoredTensor* Joiner::find(std::string_view stem, std::string_view ending) {
  const auto found = checkpoint_.by_name.find(fmt::format("{}{}", stem, ending));
  return found == checkpoint_.by_name.end() ? nullptr : &checkpoint_.tensors[found->second];
}

// An entry for the path decides, else the global settings, as in mlx_lm's loader.
Result<QuantFormat> Joiner::format_of(const Json& quantization, const std::string& path) const {
  const Json* entry = json_find(quantization, path);
  if (entry != nullptr && !entry->is_object())
    return fail(ErrorCode::kCorrupt, "{}: quantization says {} for {}, which has scales", label(),
                dump_json(*entry), path);
  const Json& settings = entry != nullptr ? *entry : quantization;
  const std::string where = label() + ": quantization";
  SLUICE_ASSIGN(const int64_t bits, json_int(settings, "bits", 1, 8, where));
  SLUICE_ASSIGN(const int64_t group, json_int(settings, "group_size", 1, 1024, where));
  std::string mode(numerics::quant_mode_name(QuantMode::kAffine));
  if (json_find(settings, "mode") != nullptr) {
    SLUICE_ASSIGN(mode, json_string(settings, "mode", where));
  }
  const bool affine = mode == numerics::quant_mode_name(QuantMode::kAffine);
  const auto format = numerics::parse_format(affine ? fmt::format("{}/{}", bits, group) : mode);
  if (!format || format->bits != bits || format->group_size != group)
    return fail(ErrorCode::kUnsupported, "{}: mode {} of {} bits and group {} is not known", where,
                mode, bits, group);
  return *format;
}

Status Joiner::join_mlx_weight(const QuantFormat& format, StoredTensor& weight,
                               StoredTensor& scales, StoredTensor* biases) {
  const auto misfit = [&](const StoredTensor& other) {
    return fail(ErrorCode::kCorrupt, "{}: {} does not fit {} at {}", checkpoint_.path,
                described(other), described(weight), numerics::format_text(format));
  };
  const bool affine = format.mode == QuantMode::kAffine;
  if (affine && biases == nullptr)
    return fail(ErrorCode::kCorrupt, "{}: {} has scales but no biases", checkpoint_.path,
                weight.info.name);
  const Shape& packed = weight.info.shape;
  const bool good_type =
      affine ? is_plain_float(scales.info.dtype) : scales.info.dtype == DType::kU8;
  if (packed.size() < 2 || !good_type || scales.info.shape.size() != packed.size())
    return misfit(scales);
  Shape shape = scales.info.shape;
  const auto columns = checked_mul(shape.back(), format.group_size);
  const auto bits = columns ? checked_mul(*columns, format.bits) : std::nullopt;
  const auto packed_bits = checked_mul(packed.back(), 32);
  shape.back() = columns.value_or(0);
  if (!bits || !packed_bits || *bits != *packed_bits || *bits == 0 ||
      !std::equal(packed.begin(), packed.end() - 1, shape.begin()) ||
      !numerics::element_count(shape))
    return misfit(scales);
  if (affine &&
      (biases->info.shape != scales.info.shape || biases->info.dtype != scales.info.dtype))
    return misfit(*biases);

  auto packing = std::make_shared<Packing>();
  packing->kind = PackingKind::kMlx;
  packing->format = format;
  packing->model_dtype = affine ? scales.info.dtype : DType::kBF16;
  packing->parts = {part_of(weight), part_of(scales), {}};
  packing->part_count = 2;
  weight.bytes += scales.bytes;
  take(scales);
  if (affine) {
    packing->parts[packing->part_count++] = part_of(*biases);
    weight.bytes += biases->bytes;
    take(*biases);
  }
  weight.info.shape = std::move(shape);
  weight.info.dtype = DType::kF32;
  weight.packing = std::move(packing);
  return {};
}

Status Joiner::join_mlx(const Json& quantization) {
  for (StoredTensor& scales : checkpoint_.tensors) {
    const std::string& name = scales.info.name;
    if (!name.ends_with(kScales)) continue;
    const std::string path = name.substr(0, name.size() - kScales.size());
    StoredTensor* weight = find(path, kWeight);
    if (weight == nullptr || weight->info.dtype != DType::kU32) continue;
    SLUICE_ASSIGN(const QuantFormat format, format_of(quantization, path));
    SLUICE_TRY(join_mlx_weight(format, *weight, scales, find(path, kBiases)));
  }
  return {};
}

Status Joiner::join_fp8_weight(uint32_t rows, uint32_t columns, StoredTensor& weight,
                               StoredTensor& scales) {
  const auto blocks = [](uint64_t size, uint64_t side) { return size / side + (size % side != 0); };
  const Shape& shape = weight.info.shape;
  const bool fits = weight.info.dtype == DType::kF8E4M3 && is_plain_float(scales.info.dtype) &&
                    shape.size() == 2 && shape[0] > 0 && shape[1] > 0 &&
                    scales.info.shape == Shape{blocks(shape[0], rows), blocks(shape[1], columns)};
  if (!fits)
    return fail(ErrorCode::kCorrupt, "{}: {} does not fit {} in blocks of {}×{}", checkpoint_.path,
                described(scales), described(weight), rows, columns);
  auto packing = std::make_shared<Packing>();
  packing->kind = PackingKind::kFp8Blocks;
  packing->columns_spanned = columns;
  packing->model_dtype = DType::kBF16;
  packing->parts = {part_of(weight), part_of(scales, rows), {}};
  packing->part_count = 2;
  weight.bytes += scales.bytes;
  weight.info.dtype = DType::kF32;
  weight.packing = std::move(packing);
  take(scales);
  return {};
}

Status Joiner::join_fp8_blocks(const Json& settings) {
  const std::string where = label() + ": quantization_config";
  const Json* size = json_find(settings, "weight_block_size");
  if (size == nullptr || !size->is_array() || size->size() != 2)
    return fail(ErrorCode::kUnsupported,
                "{}: quant_method fp8 without a weight_block_size of two numbers", where);
  uint32_t sides[2] = {};
  for (size_t i = 0; i < 2; ++i) {
    const Json holder{{"weight_block_size", (*size)[i]}};
    SLUICE_ASSIGN(const int64_t side,
                  json_int(holder, "weight_block_size", 1, kBlockSideMax, where));
    sides[i] = static_cast<uint32_t>(side);
  }
  if (const Json* format = json_find(settings, "fmt"); format != nullptr && *format != "e4m3")
    return fail(ErrorCode::kUnsupported, "{}: fmt {} is not known, only \"e4m3\"", where,
                dump_json(*format));
  for (StoredTensor& scales : checkpoint_.tensors) {
    const std::string& name = scales.info.name;
    if (!name.ends_with(kBlockScales)) continue;
    StoredTensor* weight = find(name.substr(0, name.size() - kBlockScales.size()), kWeight);
    if (weight == nullptr)
      return fail(ErrorCode::kCorrupt, "{}: {} has no weight beside it", checkpoint_.path, name);
    SLUICE_TRY(join_fp8_weight(sides[0], sides[1], *weight, scales));
  }
  return {};
}

// Blocks of 32 codes, low half of a byte first, each block with its exponent: MLX's mxfp4 byte for
// byte, but that the codes have an axis for the blocks and one for their bytes.
Status Joiner::join_mxfp4_weight(StoredTensor& blocks, StoredTensor& scales) {
  const QuantFormat format{QuantMode::kMxfp4, 4, 32};
  constexpr uint64_t kBytesOfBlock = 16;
  Shape shape = scales.info.shape, expected = scales.info.shape;
  expected.push_back(kBytesOfBlock);
  const auto columns =
      shape.empty() ? std::nullopt : checked_mul(shape.back(), uint64_t{format.group_size});
  if (shape.size() < 2 || blocks.info.shape != expected || !columns || *columns == 0 ||
      blocks.info.dtype != DType::kU8 || scales.info.dtype != DType::kU8)
    return fail(ErrorCode::kCorrupt, "{}: {} does not fit {}", checkpoint_.path, described(scales),
                described(blocks));
  auto packing = std::make_shared<Packing>();
  packing->kind = PackingKind::kMlx;
  packing->format = format;
  packing->parts = {part_of(blocks), part_of(scales), {}};
  packing->parts[0].row_bytes = shape.back() * kBytesOfBlock;
  packing->part_count = 2;
  shape.back() = *columns;
  if (!numerics::element_count(shape))
    return fail(ErrorCode::kCorrupt, "{}: {} has too many elements", checkpoint_.path,
                described(blocks));
  blocks.bytes += scales.bytes;
  blocks.info.shape = std::move(shape);
  blocks.info.dtype = DType::kF32;
  blocks.packing = std::move(packing);
  take(scales);
  return {};
}

Status Joiner::join_mxfp4() {
  for (StoredTensor& scales : checkpoint_.tensors) {
    const std::string& name = scales.info.name;
    if (!name.ends_with(kMxfp4Scales)) continue;
    StoredTensor* blocks = find(name.substr(0, name.size() - kMxfp4Scales.size()), kMxfp4Codes);
    if (blocks == nullptr)
      return fail(ErrorCode::kCorrupt, "{}: {} has no {} beside it", checkpoint_.path, name,
                  kMxfp4Codes.substr(1));
    SLUICE_TRY(join_mxfp4_weight(*blocks, scales));
  }
  return {};
}

Status Joiner::finish() {
  size_t kept = 0;
  checkpoint_.by_name.clear();
  for (size_t i = 0; i < joined_.size(); ++i) {
    if (joined_[i]) continue;
    if (kept != i) checkpoint_.tensors[kept] = std::move(checkpoint_.tensors[i]);
    ++kept;
  }
  checkpoint_.tensors.resize(kept);
  checkpoint_.tensors.shrink_to_fit();
  return index_tensors(checkpoint_);
}

}  // namespace

Status index_tensors(Checkpoint& checkpoint) {
  auto& tensors = checkpoint.tensors;
  std::sort(tensors.begin(), tensors.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return std::tie(a.info.name, a.file) < std::tie(b.info.name, b.file);
  });
  for (size_t i = 1; i < tensors.size(); ++i)
    if (tensors[i].info.name == tensors[i - 1].info.name)
      return fail(ErrorCode::kCorrupt, "{}: tensor \"{}\" is in {} and in {}", checkpoint.path,
                  tensors[i].info.name, checkpoint.identity[tensors[i - 1].file].name,
                  checkpoint.identity[tensors[i].file].name);
  if (tensors.empty())
    return fail(ErrorCode::kCorrupt, "{}: the model has no tensors", checkpoint.path);
  tensors.shrink_to_fit();
  checkpoint.by_name.clear();
  checkpoint.by_name.reserve(tensors.size());
  for (uint32_t i = 0; i < tensors.size(); ++i) checkpoint.by_name.emplace(tensors[i].info.name, i);
  return {};
}

Status join_packed_tensors(Checkpoint& checkpoint) {
  const Json* mlx = json_find(checkpoint.config, "quantization");
  const Json* other = json_find(checkpoint.config, "quantization_config");
  const Json* method = other != nullptr ? json_find(*other, "quant_method") : nullptr;
  const bool is_mlx = mlx != nullptr && mlx->is_object() && !mlx->empty();
  const auto is_method = [&](std::string_view name) {
    return !is_mlx && method != nullptr && *method == name;
  };
  Joiner joiner(checkpoint);
  if (is_mlx)
    SLUICE_TRY(joiner.join_mlx(*mlx));
  else if (is_method("fp8"))
    SLUICE_TRY(joiner.join_fp8_blocks(*other));
  else if (is_method("mxfp4"))
    SLUICE_TRY(joiner.join_mxfp4());
  else
    return {};
  return joiner.finish();
}

std::string storage_text(const StoredTensor& tensor) {
  if (tensor.packing == nullptr) return std::string(dtype_info(tensor.info.dtype).name);
  const Packing& packing = *tensor.packing;
  if (packing.kind == PackingKind::kMlx) return "MLX " + numerics::format_text(packing.format);
  return fmt::format("{} in {}×{} blocks", dtype_info(packing.parts[0].dtype).name,
                     packing.parts[1].rows_spanned, packing.columns_spanned);
}

}  // namespace sluice::io
