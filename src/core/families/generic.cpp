// Families without a table: plain Linears and Embeddings are recognised by name, everything else is
// copied, and whatever would need a guess is refused. The rule is stated at map_model().
#include <algorithm>
#include <cctype>
#include <charconv>

#include "families/family.h"

namespace sluice::families {
namespace {

using io::StoredTensor;
using numerics::DType;

// mlx_lm's loaders rearrange the checkpoints of these: experts are stacked, rows split, norms
// shifted. Copying them would give a model that does not load, or loads and is wrong. From the
// sanitize functions of mlx_lm 0.32.
constexpr std::string_view kRearranged[] = {
    "afmoe",
    "apertus",
    "baichuan_m1",
    "bailing_hybrid",
    "bailing_moe",
    "bailing_moe_linear",
    "bailing_moe_v3",
    "bitnet",
    "dbrx",
    "deepseek",
    "deepseek_v41",
    "dots1",
    "ernie4_5_moe",
    "exaone_moe",
    "falcon_h1",
    "gemma3n",
    "gemma4_text",
    "gemma4_unified",
    "glm4_moe",
    "gpt2",
    "gpt_bigcode",
    "gpt_neox",
    "gptj",
    "granitemoe",
    "granitemoehybrid",
    "hunyuan",
    "jamba",
    "kimi_k3",
    "kimi_linear",
    "kimi_vl",
    "Klear",
    "laguna",
    "lfm2",
    "lfm2_moe",
    "llama4_text",
    "longcat_flash",
    "longcat_flash_ngram",
    "mamba",
    "mamba2",
    "mellum",
    "mimo_v2_flash",
    "minimax",
    "minimax_m2",
    "minimax_m3_vl",
    "mistral4",
    "muse_spark",
    "olmo_hybrid",
    "olmoe",
    "phimoe",
    "phixtral",
    "pixtral",
    "plamo2",
    "prism_hadamard_qwen35",
    "qwen2_moe",
    "qwen2_vl",
    "recurrent_gemma",
    "rwkv7",
    "solar_open",
    "step3p5",
};

// Stock mlx_lm has no code for these.
constexpr std::string_view kUnknownToMlx[] = {"deepseek_ref", "deepseek_v4", "minimax_m3",
                                              "step3p7"};

// Parts of names that packed and scaled formats use.
constexpr std::string_view kPackedMarks[] = {
    "weight_packed", "weight_scale", "weight_zero_point",
    "weight_shape",  "qweight",      "qzeros",
    "g_idx",         "_blocks",      "_scales",
    ".scales",       "scale_inv",    "input_scale",
    "absmax",        "quant_map",    "quant_state",
};

constexpr std::string_view kExpertMarks[] = {".experts.", ".switch_mlp.", "block_sparse_moe."};

struct NamedRole {
  std::string_view leaf;
  Role role;
};
constexpr NamedRole kRoles[] = {
    {"embed_tokens", Role::kEmbedding}, {"lm_head", Role::kHead},
    {"q_proj", Role::kAttentionQ},      {"k_proj", Role::kAttentionK},
    {"v_proj", Role::kAttentionV},      {"o_proj", Role::kAttentionO},
    {"gate_proj", Role::kMlpGate},      {"up_proj", Role::kMlpUp},
    {"down_proj", Role::kMlpDown},
};

template <size_t count>
bool contains_any(std::string_view text, const std::string_view (&parts)[count]) {
  return std::any_of(std::begin(parts), std::end(parts), [&](std::string_view part) {
    return text.find(part) != std::string_view::npos;
  });
}

template <size_t count>
bool is_any(std::string_view text, const std::string_view (&names)[count]) {
  return std::find(std::begin(names), std::end(names), text) != std::end(names);
}

bool is_linear_name(std::string_view leaf) {
  if (leaf == "embed_tokens" || leaf == "lm_head" || leaf == "dense") return true;
  if (leaf.ends_with("_proj") || leaf.starts_with("dense_")) return true;
  return leaf.starts_with("fc") &&
         std::all_of(leaf.begin() + 2, leaf.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// Why a tensor cannot be carried over unchanged, or nothing when it can.
std::string objection(const io::TensorInfo& info) {
  const std::string shape = numerics::shape_text(info.shape);
  if (contains_any(info.name, kPackedMarks)) return "belongs to a packed or scaled format";
  if (contains_any(info.name, kExpertMarks)) return "is an expert, whose final layout is unknown";
  if (info.shape.empty() || info.shape.size() > 2)
    return fmt::format("has shape {}, whose orientation would have to be guessed", shape);
  // Integers and truth values are copied, but where a weight belongs they must be codes of some
  // packing.
  const bool is_float = dtype_info(info.dtype).is_float;
  if (!is_float && (info.dtype == DType::kC64 || info.name.ends_with("weight")))
    return fmt::format("is {}, where a float type would be plain", dtype_info(info.dtype).name);
  return {};
}

// The number in "….layers.N.…", or −1.
int layer_of(std::string_view name) {
  for (const std::string_view mark : {"layers.", "h.", "blocks."}) {
    const size_t at = name.find(mark);
    if (at == std::string_view::npos || (at > 0 && name[at - 1] != '.')) continue;
    uint16_t layer = 0;
    const char* first = name.data() + at + mark.size();
    const char* last = name.data() + name.size();
    const auto [end, error] = std::from_chars(first, last, layer);
    if (error == std::errc{} && end != last && *end == '.') return layer;
  }
  return -1;
}

OutputModule describe(const StoredTensor& tensor, uint32_t index) {
  const std::string& name = tensor.info.name;
  const size_t dot = name.rfind('.');
  OutputModule module;
  module.path = name.substr(0, dot);
  if (dot != std::string::npos) module.parameter = name.substr(dot + 1);
  module.layer = layer_of(name);
  module.shape = tensor.info.shape;
  const std::string_view path = module.path;
  const std::string_view leaf = path.substr(path.rfind('.') + 1);
  const bool matrix = module.parameter == "weight" && module.shape.size() == 2;
  module.quantizable = matrix && is_linear_name(leaf);
  if (module.parameter == "bias") module.role = Role::kBias;
  if (leaf.ends_with("norm") || leaf.find("layernorm") != std::string_view::npos)
    module.role = Role::kNorm;
  for (const NamedRole& named : kRoles)
    if (module.quantizable && leaf == named.leaf) module.role = named.role;
  module.recipe.sources.push_back({.tensor = index, .first_row = 0, .rows = module.rows()});
  return module;
}

// Embedding, layers in order, head; names decide within a group.
int position(const OutputModule& module) {
  if (module.role == Role::kEmbedding) return -1;
  if (module.layer >= 0) return module.layer;
  return module.role == Role::kHead ? INT32_MAX : INT32_MAX - 1;
}

bool tied_in(const Json& config) {
  const Json* text = json_find(config, "text_config");
  for (const Json* level : {&config, text}) {
    const Json* value = level == nullptr ? nullptr : json_find(*level, "tie_word_embeddings");
    if (value != nullptr && value->is_boolean()) return value->get<bool>();
  }
  return false;
}

}  // namespace

Status refuse_by_name(const io::Checkpoint& checkpoint, std::string_view model_type) {
  if (is_any(model_type, kUnknownToMlx))
    return fail(ErrorCode::kUnsupported, "{}: stock mlx_lm cannot load model_type {}",
                config_label(checkpoint), model_type);
  if (is_any(model_type, kRearranged))
    return fail(ErrorCode::kUnsupported,
                "{}: model_type {} stores tensors in a layout that has to be rearranged, which is "
                "not supported yet",
                config_label(checkpoint), model_type);
  return {};
}

Result<ModelMap> map_generic(const io::Checkpoint& checkpoint, const std::string& model_type) {
  if (checkpoint.kind == io::SourceKind::kGguf)
    return fail(
        ErrorCode::kUnsupported,
        "{}: GGUF models of architecture {} are not supported, since llama.cpp's changes to "
        "their tensors would have to be guessed",
        checkpoint.path, model_type);
  SLUICE_TRY(refuse_by_name(checkpoint, model_type));
  ModelMap map;
  map.family = "generic";
  map.tied = tied_in(checkpoint.config);
  uint64_t quantizable = 0;
  for (size_t i = 0; i < checkpoint.tensors.size(); ++i) {
    const io::TensorInfo& info = checkpoint.tensors[i].info;
    const bool tied_head = map.tied && info.name.ends_with("lm_head.weight");
    if (tied_head || info.name.ends_with("rotary_emb.inv_freq")) {
      map.dropped.push_back(info.name);
      continue;
    }
    if (const std::string reason = objection(info); !reason.empty())
      return fail(ErrorCode::kUnsupported,
                  "{}: model_type {} is unknown and tensor {} {}; refused rather than guessed",
                  checkpoint.path, model_type, info.name, reason);
    map.modules.push_back(describe(checkpoint.tensors[i], static_cast<uint32_t>(i)));
    map.layers = std::max(map.layers, map.modules.back().layer + 1);
    quantizable += map.modules.back().quantizable;
  }
  if (quantizable == 0)
    return fail(ErrorCode::kUnsupported,
                "{}: model_type {} is unknown and none of its {} tensors looks like a Linear or an "
                "Embedding",
                checkpoint.path, model_type, checkpoint.tensors.size());
  std::stable_sort(
      map.modules.begin(), map.modules.end(),
      [](const OutputModule& a, const OutputModule& b) { return position(a) < position(b); });
  map.notes.push_back(fmt::format(
      "model_type {} has no table: {} plain Linears and Embeddings are quantized, {} other tensors "
      "copied",
      model_type, quantizable, map.modules.size() - quantizable));
  return map;
}

}  // namespace sluice::families
