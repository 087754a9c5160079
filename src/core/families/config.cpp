// The configuration's numbers, range-checked, and the choice of the output's float type.
#include <algorithm>

#include "families/family.h"

namespace sluice::families {
namespace {

using numerics::DType;

// Far above any published model, and small enough that products of two fit in 64 bits.
constexpr int64_t kWidthMax = 1 << 22;
constexpr int64_t kVocabMax = 1 << 26;
constexpr int64_t kHeadsMax = 1 << 16;
constexpr int64_t kLayersMax = 1024;
constexpr int64_t kExpertsMax = 4096;

// Reads keys of one configuration, remembering the first error.
class Reader {
 public:
  Reader(const Json& config, std::string label) : config_(config), label_(std::move(label)) {}

  bool has(std::string_view key) const { return json_find(config_, key) != nullptr; }
  bool is_null(std::string_view key) const {
    const auto found = config_.find(key);
    return found != config_.end() && found->is_null();
  }

  uint64_t integer(std::string_view key, int64_t low, int64_t high) {
    return keep(json_int(config_, key, low, high, label_), int64_t{1});
  }
  uint64_t integer_or(std::string_view key, int64_t low, int64_t high, uint64_t fallback) {
    return has(key) ? integer(key, low, high) : fallback;
  }
  bool flag_or(std::string_view key, bool fallback) {
    return has(key) ? keep(json_bool(config_, key, label_), fallback) : fallback;
  }
  std::vector<uint64_t> integers_or_none(std::string_view key, int64_t low, int64_t high) {
    std::vector<uint64_t> values;
    if (!has(key)) return values;
    const Json* array = keep(json_array(config_, key, label_), static_cast<const Json*>(nullptr));
    if (array == nullptr) return values;
    for (const Json& element : *array) {
      const Json holder{{key, element}};
      values.push_back(keep(json_int(holder, key, low, high, label_), int64_t{0}));
    }
    std::sort(values.begin(), values.end());
    return values;
  }
  std::vector<std::string> texts_or_none(std::string_view key) {
    std::vector<std::string> values;
    if (!has(key)) return values;
    const Json* array = keep(json_array(config_, key, label_), static_cast<const Json*>(nullptr));
    if (array == nullptr) return values;
    for (const Json& element : *array) {
      const Json holder{{key, element}};
      values.push_back(keep(json_string(holder, key, label_), std::string()));
    }
    return values;
  }
  const std::string& label() const { return label_; }
  void refuse(Error error) {
    if (status_) status_ = std::unexpected(std::move(error));
  }
  Status status() && { return std::move(status_); }

 private:
  template <class T>
  T keep(Result<T> result, T fallback) {
    if (result) return *std::move(result);
    refuse(std::move(result).error());
    return fallback;
  }

