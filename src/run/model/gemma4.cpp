// Gemma 4: Gemma 3's layers with plain norms, and what its models have beside: wider heads, fewer
// of them and a rotation of their own in layers that see everything, values that are normalised and
// may be the keys, keys and values that the last layers borrow, experts beside the feed-forward
// part, inputs of their own for every layer.
#include <algorithm>

#include "model/gemma.h"

namespace sluice::model {
namespace {

constexpr uint64_t kWindowDefault = 512;
enum Rope : uint32_t { kGlobal, kLocal };

// By the kind of layer; where there are none, transformers' defaults, which are mlx_lm's.
Status read_ropes(const Json& config, const std::string& label, ModelConfig& out) {
  static const Json kDefaults = {
      {"full_attention",
       {{"rope_type", "proportional"}, {"partial_rotary_factor", 0.25}, {"rope_theta", 1e6}}},
      {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 1e4}}}};
  const Json* found = json_find(config, "rope_parameters");
  const Json& kinds = found != nullptr ? *found : kDefaults;
  const auto table = [&](std::string_view kind, uint64_t head_dim) -> Status {
    const Json* numbers = json_find(kinds, kind);
    if (numbers == nullptr || !numbers->is_object())
      return fail(ErrorCode::kCorrupt, "{}: rope_parameters has no numbers of {}", label, kind);
    Json keys = {{"rope_parameters", *numbers}};
    // Both references turn whole heads where the rule is not a proportional one.
    if (numbers->value("rope_type", "default") != "proportional")
      keys["rope_parameters"].erase("partial_rotary_factor");
    if (const Json* length = json_find(config, "max_position_embeddings"))
      keys["max_position_embeddings"] = *length;
    SLUICE_ASSIGN(auto scaling, read_rope(keys, head_dim, 1e4, label));
    out.ropes.push_back({.scaling = std::move(scaling)});
    return {};
  };
  SLUICE_TRY(table("full_attention", out.dims.global_head_dim));
  return table("sliding_attention", out.dims.head_dim);
}

// The last layer of that kind that keeps keys and values.
Result<uint32_t> lender_of(uint64_t layer, const families::ModelDims& dims,
                           const std::string& label) {
  for (uint64_t other = dims.first_borrowing_layer; other-- > 0;)
    if (dims.global_layer(other) == dims.global_layer(layer)) return static_cast<uint32_t>(other);
  return fail(ErrorCode::kCorrupt,
              "{}: layer {} borrows keys and values (num_kv_shared_layers), but no layer of its "
              "kind keeps any",
              label, layer);
}

Status read_layers(const Json& config, const std::string& label, ModelConfig& out) {
  const families::ModelDims& dims = out.dims;
  SLUICE_ASSIGN(const uint64_t window,
                integer_or(config, "sliding_window", 1, UINT32_MAX, kWindowDefault, label));
  if (dims.heads % dims.global_kv_heads != 0)
    return fail(ErrorCode::kCorrupt,
                "{}: num_attention_heads {} is no multiple of num_global_key_value_heads {}", label,
                dims.heads, dims.global_kv_heads);
  const auto global_dim = static_cast<uint32_t>(dims.global_head_dim);
  for (uint64_t i = 0; i < out.layers.size(); ++i) {
    LayerConfig& layer = out.layers[i];
    if (dims.global_layer(i)) {
      layer.kv = {static_cast<uint32_t>(dims.global_kv_heads), global_dim, global_dim};
      layer.rope = kGlobal;
    } else {
      layer.window = static_cast<uint32_t>(window);
      layer.rope = kLocal;
    }
    if (i < dims.first_borrowing_layer) continue;
    SLUICE_ASSIGN(layer.lender, lender_of(i, dims, label));
    if (dims.double_wide_mlp) layer.intermediate_size *= 2;
  }
  return {};
}

Status read_experts(const Json& config, const std::string& label, ModelConfig& out) {
  if (!out.sparse()) return {};
  SLUICE_ASSIGN(const int64_t top, json_int(config, "top_k_experts", 1,
                                            static_cast<int64_t>(out.dims.experts), label));
  out.router.top_k = static_cast<uint32_t>(top);
  out.router.score = RouterScore::kSoftmaxOfChosen;
  out.expert_names = {.router = "router.proj",
                      .experts = "experts.switch_glu",
                      .expert_scale = "router.per_expert_scale",
                      .router_norm = "router.scale"};
  out.dense_beside_experts = true;
  return {};
}

Status read_layer_inputs(const std::string& label, ModelConfig& out) {
  const families::ModelDims& dims = out.dims;
  if (dims.layer_input_size == 0) return {};
  if (dims.layer_input_vocab_size < dims.vocab_size)
    return fail(ErrorCode::kUnsupported,
                "{}: vocab_size_per_layer_input {} is less than vocab_size {}, and what the inputs "
                "of the other tokens would be is not known",
                label, dims.layer_input_vocab_size, dims.vocab_size);
  out.layer_inputs = true;
  out.layer_input_multiplier = embedding_root(dims.layer_input_size, out.dtype);
  return {};
}

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  SLUICE_TRY(read_epsilon(config, label, 1e-6, out));
  SLUICE_TRY(read_gemma_activation(config, label, out));
  // "vision" is about tokens of images alone.
  SLUICE_TRY(expect_text(config, "use_bidirectional_attention", "vision", label));
  SLUICE_TRY(read_ropes(config, label, out));
  SLUICE_TRY(read_layers(config, label, out));
  SLUICE_TRY(read_experts(config, label, out));
  SLUICE_TRY(read_layer_inputs(label, out));
  SLUICE_ASSIGN(out.logits_softcap, factor_or(config, "final_logit_softcapping", 0, label));
  out.attention_scale = 1;
  out.qk_norm = QkNorm::kHead;
  out.value_norm = true;
  out.keys_are_values = out.dims.keys_are_values;
  out.sandwich_norms = true;
  out.layer_scalar = true;
  out.embedding_multiplier = embedding_root(out.dims.hidden_size, out.dtype);
  return {};
}

}  // namespace

constinit const Architecture kGemma4 = {"gemma4", configure};

}  // namespace sluice::model
