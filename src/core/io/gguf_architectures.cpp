#include "io/gguf_architectures.h"

#include "io/names.h"

namespace sluice::io {
namespace {

Status add_mixtral_experts(const GgufFields& fields, Json& config) {
  SLUICE_ASSIGN(const uint64_t count, fields.required(".expert_count", 1, kGgufExpertsMax));
  SLUICE_ASSIGN(const uint64_t used, fields.required(".expert_used_count", 1, count));
  config["num_experts_per_tok"] = used;
  config["output_router_logits"] = false;
  config["num_local_experts"] = count;
  return {};
}

// normalises: whether llama.cpp always divides by the sum of the chosen weights.
Status add_qwen_experts(const GgufFields& fields, bool normalises, Json& config) {
  SLUICE_ASSIGN(const uint64_t count, fields.required(".expert_count", 1, kGgufExpertsMax));
  SLUICE_ASSIGN(const uint64_t used, fields.required(".expert_used_count", 1, count));
  SLUICE_ASSIGN(const uint64_t width,
                fields.required(".expert_feed_forward_length", 1, kGgufWidthMax));
  SLUICE_ASSIGN(const auto normalised, fields.boolean(".expert_weights_norm"));
  config["num_experts_per_tok"] = used;
  config["output_router_logits"] = false;
  config["num_experts"] = count;
  config["moe_intermediate_size"] = width;
  config["norm_topk_prob"] = normalised.value_or(normalises);
  config["decoder_sparse_step"] = 1;
  config["mlp_only_layers"] = Json::array();
  // Qwen's mixtures have no dense layers here, but loaders want the key.
  if (!config.contains("intermediate_size")) config["intermediate_size"] = width;
  return {};
}

Status complete_qwen3_moe(const GgufFields& fields, Json& config) {
  return add_qwen_experts(fields, true, config);
}

Status add_shared_expert(const GgufFields& fields, Json& config) {
  SLUICE_ASSIGN(const uint64_t width,
                fields.required(".expert_shared_feed_forward_length", 1, kGgufWidthMax));
  config["shared_expert_intermediate_size"] = width;
  return {};
}

// ---- Qwen3-Next and Qwen3.5 ----

constexpr std::string_view kHybridUnderstood[] = {".nextn_predict_layers", ".expert_shared_count"};

// Some files list the layers of linear attention; stock loaders go by the interval.
Status check_recurrent_layers(const GgufFields& fields, uint64_t layers, uint64_t interval) {
  SLUICE_ASSIGN(const GgufArray* list, fields.array(".attention.recurrent_layers"));
  if (list == nullptr) return {};
  for (uint64_t layer = 0; layer < layers && layer < list->size(); ++layer)
    if (list->integer(layer) != std::optional<int64_t>((layer + 1) % interval != 0))
      return fail(ErrorCode::kUnsupported, "{}: {} differs from every {}th layer that attends",
                  fields.label(), fields.full(".attention.recurrent_layers"), interval);
  return {};
}

Status add_linear_attention(const GgufFields& fields, Json& config) {
  constexpr uint64_t kHeads = kGgufHeadsMax, kWidth = kGgufWidthMax;
  SLUICE_ASSIGN(const uint64_t taps, fields.required(".ssm.conv_kernel", 2, 64));
  SLUICE_ASSIGN(const uint64_t key_dim, fields.required(".ssm.state_size", 1, kWidth));
  SLUICE_ASSIGN(const uint64_t key_heads, fields.required(".ssm.group_count", 1, kHeads));
  SLUICE_ASSIGN(const uint64_t value_heads, fields.required(".ssm.time_step_rank", 1, kHeads));
  SLUICE_ASSIGN(const uint64_t inner, fields.required(".ssm.inner_size", 1, kWidth));
  SLUICE_ASSIGN(const auto interval, fields.integer(".full_attention_interval", 1, kGgufLayersMax));
  if (inner % value_heads != 0)
    return fail(ErrorCode::kCorrupt, "{}: {} is {}, no multiple of {} heads", fields.label(),
                fields.full(".ssm.inner_size"), inner, value_heads);
  config["linear_conv_kernel_dim"] = taps;
  config["linear_key_head_dim"] = key_dim;
  config["linear_num_key_heads"] = key_heads;
  config["linear_num_value_heads"] = value_heads;
  config["linear_value_head_dim"] = inner / value_heads;
  config["full_attention_interval"] = interval.value_or(4);
  return check_recurrent_layers(fields, config["num_hidden_layers"].get<uint64_t>(),
                                interval.value_or(4));
}

// Blocks for the prediction of several tokens come behind the layers and are counted with them.
Status leave_out_prediction(const GgufFields& fields, Json& config) {
  const auto blocks = config["num_hidden_layers"].get<uint64_t>();
  SLUICE_ASSIGN(const auto predicting, fields.integer(".nextn_predict_layers", 0, blocks - 1));
  config["num_hidden_layers"] = blocks - predicting.value_or(0);
  return {};
}

Status complete_hybrid(const GgufFields& fields, Json& config) {
  SLUICE_TRY(leave_out_prediction(fields, config));
  SLUICE_TRY(add_linear_attention(fields, config));
  config["attention_bias"] = false;
  if (fields.find(".expert_count") == nullptr) return {};
  SLUICE_TRY(add_qwen_experts(fields, true, config));
  return add_shared_expert(fields, config);
}

// The numbers are those of a part of a model that sees.
Status complete_qwen3_5(const GgufFields& fields, Json& config) {
  SLUICE_TRY(complete_hybrid(fields, config));
  Json text = config;
  text["model_type"] = config["model_type"].get<std::string>() + "_text";
  text["rope_parameters"] = {{"rope_type", "default"},
                             {"rope_theta", config["rope_theta"]},
                             {"partial_rotary_factor", config["partial_rotary_factor"]}};
  SLUICE_ASSIGN(const GgufArray* sections, fields.array(".rope.dimension_sections"));
  Json list = Json::array();
  for (size_t i = 0; sections != nullptr && i < sections->size() && i < 3; ++i)
    list.push_back(sections->integer(i).value_or(0));
  if (!list.empty()) {
    text["rope_parameters"]["mrope_section"] = std::move(list);
    text["rope_parameters"]["mrope_interleaved"] = true;
  }
  text["dtype"] = config["torch_dtype"];
  for (const char* key :
       {"architectures", "rope_theta", "rope_scaling", "torch_dtype", "partial_rotary_factor"})
    text.erase(key);
  config = {{"architectures", config["architectures"]},
            {"model_type", config["model_type"]},
            {"tie_word_embeddings", config["tie_word_embeddings"]},
            {"torch_dtype", config["torch_dtype"]},
            {"text_config", std::move(text)}};
  return {};
}

// ---- mixtures ----

constexpr std::string_view kQwen2MoeUnderstood[] = {".expert_shared_count"};

Status complete_qwen2_moe(const GgufFields& fields, Json& config) {
  SLUICE_TRY(add_qwen_experts(fields, false, config));
  config["attention_bias"] = true;
  return add_shared_expert(fields, config);
}

// Experts of intermediate_size.
Status complete_olmoe(const GgufFields& fields, Json& config) {
  SLUICE_ASSIGN(const uint64_t count, fields.required(".expert_count", 1, kGgufExpertsMax));
  SLUICE_ASSIGN(const uint64_t used, fields.required(".expert_used_count", 1, count));
  SLUICE_ASSIGN(const auto normalised, fields.boolean(".expert_weights_norm"));
  config["num_experts"] = count;
  config["num_experts_per_tok"] = used;
  config["norm_topk_prob"] = normalised.value_or(false);
  return {};
}

constexpr std::string_view kGlm4MoeUnderstood[] = {".expert_weights_scale", ".expert_shared_count",
                                                   ".leading_dense_block_count",
                                                   ".nextn_predict_layers"};

Status complete_glm4_moe(const GgufFields& fields, Json& config) {
  SLUICE_TRY(leave_out_prediction(fields, config));
  SLUICE_ASSIGN(const uint64_t count, fields.required(".expert_count", 1, kGgufExpertsMax));
  SLUICE_ASSIGN(const uint64_t used, fields.required(".expert_used_count", 1, count));
  SLUICE_ASSIGN(const uint64_t width,
                fields.required(".expert_feed_forward_length", 1, kGgufWidthMax));
  SLUICE_ASSIGN(const auto shared, fields.integer(".expert_shared_count", 0, kGgufExpertsMax));
  SLUICE_ASSIGN(const auto dense, fields.integer(".leading_dense_block_count", 0, kGgufLayersMax));
  SLUICE_ASSIGN(const auto groups, fields.integer(".expert_group_count", 1, count));
  SLUICE_ASSIGN(const auto kept, fields.integer(".expert_group_used_count", 1, count));
  SLUICE_ASSIGN(const auto scale, fields.number(".expert_weights_scale"));
  SLUICE_ASSIGN(const auto normalised, fields.boolean(".expert_weights_norm"));
  config["n_routed_experts"] = count;
  config["num_experts_per_tok"] = used;
  config["moe_intermediate_size"] = width;
  config["n_shared_experts"] = shared.value_or(0);
  config["first_k_dense_replace"] = dense.value_or(0);
  config["n_group"] = groups.value_or(1);
  config["topk_group"] = kept.value_or(1);
  config["routed_scaling_factor"] = scale.value_or(1);
  config["norm_topk_prob"] = normalised.value_or(true);
  config["use_qk_norm"] = fields.header().find_tensor("blk.0.attn_q_norm.weight") != nullptr;
  return {};
}

constexpr std::string_view kDeepseek2Understood[] = {
    ".expert_weights_scale", ".expert_shared_count", ".leading_dense_block_count",
    ".rope.scaling.yarn_log_multiplier"};

// DeepSeek V3, R1 and Kimi K2. Files count keys and values as one head's of the latent vector.
Status complete_deepseek2(const GgufFields& fields, Json& config) {
  constexpr uint64_t kSigmoid = 2;  // of expert_gating_func
  SLUICE_ASSIGN(const auto gating, fields.integer(".expert_gating_func", 0, 16));
  if (gating.value_or(0) != kSigmoid)
    return fail(ErrorCode::kUnsupported,
                "{}: {} is not that of DeepSeek V3; use the model's safetensors instead",
                fields.label(), fields.full(".expert_gating_func"));
  SLUICE_ASSIGN(const auto q_rank, fields.integer(".attention.q_lora_rank", 1, kGgufWidthMax));
  SLUICE_ASSIGN(const uint64_t rank, fields.required(".attention.kv_lora_rank", 1, kGgufWidthMax));
  SLUICE_ASSIGN(const uint64_t rope, fields.required(".rope.dimension_count", 1, kGgufWidthMax));
  SLUICE_ASSIGN(const uint64_t key,
                fields.required(".attention.key_length_mla", rope + 1, kGgufWidthMax));
  SLUICE_ASSIGN(const uint64_t value,
                fields.required(".attention.value_length_mla", 1, kGgufWidthMax));
  SLUICE_ASSIGN(const auto log_multiplier, fields.number(".rope.scaling.yarn_log_multiplier"));
  SLUICE_ASSIGN(const auto fast, fields.number(".rope.scaling.yarn_beta_fast"));
  SLUICE_ASSIGN(const auto slow, fields.number(".rope.scaling.yarn_beta_slow"));
  SLUICE_TRY(complete_glm4_moe(fields, config));
  SLUICE_ASSIGN(const auto normalised, fields.boolean(".expert_weights_norm"));
  config["norm_topk_prob"] = normalised.value_or(false);
  for (const char* unsaid : {"head_dim", "partial_rotary_factor", "use_qk_norm"})
    config.erase(unsaid);
  config["attention_bias"] = false;
  config["num_key_value_heads"] = config["num_attention_heads"];
  config["q_lora_rank"] = q_rank ? Json(*q_rank) : Json(nullptr);
  config["kv_lora_rank"] = rank;
  config["qk_rope_head_dim"] = rope;
  config["qk_nope_head_dim"] = key - rope;
  config["v_head_dim"] = value;
  config["moe_layer_freq"] = 1;
  config["topk_method"] = "noaux_tc";
  config["scoring_func"] = "sigmoid";
  Json& scaling = config["rope_scaling"];
  if (!scaling.is_object()) return {};
  scaling["beta_fast"] = fast.value_or(32);
  scaling["beta_slow"] = slow.value_or(1);
  // A tenth of mscale_all_dim, which is mscale too in all that were published.
  scaling["mscale"] = scaling["mscale_all_dim"] = log_multiplier.value_or(0) * 10;
  return {};
}

// Some multiplier of every part.
constexpr std::string_view kGraniteUnderstood[] = {".attention.scale", ".embedding_scale",
                                                   ".residual_scale", ".logit_scale"};

Status complete_granite(const GgufFields& fields, Json& config) {
  constexpr std::pair<std::string_view, const char*> kMultipliers[] = {
      {".attention.scale", "attention_multiplier"},
      {".embedding_scale", "embedding_multiplier"},
      {".residual_scale", "residual_multiplier"},
      {".logit_scale", "logits_scaling"}};
  for (const auto& [key, name] : kMultipliers) {
    SLUICE_ASSIGN(const auto value, fields.number(key));
    if (!value)
      return fail(ErrorCode::kCorrupt, "{}: metadata key {} is missing", fields.label(),
                  fields.full(key));
    config[name] = *value;
  }
  config["mlp_bias"] = false;
  if (fields.find(".expert_count") == nullptr) return {};
  return add_mixtral_experts(fields, config);
}

// ---- families whose layers see windows ----

// All but every period-th layer see the window, by llama.cpp's own constants; a file that lists the
// layers must say the same.
Status check_windows(const GgufFields& fields, uint64_t layers, uint64_t period) {
  const GgufValue* value = fields.find(".attention.sliding_window_pattern");
  if (value == nullptr) return {};
  const auto* list = std::get_if<GgufArray>(value);
  const auto* number = std::get_if<uint64_t>(value);
  bool same = list != nullptr ? list->size() >= layers : number != nullptr && *number == period;
  for (uint64_t layer = 0; same && list != nullptr && layer < layers; ++layer)
    same = list->integer(layer) == std::optional<int64_t>((layer + 1) % period != 0);
  if (same) return {};
  return fail(ErrorCode::kUnsupported, "{}: {} is not that every {}th layer sees everything",
              fields.label(), fields.full(".attention.sliding_window_pattern"), period);
}

Status complete_gpt_oss(const GgufFields& fields, Json& config) {
  SLUICE_TRY(add_mixtral_experts(fields, config));
  SLUICE_ASSIGN(const uint64_t width,
                fields.required(".expert_feed_forward_length", 1, kGgufWidthMax));
  SLUICE_ASSIGN(const uint64_t window,
                fields.required(".attention.sliding_window", 1, kGgufContextMax));
  config["intermediate_size"] = width;
  config["experts_per_token"] = config["num_experts_per_tok"];
  config["sliding_window"] = window;
  config["attention_bias"] = true;
  config["swiglu_limit"] = 7.0;
  const auto layers = config["num_hidden_layers"].get<uint64_t>();
  SLUICE_TRY(check_windows(fields, layers, 2));
  Json types = Json::array();
  for (uint64_t layer = 0; layer < layers; ++layer)
    types.push_back(layer % 2 == 0 ? "sliding_attention" : "full_attention");
  config["layer_types"] = std::move(types);
  Json& scaling = config["rope_scaling"];
  if (!scaling.is_object()) return {};
  SLUICE_ASSIGN(const auto fast, fields.number(".rope.scaling.yarn_beta_fast"));
  SLUICE_ASSIGN(const auto slow, fields.number(".rope.scaling.yarn_beta_slow"));
  SLUICE_ASSIGN(const auto truncate, fields.boolean(".rope.scaling.yarn_truncate"));
  scaling["beta_fast"] = fast.value_or(32);
  scaling["beta_slow"] = slow.value_or(1);
  scaling["truncate"] = truncate.value_or(false);
  return {};
}

constexpr std::string_view kGemma3Understood[] = {".final_logit_softcapping"};

Status complete_gemma3(const GgufFields& fields, Json& config) {
  // llama.cpp's own constants: the file says neither.
  constexpr uint64_t kPattern = 6, kLargestLayers = 62;
  const auto context = config["max_position_embeddings"].get<uint64_t>();
  SLUICE_ASSIGN(const auto window, fields.integer(".attention.sliding_window", 1, kGgufContextMax));
  SLUICE_ASSIGN(const auto local, fields.number(".rope.freq_base_swa"));
  SLUICE_ASSIGN(const auto softcap, fields.number(".final_logit_softcapping"));
  SLUICE_TRY(check_windows(fields, config["num_hidden_layers"].get<uint64_t>(), kPattern));
  config.erase("hidden_act");
  config["hidden_activation"] = "gelu_pytorch_tanh";
  config["sliding_window"] = window.value_or(context);
  config["sliding_window_pattern"] = window ? kPattern : 1;
  config["rope_local_base_freq"] = local.value_or(10000.0);
  config["final_logit_softcapping"] = softcap ? Json(*softcap) : Json(nullptr);
  // The largest one scales by its mean width of a head, which is not that of its heads.
  const bool largest = config["num_hidden_layers"] == kLargestLayers;
  config["query_pre_attn_scalar"] = largest ? config["hidden_size"].get<uint64_t>() /
                                                  config["num_attention_heads"].get<uint64_t>()
                                            : config["head_dim"].get<uint64_t>();
  return {};
}

constexpr GgufArchitecture kArchitectures[] = {
    {.name = "llama", .model_type = "llama", .class_name = "LlamaForCausalLM"},
    {.name = "llama",
     .model_type = "mixtral",
     .class_name = "MixtralForCausalLM",
     .sparse = true,
     .complete = add_mixtral_experts},
    {.name = "qwen2", .model_type = "qwen2", .class_name = "Qwen2ForCausalLM"},
    {.name = "qwen3", .model_type = "qwen3", .class_name = "Qwen3ForCausalLM"},
    {.name = "qwen3moe",
     .model_type = "qwen3_moe",
     .class_name = "Qwen3MoeForCausalLM",
     .sparse = true,
     .complete = complete_qwen3_moe},
    {.name = "qwen3next",
     .model_type = "qwen3_next",
     .class_name = "Qwen3NextForCausalLM",
     .sparse = true,
     .rotates_part = true,
     .understood = kHybridUnderstood,
     .complete = complete_hybrid},
    {.name = "qwen35",
     .model_type = "qwen3_5",
     .class_name = "Qwen3_5ForConditionalGeneration",
     .rotates_part = true,
     .understood = kHybridUnderstood,
     .complete = complete_qwen3_5},
    {.name = "qwen35moe",
     .model_type = "qwen3_5_moe",
     .class_name = "Qwen3_5MoeForConditionalGeneration",
     .sparse = true,
     .rotates_part = true,
     .understood = kHybridUnderstood,
     .complete = complete_qwen3_5},
    {.name = "qwen2moe",
     .model_type = "qwen2_moe",
     .class_name = "Qwen2MoeForCausalLM",
     .sparse = true,
     .understood = kQwen2MoeUnderstood,
     .complete = complete_qwen2_moe},
    {.name = "olmoe",
     .model_type = "olmoe",
     .class_name = "OlmoeForCausalLM",
     .sparse = true,
     .complete = complete_olmoe},
    {.name = "glm4moe",
     .model_type = "glm4_moe",
     .class_name = "Glm4MoeForCausalLM",
     .sparse = true,
     .rotates_part = true,
     .understood = kGlm4MoeUnderstood,
     .complete = complete_glm4_moe},
    {.name = "deepseek2",
     .model_type = "deepseek_v3",
     .class_name = "DeepseekV3ForCausalLM",
     .sparse = true,
     .rotates_part = true,
     .latent = true,
     .understood = kDeepseek2Understood,
     .complete = complete_deepseek2},
    {.name = "granite",
     .model_type = "granite",
     .class_name = "GraniteForCausalLM",
     .understood = kGraniteUnderstood,
     .complete = complete_granite},
    {.name = "granitemoe",
     .model_type = "granitemoe",
     .class_name = "GraniteMoeForCausalLM",
     .sparse = true,
     .understood = kGraniteUnderstood,
     .complete = complete_granite},
    {.name = "gpt-oss",
     .model_type = "gpt_oss",
     .class_name = "GptOssForCausalLM",
     .sparse = true,
     .windows = true,
     .complete = complete_gpt_oss},
    {.name = "gemma3",
     .model_type = "gemma3_text",
     .class_name = "Gemma3ForCausalLM",
     .windows = true,
     .understood = kGemma3Understood,
     .complete = complete_gemma3},
};

std::string known_names() {
  std::vector<std::string_view> names;
  for (const GgufArchitecture& architecture : kArchitectures)
    if (names.empty() || names.back() != architecture.name) names.push_back(architecture.name);
  const std::string_view last = names.back();
  names.pop_back();
  return fmt::format("{} and {}", fmt::join(names, ", "), last);
}

}  // namespace

Result<const GgufArchitecture*> find_gguf_architecture(const GgufHeader& header,
                                                       const std::string& label) {
  const GgufFields fields(header, label, "");
  SLUICE_ASSIGN(const auto name, fields.text("general.architecture"));
  if (!name) return fail(ErrorCode::kCorrupt, "{}: general.architecture is missing", label);
  SLUICE_ASSIGN(const auto experts,
                GgufFields(header, label, *name).integer(".expert_count", 0, kGgufExpertsMax));
  bool known = false;
  for (const GgufArchitecture& architecture : kArchitectures) {
    if (architecture.name != *name) continue;
    if (architecture.sparse == (experts.value_or(0) > 0)) return &architecture;
    known = true;
  }
  if (known)
    return fail(ErrorCode::kUnsupported, "{}: {} experts under the architecture {} are not known",
                label, experts.value_or(0), *name);
  return fail(ErrorCode::kUnsupported,
              "{}: architecture {} is not supported from GGUF ({} are); use the model's "
              "safetensors instead",
              label, printable(*name), known_names());
}

}  // namespace sluice::io