  const Json& config_;
  std::string label_;
  Status status_;
};

// Errors go to the reader. Adds head_dim where mlx_lm requires it and the source leaves it out.
uint64_t read_head_dim(Reader& reader, const Family& family, const ModelDims& dims,
                       const std::string& label, Json& additions) {
  const bool given = reader.has("head_dim");
  if (given && family.head_dim != HeadDim::kFromHidden)
    return reader.integer("head_dim", 1, kHeadsMax);
  if (dims.hidden_size % dims.heads != 0) {
    reader.refuse({ErrorCode::kCorrupt,
                   fmt::format("{}: hidden_size {} is no multiple of num_attention_heads {}, and "
                               "head_dim is missing",
                               label, dims.hidden_size, dims.heads)});
    return 1;
  }
  const uint64_t head_dim = dims.hidden_size / dims.heads;
  if (given && reader.integer("head_dim", 1, kHeadsMax) != head_dim)
    reader.refuse({ErrorCode::kUnsupported,
                   fmt::format("{}: head_dim differs from hidden_size / num_attention_heads = {}, "
                               "which stock mlx_lm does not read for {}",
                               label, head_dim, family.name)});
  if (family.head_dim == HeadDim::kRequired) additions["head_dim"] = head_dim;
  return head_dim;
}

void read_latent_attention(Reader& reader, ModelDims& dims) {
  dims.q_lora_rank =
      reader.is_null("q_lora_rank") ? 0 : reader.integer("q_lora_rank", 1, kWidthMax);
  dims.kv_lora_rank = reader.integer("kv_lora_rank", 1, kWidthMax);
  dims.qk_nope_head_dim = reader.integer("qk_nope_head_dim", 1, kHeadsMax);
  dims.qk_rope_head_dim = reader.integer("qk_rope_head_dim", 1, kHeadsMax);
  dims.v_head_dim = reader.integer("v_head_dim", 1, kHeadsMax);
}

// Sums of these stay far below 2^64.
void read_linear_attention(Reader& reader, const std::string& label, ModelDims& dims) {
  dims.full_attention_interval = reader.integer_or("full_attention_interval", 1, kLayersMax, 4);
  dims.linear_key_heads = reader.integer("linear_num_key_heads", 1, kHeadsMax);
  dims.linear_value_heads = reader.integer("linear_num_value_heads", 1, kHeadsMax);
  dims.linear_key_head_dim = reader.integer("linear_key_head_dim", 1, kHeadsMax);
  dims.linear_value_head_dim = reader.integer("linear_value_head_dim", 1, kHeadsMax);
  dims.linear_conv_kernel_dim = reader.integer("linear_conv_kernel_dim", 2, kHeadsMax);
  if (dims.linear_value_heads % dims.linear_key_heads != 0)
    reader.refuse(
        {ErrorCode::kCorrupt, fmt::format("{}: linear_num_value_heads {} is no multiple of "
                                          "linear_num_key_heads {}",
                                          label, dims.linear_value_heads, dims.linear_key_heads)});
}

// mlx_lm goes by full_attention_interval alone.
Status check_layer_types(const Json& config, const std::string& label, const ModelDims& dims) {
  const Json* types = json_find(config, "layer_types");
  if (types == nullptr) return {};
  if (!types->is_array() || types->size() != dims.layers)
    return fail(ErrorCode::kCorrupt, "{}: layer_types should be a list of {} layers", label,
                dims.layers);
  for (size_t layer = 0; layer < types->size(); ++layer) {
    const Json& type = (*types)[layer];
    if (type != "full_attention" && type != "linear_attention")
      return fail(ErrorCode::kUnsupported,
                  "{}: layer_types says {} for layer {}, only \"full_attention\" and "
                  "\"linear_attention\" are known",
                  label, dump_json(type), layer);
    if ((type == "linear_attention") != dims.linear_layer(layer))
      return fail(ErrorCode::kUnsupported,
                  "{}: layer_types says {} for layer {}, which differs from "
                  "full_attention_interval {}, by which stock mlx_lm goes",
                  label, dump_json(type), layer, dims.full_attention_interval);
  }
  return {};
}

constexpr std::pair<std::string_view, LayerKind> kLayerKinds[] = {
    {"M", LayerKind::kMamba},     {"linear_attention", LayerKind::kMamba},
    {"mamba", LayerKind::kMamba}, {"conv", LayerKind::kMamba},
    {"*", LayerKind::kAttention}, {"full_attention", LayerKind::kAttention},
    {"-", LayerKind::kMlp},       {"attention", LayerKind::kAttention},
    {"mlp", LayerKind::kMlp},     {"E", LayerKind::kMoe},
    {"moe", LayerKind::kMoe}};

// One character for each layer, or one word, under any of three keys. The pattern says how many
// layers there are, whatever num_hidden_layers does.
Status read_pattern(const Json& config, const std::string& label, ModelDims& dims) {
  std::vector<std::string> names;
  const auto take = [&](const Json& list) {
    for (const Json& name : list) names.push_back(name.is_string() ? name.get<std::string>() : "?");
  };
  if (const Json* pattern = json_find(config, "hybrid_override_pattern")) {
    if (pattern->is_string())
      for (const char kind : pattern->get<std::string>()) names.emplace_back(1, kind);
    else if (pattern->is_array())
      take(*pattern);
  } else {
    for (const char* key : {"layers_block_type", "layer_types"})
      if (const Json* list = json_find(config, key); list && list->is_array() && names.empty())
        take(*list);
  }
  if (names.empty() || names.size() > static_cast<size_t>(kLayersMax))
    return fail(ErrorCode::kCorrupt,
                "{}: hybrid_override_pattern or layers_block_type should say what each of 1 to {} "
                "layers is",
                label, kLayersMax);
  for (const std::string& name : names) {
    const auto* known =
        std::ranges::find(kLayerKinds, name, &std::pair<std::string_view, LayerKind>::first);
    if (known == std::end(kLayerKinds))
      return fail(ErrorCode::kUnsupported, "{}: layer {} is of the unknown kind \"{}\"", label,
                  dims.pattern.size(), name);
    dims.pattern.push_back(known->second);
  }
  dims.layers = dims.pattern.size();
  return {};
}

void read_mamba(Reader& reader, ModelDims& dims) {
  dims.mamba_heads = reader.integer("mamba_num_heads", 1, kHeadsMax);
  dims.mamba_head_dim = reader.integer("mamba_head_dim", 1, kHeadsMax);
  dims.mamba_groups = reader.integer("n_groups", 1, kHeadsMax);
  dims.mamba_state = reader.integer("ssm_state_size", 1, kHeadsMax);
  dims.linear_conv_kernel_dim = reader.integer("conv_kernel", 2, kHeadsMax);
  dims.conv_bias = reader.flag_or("use_conv_bias", false);
  dims.mamba_proj_bias = reader.flag_or("mamba_proj_bias", false);
}

void read_nemotron_experts(Reader& reader, ModelDims& dims) {
  if (std::ranges::find(dims.pattern, LayerKind::kMoe) == dims.pattern.end()) return;
  dims.experts = reader.integer("n_routed_experts", 1, kExpertsMax);
  dims.expert_intermediate_size = reader.integer("moe_intermediate_size", 1, kWidthMax);
  dims.expert_latent_size = reader.integer_or("moe_latent_size", 1, kWidthMax, 0);
  if (reader.has("n_shared_experts"))
    dims.shared_intermediate_size =
        reader.integer("moe_shared_expert_intermediate_size", 1, kWidthMax);
}

void read_indexer(Reader& reader, ModelDims& dims) {
  dims.index_heads = reader.integer("index_n_heads", 1, kHeadsMax);
  dims.index_head_dim = reader.integer("index_head_dim", 1, kHeadsMax);
  if (dims.q_lora_rank == 0)
    reader.refuse(
        {ErrorCode::kUnsupported,
         fmt::format("{}: an indexer is known for queries of low rank only, and q_lora_rank "
                     "is null",
                     reader.label())});
  const std::vector<std::string> types = reader.texts_or_none("indexer_types");
  if (std::ranges::any_of(types, [](const std::string& type) { return type != "full"; }))
    reader.refuse(
        {ErrorCode::kUnsupported,
         fmt::format("{}: layers share an indexer (indexer_types), which stock mlx_lm does "
                     "not know",
                     reader.label())});
}

// transformers 5 lists the kind of every layer; mlx_lm knows the number of the first sparse one.
void read_first_sparse_layer(Reader& reader, ModelDims& dims, Json& additions) {
  const std::vector<std::string> types = reader.texts_or_none("mlp_layer_types");
  if (types.empty() || reader.has("first_k_dense_replace"))
    dims.first_sparse_layer = reader.integer("first_k_dense_replace", 0, kLayersMax);
  else
    dims.first_sparse_layer =
        static_cast<uint64_t>(std::ranges::find(types, std::string("sparse")) - types.begin());
  for (uint64_t layer = 0; layer < types.size(); ++layer) {
    const bool sparse = dims.sparse_layer(layer);
    if (types.size() == dims.layers && types[layer] == (sparse ? "sparse" : "dense")) continue;
    return reader.refuse(
        {ErrorCode::kUnsupported,
         fmt::format("{}: mlp_layer_types should be {} layers, \"dense\" up to a first one and "
                     "\"sparse\" from there on, which is all that stock mlx_lm knows",
                     reader.label(), dims.layers)});
  }
  if (!reader.has("first_k_dense_replace"))
    additions["first_k_dense_replace"] = dims.first_sparse_layer;
}

void read_deepseek_experts(Reader& reader, ModelDims& dims, Json& additions) {
  dims.experts = reader.integer("n_routed_experts", 1, kExpertsMax);
  const uint64_t shared = reader.integer_or("n_shared_experts", 0, kExpertsMax, 0);
  dims.sparse_step = reader.integer_or("moe_layer_freq", 1, kLayersMax, 1);
  dims.sparse_offset = 0;
  read_first_sparse_layer(reader, dims, additions);
  dims.expert_intermediate_size = reader.integer("moe_intermediate_size", 1, kWidthMax);
  dims.shared_intermediate_size = dims.expert_intermediate_size * shared;
}

void read_shared_expert(Reader& reader, ModelDims& dims) {
  if (dims.experts == 0) return;
  dims.shared_intermediate_size = reader.integer("shared_expert_intermediate_size", 1, kWidthMax);
}

void read_qwen_experts(Reader& reader, ModelDims& dims, Json& additions) {
  dims.experts = reader.integer("num_experts", 0, kExpertsMax);
  dims.sparse_step = reader.integer_or("decoder_sparse_step", 1, kLayersMax, 1);
  dims.mlp_only_layers = reader.integers_or_none("mlp_only_layers", 0, kLayersMax);
  if (dims.experts > 0)
    dims.expert_intermediate_size = reader.integer("moe_intermediate_size", 1, kWidthMax);
  if (!reader.has("decoder_sparse_step")) additions["decoder_sparse_step"] = 1;
  if (!reader.has("mlp_only_layers")) additions["mlp_only_layers"] = Json::array();
}

// intermediate_size is that of experts and the shared one; dense layers have their own.
void read_llama4_experts(Reader& reader, ModelDims& dims) {
  dims.experts = reader.integer("num_local_experts", 1, kExpertsMax);
  dims.sparse_step = reader.integer("interleave_moe_layer_step", 1, kLayersMax);
  dims.expert_intermediate_size = dims.shared_intermediate_size = dims.intermediate_size;
  dims.intermediate_size = reader.integer("intermediate_size_mlp", 1, kWidthMax);
}

// mlx_lm goes by interleave_moe_layer_step alone.
Status check_moe_layers(const Json& config, const std::string& label, const ModelDims& dims) {
  const Json* list = json_find(config, "moe_layers");
  if (list == nullptr) return {};
  Json expected = Json::array();
  for (uint64_t layer = 0; layer < dims.layers; ++layer)
    if (dims.sparse_layer(layer)) expected.push_back(layer);
  if (*list == expected) return {};
  return fail(
      ErrorCode::kUnsupported,
      "{}: moe_layers differs from interleave_moe_layer_step {}, by which stock mlx_lm goes", label,
      dims.sparse_step);
}

// Defaults are transformers'; where mlx_lm has others, the output's configuration says them.
void read_gemma4(Reader& reader, const Json& config, const std::string& label, ModelDims& dims,
                 Json& additions) {
  const uint64_t pattern = reader.integer_or("sliding_window_pattern", 1, kLayersMax, 6);
  const Json* types = json_find(config, "layer_types");
  if (types != nullptr && (!types->is_array() || types->size() != dims.layers)) {
    reader.refuse({ErrorCode::kCorrupt, fmt::format("{}: layer_types should be a list of {} layers",
                                                    label, dims.layers)});
    types = nullptr;
  }
  for (uint64_t layer = 0; layer < dims.layers; ++layer) {
    const bool global =
        types != nullptr ? (*types)[layer] == "full_attention" : (layer + 1) % pattern == 0;
    if (global) dims.global_layers.push_back(layer);
    if (types != nullptr && !global && (*types)[layer] != "sliding_attention")
      reader.refuse(
          {ErrorCode::kUnsupported, fmt::format("{}: layer_types says {} for layer {}", label,
                                                dump_json((*types)[layer]), layer)});
    if (types == nullptr)
      additions["layer_types"].push_back(global ? "full_attention" : "sliding_attention");
  }
  dims.global_head_dim = reader.integer_or("global_head_dim", 1, kHeadsMax, 512);
  dims.keys_are_values = reader.flag_or("attention_k_eq_v", false);
  dims.global_kv_heads = dims.keys_are_values ? reader.integer_or("num_global_key_value_heads", 1,
                                                                  kHeadsMax, dims.kv_heads)
                                              : dims.kv_heads;
  const uint64_t borrowing =
      reader.integer_or("num_kv_shared_layers", 0, static_cast<int64_t>(dims.layers), 0);
  if (!reader.has("num_kv_shared_layers")) additions["num_kv_shared_layers"] = 0;
  if (borrowing > 0 && borrowing <= dims.layers)
    dims.first_borrowing_layer = dims.layers - borrowing;
  dims.double_wide_mlp = reader.flag_or("use_double_wide_mlp", false);
  if (!reader.has("use_double_wide_mlp")) additions["use_double_wide_mlp"] = false;
  if (!reader.has("final_logit_softcapping")) additions["final_logit_softcapping"] = nullptr;
  dims.layer_input_size = reader.integer_or("hidden_size_per_layer_input", 0, kWidthMax, 256);
  dims.layer_input_vocab_size =
      reader.integer_or("vocab_size_per_layer_input", 1, kVocabMax, dims.vocab_size);
  if (!reader.flag_or("enable_moe_block", false)) return;
  dims.experts = reader.integer("num_experts", 1, kExpertsMax);
  dims.expert_intermediate_size = reader.integer("moe_intermediate_size", 1, kWidthMax);
}

// With what the family leaves to transformers, which the output's configuration then says too.
Json with_defaults(const Json& config, const Family& family, Json& additions) {
  Json whole = config;
  for (const auto& [key, value] : family.defaults)
    if (json_find(config, key) == nullptr) whole[key] = additions[key] = value;
  return whole;
}

// mlx_lm gives every layer experts and the expert that all tokens go through.
void read_qwen2_experts(Reader& reader, ModelDims& dims, const std::string& label) {
  dims.experts = reader.integer("num_experts", 1, kExpertsMax);
  dims.expert_intermediate_size = reader.integer("moe_intermediate_size", 1, kWidthMax);
  dims.shared_intermediate_size = reader.integer("shared_expert_intermediate_size", 1, kWidthMax);
  const bool all_sparse = reader.integer_or("decoder_sparse_step", 1, kLayersMax, 1) == 1 &&
                          reader.integers_or_none("mlp_only_layers", 0, kLayersMax).empty();
  if (!all_sparse)
    reader.refuse({ErrorCode::kUnsupported,
                   fmt::format("{}: layers without experts (decoder_sparse_step, mlp_only_layers) "
                               "are not known to stock mlx_lm in this family",
                               label)});
}

const OutputType kOutputTypes[] = {
    {DType::kBF16, "bfloat16"}, {DType::kF16, "float16"}, {DType::kF32, "float32"}};

const OutputType* output_type(std::string_view name) {
  if (name.starts_with("torch.")) name.remove_prefix(6);
  for (const OutputType& type : kOutputTypes)
    if (type.name == name) return &type;
  return nullptr;
}

const OutputType* configured_type(const Json& config) {
  const Json* text = json_find(config, "text_config");
  for (const Json* level : {&config, text}) {
    if (level == nullptr) continue;
    for (const std::string_view key : {"torch_dtype", "dtype"}) {
      const Json* value = json_find(*level, key);
      if (value == nullptr || !value->is_string()) continue;
      const OutputType* type = output_type(value->get_ref<const std::string&>());
      if (type != nullptr) return type;
    }
  }
  return nullptr;
}

// The type of most float elements; the first of kOutputTypes when none has any.
const OutputType& majority_type(const io::Checkpoint& checkpoint) {
  uint64_t elements[std::size(kOutputTypes)] = {};
  for (const io::StoredTensor& tensor : checkpoint.tensors) {
    const DType dtype = tensor.packing != nullptr ? tensor.packing->model_dtype : tensor.info.dtype;
    for (size_t i = 0; i < std::size(kOutputTypes); ++i)
      if (dtype == kOutputTypes[i].dtype)
        elements[i] += numerics::element_count(tensor.info.shape).value_or(0);
  }
  const auto most = std::max_element(std::begin(elements), std::end(elements));
  return kOutputTypes[most - std::begin(elements)];
}

bool every_matrix_is_bf16(const io::Checkpoint& checkpoint) {
  return std::all_of(checkpoint.tensors.begin(), checkpoint.tensors.end(),
                     [](const io::StoredTensor& tensor) {
                       return tensor.info.shape.size() < 2 || tensor.info.dtype == DType::kBF16;
                     });
}

}  // namespace

std::string config_label(const io::Checkpoint& checkpoint) {
  const bool gguf = checkpoint.kind == io::SourceKind::kGguf;
  return fmt::format("{}: {}", checkpoint.path, gguf ? "metadata" : "config.json");
}

const Json& text_config(const Json& config) {
  const Json* text = json_find(config, "text_config");
  return text != nullptr && text->is_object() ? *text : config;
}

std::string text_config_label(const io::Checkpoint& checkpoint) {
  const bool nested = &text_config(checkpoint.config) != &checkpoint.config;
  return config_label(checkpoint) + (nested ? ", text_config" : "");
}

bool ModelDims::sparse_layer(uint64_t layer) const {
  const bool dense = std::binary_search(mlp_only_layers.begin(), mlp_only_layers.end(), layer);
  return experts > 0 && !dense && layer >= first_sparse_layer &&
         (layer + sparse_offset) % sparse_step == 0;
}

bool ModelDims::global_layer(uint64_t layer) const {
  return std::binary_search(global_layers.begin(), global_layers.end(), layer);
}

uint64_t ModelDims::length(Dim dim) const {
  const uint64_t linear_keys = linear_key_heads * linear_key_head_dim;
  const uint64_t linear_values = linear_value_heads * linear_value_head_dim;
  const uint64_t mamba_inner = mamba_heads * mamba_head_dim;
  const uint64_t mamba_conv = mamba_inner + 2 * mamba_groups * mamba_state;
  switch (dim) {
    case Dim::kNone: break;
    case Dim::kVocab: return vocab_size;
    case Dim::kHidden: return hidden_size;
    case Dim::kIntermediate: return intermediate_size;
    case Dim::kQRows: return heads * head_dim;
    case Dim::kKvRows: return kv_heads * head_dim;
    case Dim::kHeadDim: return head_dim;
    case Dim::kExperts: return experts;
    case Dim::kExpertIntermediate: return expert_intermediate_size;
    case Dim::kSharedIntermediate: return shared_intermediate_size;
    case Dim::kHeads: return heads;
    case Dim::kQLoraRank: return q_lora_rank;
    case Dim::kKvLoraRank: return kv_lora_rank;
    case Dim::kMlaQRows: return heads * (qk_nope_head_dim + qk_rope_head_dim);
    case Dim::kKvARows: return kv_lora_rank + qk_rope_head_dim;
    case Dim::kQkNopeHeadDim: return qk_nope_head_dim;
    case Dim::kVHeadDim: return v_head_dim;
    case Dim::kValueColumns: return heads * v_head_dim;
    case Dim::kGatedQRows: return 2 * heads * head_dim;
    case Dim::kLinearQkvRows: return 2 * linear_keys + linear_values;
    case Dim::kLinearQkvzRows: return 2 * linear_keys + 2 * linear_values;
    case Dim::kLinearBaRows: return 2 * linear_value_heads;
    case Dim::kLinearValueRows: return linear_values;
    case Dim::kLinearValueHeads: return linear_value_heads;
    case Dim::kLinearValueHeadDim: return linear_value_head_dim;
    case Dim::kLinearConvKernelDim: return linear_conv_kernel_dim;
    case Dim::kOne: return 1;
    case Dim::kKvBRows: return heads * (qk_nope_head_dim + v_head_dim);
    case Dim::kIndexHeads: return index_heads;
    case Dim::kIndexHeadDim: return index_head_dim;
    case Dim::kIndexQRows: return index_heads * index_head_dim;
    case Dim::kGlobalQRows: return heads * global_head_dim;
    case Dim::kGlobalKvRows: return global_kv_heads * global_head_dim;
    case Dim::kGlobalHeadDim: return global_head_dim;
    case Dim::kDoubleIntermediate: return 2 * intermediate_size;
    case Dim::kLayerInput: return layer_input_size;
    case Dim::kLayerInputsTogether: return layers * layer_input_size;
    case Dim::kLayerInputVocab: return layer_input_vocab_size;
    case Dim::kQkvRows: return (heads + 2 * kv_heads) * head_dim;
    case Dim::kGateUpRows: return 2 * intermediate_size;
    case Dim::kMambaInner: return mamba_inner;
    case Dim::kMambaConvChannels: return mamba_conv;
    case Dim::kMambaInRows: return mamba_inner + mamba_conv + mamba_heads;
    case Dim::kMambaHeads: return mamba_heads;
    case Dim::kExpertColumns: return expert_latent_size > 0 ? expert_latent_size : hidden_size;
    case Dim::kExpertLatent: return expert_latent_size;
  }
  SLUICE_CHECK(false);
}

Result<ModelDims> read_dims(const io::Checkpoint& checkpoint, const Family& family,
                            Json& additions) {
  const std::string label = text_config_label(checkpoint);
  const Json config = with_defaults(text_config(checkpoint.config), family, additions);
  Reader reader(config, label);
  ModelDims dims;
  dims.hidden_size = reader.integer("hidden_size", 1, kWidthMax);
  dims.vocab_size = reader.integer("vocab_size", 1, kVocabMax);
  if (family.layer_pattern)
    SLUICE_TRY(read_pattern(config, label, dims));
  else
    dims.layers = reader.integer("num_hidden_layers", 1, kLayersMax);
  dims.heads = reader.integer("num_attention_heads", 1, kHeadsMax);
  dims.kv_heads = reader.integer_or("num_key_value_heads", 1, kHeadsMax, dims.heads);
  if (!reader.has("num_key_value_heads")) additions["num_key_value_heads"] = dims.kv_heads;
  if (family.head_dim == HeadDim::kLatent)
    read_latent_attention(reader, dims);
  else
    dims.head_dim = read_head_dim(reader, family, dims, label, additions);
  if (checkpoint.kind == io::SourceKind::kGguf && dims.head_dim % 2 != 0)
    reader.refuse({ErrorCode::kCorrupt,
                   fmt::format("{}: head_dim {} is odd, so its rows cannot have been interleaved",
                               label, dims.head_dim)});
  if (family.has_indexer) read_indexer(reader, dims);
  dims.attention_bias = reader.flag_or("attention_bias", false);
  dims.mlp_bias = reader.flag_or("mlp_bias", false);
  dims.qk_norm = reader.flag_or("use_qk_norm", family.qk_norm);
  if (family.experts == ExpertKeys::kQwen) read_qwen_experts(reader, dims, additions);
  if (family.experts == ExpertKeys::kQwen2) read_qwen2_experts(reader, dims, label);
  if (family.experts == ExpertKeys::kDeepseek) read_deepseek_experts(reader, dims, additions);
  if (family.experts == ExpertKeys::kQwenShared) {
    read_qwen_experts(reader, dims, additions);
    read_shared_expert(reader, dims);
  }
  if (family.experts == ExpertKeys::kQwenAllSparse) {
    dims.experts = reader.integer_or("num_experts", 0, kExpertsMax, 0);
    if (dims.experts > 0)
      dims.expert_intermediate_size = reader.integer("moe_intermediate_size", 1, kWidthMax);
    read_shared_expert(reader, dims);
  }
  if (family.layer_pattern) read_mamba(reader, dims);
  if (family.experts == ExpertKeys::kNemotron) read_nemotron_experts(reader, dims);
  const bool all_sparse = family.experts == ExpertKeys::kQwenAllSparse && dims.experts > 0;
  if (!all_sparse) dims.intermediate_size = reader.integer("intermediate_size", 1, kWidthMax);
  if (family.experts == ExpertKeys::kMixtral || family.experts == ExpertKeys::kOlmoe) {
    const bool local = family.experts == ExpertKeys::kMixtral;
    dims.experts = reader.integer(local ? "num_local_experts" : "num_experts", 1, kExpertsMax);
    dims.expert_intermediate_size = dims.intermediate_size;
  }
  if (family.experts == ExpertKeys::kLlama4) read_llama4_experts(reader, dims);
  if (family.experts == ExpertKeys::kGemma4) read_gemma4(reader, config, label, dims, additions);
  if (family.linear_attention) read_linear_attention(reader, label, dims);
  SLUICE_TRY(std::move(reader).status());
  if (family.experts == ExpertKeys::kLlama4) SLUICE_TRY(check_moe_layers(config, label, dims));
  if (family.linear_attention) SLUICE_TRY(check_layer_types(config, label, dims));
  return dims;
}

Result<OutputType> choose_dtype(const io::Checkpoint& checkpoint, std::string_view dtype_override) {
  if (!dtype_override.empty()) {
    const OutputType* type = output_type(dtype_override);
    if (type == nullptr)
      return fail(ErrorCode::kInvalidArgument,
                  "dtype \"{}\" is none of float16, bfloat16 and float32", dtype_override);
    return *type;
  }
  if (checkpoint.kind == io::SourceKind::kGguf)
    return *output_type(every_matrix_is_bf16(checkpoint) ? "bfloat16" : "float16");
  const OutputType* configured = configured_type(checkpoint.config);
  return configured != nullptr ? *configured : majority_type(checkpoint);
}

}  // namespace sluice::families
