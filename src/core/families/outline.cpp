#include "families/outline.h"

#include <algorithm>
#include <unordered_set>

#include "families/family.h"

namespace sluice::families {
namespace {

using io::Checkpoint;
using io::StoredTensor;

// What packed formats put beside a weight, by the end of its name: MLX, compressed-tensors,
// ModelOpt, AWQ and GPTQ, 8-bit floats in blocks.
constexpr std::string_view kPartEndings[] = {
    ".scales",         ".biases",      ".weight_scale", ".weight_scale_inv",
    ".weight_scale_2", ".input_scale", ".weight_shape", ".weight_zero_point",
    ".weight_g_idx",   ".qzeros",      ".g_idx",        ".k_scale",
    ".v_scale"};
constexpr std::string_view kCodesEndings[] = {".weight", ".weight_packed", ".qweight"};

using Names = std::unordered_set<std::string_view>;

// Whether the name is a part beside a weight of the same module.
bool is_packed_part(std::string_view name, const Names& names) {
  constexpr std::string_view kBlockScales = "_scales";  // of gpt-oss's …_blocks
  if (name.ends_with(kBlockScales))
    return names.contains(
        std::string(name.substr(0, name.size() - kBlockScales.size())).append("_blocks"));
  for (const std::string_view ending : kPartEndings) {
    if (!name.ends_with(ending)) continue;
    const std::string module(name.substr(0, name.size() - ending.size()));
    return std::ranges::any_of(kCodesEndings, [&](std::string_view codes) {
      return names.contains(module + std::string(codes));
    });
  }
  return false;
}

// The name that the values of a packed tensor have.
std::string value_name(std::string_view name) {
  for (const std::string_view codes :
       {std::string_view(".weight_packed"), std::string_view(".qweight")})
    if (name.ends_with(codes))
      return std::string(name.substr(0, name.size() - codes.size())).append(".weight");
  return std::string(name);
}

void index_by_name(Checkpoint& checkpoint) {
  std::ranges::sort(checkpoint.tensors, {}, [](const StoredTensor& t) { return t.info.name; });
  for (uint32_t i = 0; i < checkpoint.tensors.size(); ++i)
    checkpoint.by_name.emplace(checkpoint.tensors[i].info.name, i);
}

std::shared_ptr<const io::Packing> mxfp4_packing() {
  io::Packing packing;
  packing.kind = io::PackingKind::kMlx;
  packing.format = *numerics::parse_format("mxfp4");
  packing.part_count = 2;
  packing.parts[0].dtype = numerics::DType::kU32;
  packing.parts[1].dtype = numerics::DType::kU8;
  return std::make_shared<const io::Packing>(packing);
}

bool is_mxfp4(const Json& config) {
  const Json* packing = json_find(config, "quantization_config");
  return packing != nullptr && packing->is_object() && packing->contains("quant_method") &&
         (*packing)["quant_method"] == "mxfp4";
}

// transformers writes no key that has its class's default, which for all but some is false.
void settle_tied(const Family& family, Json& config) {
  constexpr std::string_view kKey = "tie_word_embeddings";
  const Json& text = text_config(config);
  if (json_find(config, kKey) != nullptr || json_find(text, kKey) != nullptr) return;
  config[kKey] = family.tied_by_default;
}

}  // namespace

Result<std::shared_ptr<const Checkpoint>> outlined_checkpoint(const io::ModelOutline& outline) {
  auto checkpoint = std::make_shared<Checkpoint>();
  checkpoint->path = outline.path;
  checkpoint->config = outline.config;
  checkpoint->config.erase("quantization_config");
  const bool mxfp4 = is_mxfp4(outline.config);
  SLUICE_ASSIGN(const std::string model_type,
                json_string(outline.config, "model_type", config_label(*checkpoint)));
  const Family* family = find_family(model_type);
  if (family == nullptr)
    return fail(ErrorCode::kUnsupported, "{}: model_type {} has no table here",
                config_label(*checkpoint), model_type);
  if (outline.tensor_names.empty()) {
    settle_tied(*family, checkpoint->config);
  } else {
    const Names names(outline.tensor_names.begin(), outline.tensor_names.end());
    for (const std::string& name : outline.tensor_names)
      if (!is_packed_part(name, names))
        checkpoint->tensors.push_back({{value_name(name), numerics::DType::kBF16, {}}, 0, 0, 0});
    index_by_name(*checkpoint);
  }
  SLUICE_ASSIGN(std::vector<io::TensorInfo> tensors, outlined_tensors(*checkpoint, *family));
  checkpoint->by_name.clear();
  checkpoint->tensors.clear();
  for (io::TensorInfo& info : tensors) {
    const uint64_t bytes = numerics::tensor_bytes(info.dtype, info.shape).value_or(0);
    StoredTensor tensor{std::move(info), 0, 0, bytes};
    if (mxfp4 && tensor.info.name.ends_with("_blocks")) {
      tensor.info.dtype = numerics::DType::kF32;  // what it decodes to
      tensor.packing = mxfp4_packing();
      const uint64_t elements = numerics::element_count(tensor.info.shape).value_or(0);
      tensor.bytes = elements / 2 + elements / 32;
    }
    checkpoint->tensors.push_back(std::move(tensor));
  }
  index_by_name(*checkpoint);
  return checkpoint;
}

uint64_t active_elements(const ModelMap& map, uint64_t experts_per_token) {
  uint64_t active = 0;
  for (const OutputModule& module : map.modules) {
    const uint64_t experts = module.experts();
    const bool chosen =
        is_expert(module.role) && experts_per_token > 0 && experts > experts_per_token;
    active += chosen ? module.elements() / experts * experts_per_token : module.elements();
  }
  return active;
}

}  // namespace sluice::families
