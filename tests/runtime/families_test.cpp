// Random models of whole families, made from the families' own tables: the CPU back-end against the
// scalar one in doubles, prefill and token by token, and the same bits with weights on disk.
#include <gmock/gmock.h>

#include <cmath>

#include "families/complete_checkpoint.h"
#include "runtime/reference.h"

namespace sluice::runtime {
namespace {

constexpr uint64_t kVocabulary = 64;

// Matrices at the scale of trained ones, norms near 1, biases and corrections small.
std::shared_ptr<const io::Checkpoint> random_model(const Json& config, uint64_t seed) {
  const families::Family* family =
      families::find_family(config.at("model_type").get<std::string>());
  SLUICE_CHECK(family != nullptr);
  test::ModelBuilder model(config);
  test::Random random(seed);
  const auto listed = families::complete(config, *family).build();
  for (const io::StoredTensor& tensor : listed->tensors) {
    const io::TensorInfo& info = tensor.info;
    const bool vector = info.shape.size() == 1;
    const float scale = vector ? 0.1f : 1 / std::sqrt(static_cast<float>(info.shape.back()));
    std::vector<float> values = random.normals(*numerics::element_count(info.shape), scale);
    if (vector && info.name.ends_with("norm.weight"))
      for (float& value : values) value += 1;
    // Gemma 4 does not divide by √head_dim: these norms see to it.
    if (family->name == "gemma4" &&
        (info.name.ends_with("q_norm.weight") || info.name.ends_with("k_norm.weight")))
      for (float& value : values) value *= 0.35f;
    model.add(info.name, info.dtype, info.shape, values);
  }
  return model.build();
}

Json config_of(const std::string& family, const Json& own) {
  Json config = {{"model_type", family},          {"hidden_size", 128},
                 {"intermediate_size", 96},       {"num_hidden_layers", 3},
                 {"num_attention_heads", 4},      {"num_key_value_heads", 2},
                 {"vocab_size", kVocabulary},     {"tie_word_embeddings", false},
                 {"torch_dtype", "bfloat16"},     {"rms_norm_eps", 1e-5},
                 {"max_position_embeddings", 256}};
  config.update(own);
  return config;
}

Json longrope(size_t pairs) {
  Json scaling = {
      {"type", "longrope"}, {"long_factor", Json::array()}, {"short_factor", Json::array()}};
  for (size_t j = 0; j < pairs; ++j) {
    scaling["long_factor"].push_back(1 + 0.4 * static_cast<double>(j));
    scaling["short_factor"].push_back(1 + 0.01 * static_cast<double>(j));
  }
  return scaling;
}

// Of Gemma 4: s sees a window, g everything.
Json layer_types(std::string_view kinds) {
  Json types = Json::array();
  for (const char kind : kinds)
    types.push_back(kind == 's' ? "sliding_attention" : "full_attention");
  return types;
}

const std::vector<Json>& configs() {
  static const Json experts = {
      {"num_experts_per_tok", 2}, {"num_experts", 5}, {"num_local_experts", 5}};
  static const Json multipliers = {{"attention_multiplier", 0.02},
                                   {"embedding_multiplier", 12},
                                   {"residual_multiplier", 0.22},
                                   {"logits_scaling", 6}};
  const auto with = [](Json base, const Json& more) {
    base.update(more);
    return base;
  };
  static const Json nemotron = {{"head_dim", 32},
                                {"layer_norm_epsilon", 1e-5},
                                {"mamba_num_heads", 6},
                                {"mamba_head_dim", 20},
                                {"n_groups", 3},
                                {"ssm_state_size", 24},
                                {"conv_kernel", 4},
                                {"n_routed_experts", 6},
                                {"n_shared_experts", 1},
                                {"num_experts_per_tok", 2},
                                {"moe_intermediate_size", 96},
                                {"moe_shared_expert_intermediate_size", 64},
                                {"routed_scaling_factor", 2.5}};
  static const std::vector<Json> all = {
      config_of("olmoe", with(experts, {{"attention_bias", true}})),
      config_of("qwen2_moe", with(experts, {{"moe_intermediate_size", 64},
                                            {"shared_expert_intermediate_size", 160}})),
      config_of("glm4_moe", {{"head_dim", 64},
                             {"attention_bias", true},
                             {"use_qk_norm", true},
                             {"num_experts_per_tok", 3},
                             {"n_routed_experts", 8},
                             {"n_shared_experts", 2},
                             {"n_group", 4},
                             {"topk_group", 2},
                             {"first_k_dense_replace", 1},
                             {"moe_intermediate_size", 64},
                             {"routed_scaling_factor", 1.5}}),
      config_of("minimax_m2", with(experts, {{"head_dim", 64}, {"rotary_dim", 32}})),
      config_of("granite", with(multipliers, {{"attention_bias", true}, {"mlp_bias", true}})),
      config_of("granitemoe", with(with(multipliers, experts), {{"tie_word_embeddings", true}})),
      config_of("phi3", {{"sliding_window", 9},
                         {"partial_rotary_factor", 0.75},
                         {"original_max_position_embeddings", 64},
                         {"rope_scaling", longrope(12)}}),
      config_of("phimoe", with(experts, {{"router_jitter_noise", 0.3}})),
      config_of("gemma4", with(experts, {{"num_hidden_layers", 4},
                                         {"layer_types", layer_types("sgsg")},
                                         {"sliding_window", 9},
                                         {"head_dim", 16},
                                         {"global_head_dim", 32},
                                         {"attention_k_eq_v", true},
                                         {"num_global_key_value_heads", 1},
                                         {"enable_moe_block", true},
                                         {"top_k_experts", 2},
                                         {"moe_intermediate_size", 64},
                                         {"hidden_size_per_layer_input", 0},
                                         {"final_logit_softcapping", 3.0}})),
      config_of("gemma4", {{"num_hidden_layers", 6},
                           {"layer_types", layer_types("sgsgsg")},
                           {"sliding_window", 7},
                           {"head_dim", 32},
                           {"global_head_dim", 64},
                           {"num_kv_shared_layers", 3},
                           {"use_double_wide_mlp", true},
                           {"tie_word_embeddings", true},
                           {"hidden_size_per_layer_input", 32}}),
      config_of("nemotron_h", with(nemotron, {{"hybrid_override_pattern", "M-E*ME"},
                                              {"use_conv_bias", true},
                                              {"mamba_proj_bias", true},
                                              {"attention_bias", true},
                                              {"mlp_bias", true},
                                              {"moe_latent_size", 64},
                                              {"time_step_limit", {0.3, 0.8}}})),
      config_of("nemotron_h", with(nemotron, {{"hybrid_override_pattern", "*EM-"},
                                              {"n_group", 2},
                                              {"topk_group", 1},
                                              {"norm_topk_prob", false}})),
  };
  return all;
}

TEST(Families, LogitsOfTheScalarBackEnd) {
  for (size_t i = 0; i < configs().size(); ++i) {
    SCOPED_TRACE(configs()[i].at("model_type").get<std::string>());
    expect_reference_logits(random_model(configs()[i], 11 + i), 40, kVocabulary);
  }
}

Logits run(const std::shared_ptr<const io::Checkpoint>& checkpoint, uint64_t weight_bytes,
           uint64_t* bytes_read) {
  EngineOptions options = f32_options();
  options.activations = ActivationChoice::kAuto;
  options.weight_bytes_max = weight_bytes;
  options.window_bytes = 4096;
  const auto opened = try_open(checkpoint, options);
  if (!opened) return {};
  Session session = opened->engine->new_session();
  Logits logits = all_logits(*opened->engine, session, random_tokens(30, kVocabulary, 1));
  for (const uint32_t token : random_tokens(4, kVocabulary, 2)) {
    const auto next = session.append({&token, 1});
    EXPECT_TRUE(next.has_value());
    if (next) logits.insert(logits.end(), next->begin(), next->end());
  }
  *bytes_read = opened->engine->statistics().bytes_read;
  return logits;
}

TEST(Families, WeightsOnDiskGiveTheSameBits) {
  for (size_t i = 0; i < configs().size(); ++i) {
    SCOPED_TRACE(configs()[i].at("model_type").get<std::string>());
    const auto checkpoint = random_model(configs()[i], 31 + i);
    uint64_t bytes_read = 0;
    const Logits whole = run(checkpoint, 0, &bytes_read);
    ASSERT_FALSE(whole.empty());
    EXPECT_EQ(bytes_read, 0u);
    // The first limit that is enough.
    uint64_t total = 0;
    for (const io::StoredTensor& tensor : checkpoint->tensors) total += tensor.bytes;
    Logits part;
    for (uint64_t limit = total / 4; part.empty() && limit < total; limit += total / 16)
      part = run(checkpoint, limit, &bytes_read);
    EXPECT_GT(bytes_read, 0u);
    EXPECT_EQ(part, whole);
  }
}

}  // namespace
}  // namespace sluice::runtime
