// Which packing a configuration names, and what joining leaves. Each kind of packing has a file
// beside this one.
#include "io/packed_tensors.h"

#include <algorithm>
#include <tuple>

#include "io/packed_joiner.h"

namespace sluice::io {
namespace {

using numerics::DType;

// quant_method, or what modelopt writes without one.
std::string method_of(const Json& settings) {
  const Json* method = json_find(settings, "quant_method");
  if (method != nullptr && method->is_string()) return method->get<std::string>();
  return json_find(settings, "quant_algo") != nullptr ? "modelopt" : "unknown";
}

}  // namespace

bool is_plain_float(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

PackedPart part_of(const StoredTensor& tensor, uint32_t rows_spanned) {
  // A stored tensor's bytes have been checked, so its rows' fit too.
  const uint64_t columns = tensor.info.shape.empty() ? 1 : tensor.info.shape.back();
  return {.dtype = tensor.info.dtype,
          .file = tensor.file,
          .offset = tensor.offset,
          .row_bytes = columns * dtype_info(tensor.info.dtype).block_bytes,
          .rows_spanned = rows_spanned};
}

PackedPart columns_of(const StoredTensor& tensor, DType dtype, PartOrder order) {
  PackedPart part = part_of(tensor);
  part.dtype = dtype;
  part.order = order;
  part.stored_rows = tensor.info.shape[0];
  return part;
}

std::string described(const StoredTensor& tensor) {
  return fmt::format("{} {} {}", tensor.info.name, dtype_info(tensor.info.dtype).name,
                     numerics::shape_text(tensor.info.shape));
}

StoredTensor* Joiner::find(std::string_view stem, std::string_view ending) {
  const auto found = checkpoint_.by_name.find(fmt::format("{}{}", stem, ending));
  return found == checkpoint_.by_name.end() ? nullptr : &checkpoint_.tensors[found->second];
}

void Joiner::pack(StoredTensor& tensor, numerics::Shape shape, Packing packing,
                  std::initializer_list<StoredTensor*> taken, std::string name) {
  for (StoredTensor* part : taken) {
    if (part == nullptr) continue;
    tensor.bytes += part->bytes;
    take(*part);
  }
  tensor.info.shape = std::move(shape);
  tensor.info.dtype = DType::kF32;
  tensor.packing = std::make_shared<const Packing>(packing);
  if (!name.empty()) names_.emplace_back(index(tensor), std::move(name));
}

std::unexpected<Error> Joiner::misfit(const StoredTensor& part, const StoredTensor& weight,
                                      std::string_view how) const {
  return fail(ErrorCode::kCorrupt, "{}: {} does not fit {}{}", checkpoint_.path, described(part),
              described(weight), how);
}

Status Joiner::finish() {
  size_t kept = 0;
  checkpoint_.by_name.clear();
  for (auto& [tensor, name] : names_) checkpoint_.tensors[tensor].info.name = std::move(name);
  for (size_t i = 0; i < joined_.size(); ++i) {
    if (joined_[i]) continue;
    if (kept != i) checkpoint_.tensors[kept] = std::move(checkpoint_.tensors[i]);
    ++kept;
  }
  checkpoint_.tensors.resize(kept);
  checkpoint_.tensors.shrink_to_fit();
  return index_tensors(checkpoint_);
}

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

const Json* quantization_settings(const Json& config) {
  const auto find = [](const Json& level) {
    const Json* settings = json_find(level, "quantization_config");
    return settings != nullptr && settings->is_object() && !settings->empty() ? settings : nullptr;
  };
  const Json* settings = find(config);
  const Json* text = json_find(config, "text_config");
  return settings == nullptr && text != nullptr ? find(*text) : settings;
}

std::string unknown_packing(const Json& config) {
  constexpr std::string_view kKnown[] = {"fp8",      "fbgemm_fp8",   "compressed-tensors",
                                         "modelopt", "modelopt_fp4", "mxfp4",
                                         "gptq",     "awq"};
  const Json* settings = quantization_settings(config);
  if (settings == nullptr || is_mlx_folder(config)) return {};
  std::string method = method_of(*settings);
  return std::ranges::count(kKnown, method) > 0 ? std::string() : method;
}

bool is_mlx_folder(const Json& config) {
  const Json* mlx = json_find(config, "quantization");
  return mlx != nullptr && mlx->is_object() && !mlx->empty();
}

Status join_packed_tensors(Checkpoint& checkpoint) {
  const Json* settings = quantization_settings(checkpoint.config);
  const bool is_mlx = is_mlx_folder(checkpoint.config);
  if (!is_mlx && settings == nullptr) return {};
  const std::string method = is_mlx ? "mlx" : method_of(*settings);
  Joiner joiner(checkpoint);
  if (is_mlx)
    SLUICE_TRY(join_mlx(joiner, checkpoint.config["quantization"]));
  else if (method == "mxfp4")
    SLUICE_TRY(join_mxfp4_blocks(joiner));
  else if (method == "gptq")
    SLUICE_TRY(join_gptq(joiner, *settings));
  else if (method == "awq")
    SLUICE_TRY(join_awq(joiner, *settings));
  else if (unknown_packing(checkpoint.config).empty())
    SLUICE_TRY(join_scaled(joiner, *settings, method == "compressed-tensors"));
  else
    return {};
  return joiner.finish();
}

std::string storage_text(const StoredTensor& tensor) {
  if (tensor.packing == nullptr) return std::string(dtype_info(tensor.info.dtype).name);
  const Packing& packing = *tensor.packing;
  const numerics::Shape& shape = tensor.info.shape;
  switch (packing.kind) {
    case PackingKind::kMlx: return "MLX " + numerics::format_text(packing.format);
    case PackingKind::kScaledNvfp4: return "nvfp4 with a factor for each tensor";
    case PackingKind::kIntegers:
      return packing.columns_spanned == shape.back()
                 ? fmt::format("{}-bit integers with a scale for each row", packing.bits)
                 : fmt::format("{}-bit integers in groups of {}", packing.bits,
                               packing.columns_spanned);
    case PackingKind::kScaledElements: break;
  }
  const std::string_view type = dtype_info(packing.parts[0].dtype).name;
  const uint64_t rows = packing.parts[1].rows_spanned, columns = packing.columns_spanned;
  if (columns == shape.back() && rows == 1)
    return fmt::format("{} with a scale for each row", type);
  if (columns == shape.back() &&
      packing.parts[1].row_bytes == dtype_info(packing.parts[1].dtype).block_bytes &&
      rows >= shape[shape.size() - 2])
    return fmt::format("{} with a scale for each tensor", type);
  return fmt::format("{} in {}×{} blocks", type, rows, columns);
}

}  // namespace sluice::io
