// config.json and the tokenizer files rebuilt from GGUF metadata: exact where the metadata says
// enough, refused where the result would be a guess.
#include "io/gguf_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <functional>
#include <numbers>

#include "build_files.h"

namespace sluice::io {
namespace {

using testing::GgufBuilder;
using ::testing::HasSubstr;
using testing::little_endian;
using testing::source_of;

GgufBuilder model(const std::string& arch, uint32_t layers = 2) {
  GgufBuilder file;
  file.text("general.architecture", arch)
      .u32(arch + ".block_count", layers)
      .u32(arch + ".context_length", 2048)
      .u32(arch + ".embedding_length", 64)
      .u32(arch + ".feed_forward_length", 160)
      .u32(arch + ".attention.head_count", 8)
      .u32(arch + ".attention.head_count_kv", 2)
      .f32(arch + ".attention.layer_norm_rms_epsilon", 1e-5f);
  file.tensor("token_embd.weight", {64, 6}, 0, 0);
  file.data = std::string(64 * 6 * 4, '\0');
  return file;
}

Result<Json> config_of(const GgufBuilder& file) {
  const auto source = source_of(file.build());
  SLUICE_ASSIGN(const GgufHeader header, read_gguf_header(*source, 0));
  return rebuild_config(header, *source);
}

TEST(GgufConfigTest, Llama) {
  GgufBuilder file = model("llama");
  file.f32("llama.rope.freq_base", 500000.0f)
      .u32("llama.rope.dimension_count", 8)
      .u32("tokenizer.ggml.bos_token_id", 1)
      .u32("tokenizer.ggml.eos_token_id", 2)
      .u32("tokenizer.ggml.eot_token_id", 3);
  const auto config = config_of(file);
  ASSERT_TRUE(config) << config.error().message;
  const Json expected = parse_json(R"({
    "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "bos_token_id": 1, "eos_token_id": [2, 3], "head_dim": 8, "hidden_act": "silu",
    "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 160,
    "max_position_embeddings": 2048, "mlp_bias": false, "model_type": "llama",
    "num_attention_heads": 8, "num_hidden_layers": 2, "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 500000.0,
    "tie_word_embeddings": true, "torch_dtype": "float16", "use_cache": true, "vocab_size": 6})",
                                   "expected")
                            .value();
  EXPECT_EQ(*config, expected) << dump_json(*config, 1);
}

TEST(GgufConfigTest, Qwen) {
  GgufBuilder file = model("qwen2");
  file.tensor("output.weight", {64, 6}, 0, 1536).tensor("blk.0.attn_q.bias", {64}, 0, 3072);
  file.data = std::string(3072 + 256, '\0');
  const auto qwen2 = config_of(file);
  ASSERT_TRUE(qwen2) << qwen2.error().message;
  EXPECT_EQ((*qwen2)["model_type"], "qwen2");
  EXPECT_EQ((*qwen2)["tie_word_embeddings"], false);
  EXPECT_EQ((*qwen2)["attention_bias"], true);
  EXPECT_EQ((*qwen2)["rope_theta"], 10000.0);

  file = model("qwen3");
  file.u32("qwen3.attention.key_length", 16).u32("qwen3.attention.value_length", 16);
  const auto qwen3 = config_of(file);
  ASSERT_TRUE(qwen3) << qwen3.error().message;
  EXPECT_EQ((*qwen3)["head_dim"], 16);

  file = model("qwen3moe");
  file.u32("qwen3moe.expert_count", 32)
      .u32("qwen3moe.expert_used_count", 4)
      .u32("qwen3moe.expert_feed_forward_length", 24);
  const auto moe = config_of(file);
  ASSERT_TRUE(moe) << moe.error().message;
  EXPECT_EQ((*moe)["architectures"], Json::array({"Qwen3MoeForCausalLM"}));
  EXPECT_EQ((*moe)["model_type"], "qwen3_moe");
  EXPECT_EQ((*moe)["num_experts"], 32);
  EXPECT_EQ((*moe)["num_experts_per_tok"], 4);
  EXPECT_EQ((*moe)["moe_intermediate_size"], 24);
  EXPECT_EQ((*moe)["norm_topk_prob"], true);
  EXPECT_EQ((*moe)["decoder_sparse_step"], 1);
  EXPECT_EQ((*moe)["mlp_only_layers"], Json::array());
}

TEST(GgufConfigTest, Mixtral) {
  GgufBuilder file = model("llama");
  file.u32("llama.expert_count", 8).u32("llama.expert_used_count", 2);
  const auto mixtral = config_of(file);
  ASSERT_TRUE(mixtral) << mixtral.error().message;
  EXPECT_EQ((*mixtral)["architectures"], Json::array({"MixtralForCausalLM"}));
  EXPECT_EQ((*mixtral)["model_type"], "mixtral");
  EXPECT_EQ((*mixtral)["num_local_experts"], 8);
  EXPECT_EQ((*mixtral)["num_experts_per_tok"], 2);
  file = model("llama");
  file.u32("llama.expert_count", 0);
  EXPECT_EQ((*config_of(file))["model_type"], "llama");
}

GgufBuilder with_factors(const std::vector<float>& factors) {
  GgufBuilder file = model("llama");
  file.f32("llama.rope.freq_base", 500000.0f).u32("llama.attention.key_length", 128);
  file.tensor("rope_freqs.weight", {factors.size()}, 0, file.data.size());
  for (const float factor : factors) file.data += little_endian(factor);
  return file;
}

// Independent of the reader: Llama 3.1's own rule, as its reference code states it.
std::vector<float> llama3_factors(double factor) {
  std::vector<float> factors;
  for (int i = 0; i < 64; ++i) {
    const double frequency = std::pow(500000.0, -i / 64.0);
    const double wavelength = 2 * std::numbers::pi / frequency;
    double scaled = frequency;
    if (wavelength > 8192.0) {
      scaled = frequency / factor;
    } else if (wavelength >= 2048.0) {
      const double smooth = (8192.0 / wavelength - 1.0) / 3.0;
      scaled = (1 - smooth) * frequency / factor + smooth * frequency;
    }
    factors.push_back(static_cast<float>(frequency / scaled));
  }
  return factors;
}

TEST(GgufConfigTest, Llama3ScalingIsFoundBackFromItsFactors) {
  for (const double factor : {8.0, 32.0}) {
    const auto config = config_of(with_factors(llama3_factors(factor)));
    ASSERT_TRUE(config) << config.error().message;
    const Json& scaling = (*config)["rope_scaling"];
    EXPECT_EQ(scaling["rope_type"], "llama3");
    EXPECT_EQ(scaling["factor"], factor);
    EXPECT_EQ(scaling["low_freq_factor"], 1.0);
    EXPECT_EQ(scaling["high_freq_factor"], 4.0);
    EXPECT_EQ(scaling["original_max_position_embeddings"], 8192);
  }
  const auto ones = config_of(with_factors(std::vector<float>(64, 1.0f)));
  ASSERT_TRUE(ones);
  EXPECT_EQ((*ones)["rope_scaling"], Json(nullptr));
  auto bent = llama3_factors(8);
  bent[20] *= 1.01f;
  EXPECT_EQ(config_of(with_factors(bent)).error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(config_of(with_factors(std::vector<float>(64, NAN))).error().code,
            ErrorCode::kUnsupported);
  EXPECT_EQ(config_of(with_factors(std::vector<float>(32, 1.0f))).error().code,
            ErrorCode::kCorrupt);
}

TEST(GgufConfigTest, OtherScalings) {
  GgufBuilder file = model("qwen2");
  file.text("qwen2.rope.scaling.type", "yarn")
      .f32("qwen2.rope.scaling.factor", 4.0f)
      .u32("qwen2.rope.scaling.original_context_length", 32768);
  const auto yarn = config_of(file);
  ASSERT_TRUE(yarn) << yarn.error().message;
  EXPECT_EQ((*yarn)["rope_scaling"]["rope_type"], "yarn");
  EXPECT_EQ((*yarn)["rope_scaling"]["factor"], 4.0);
  EXPECT_EQ((*yarn)["rope_scaling"]["original_max_position_embeddings"], 32768);
  GgufBuilder none = model("llama");
  none.text("llama.rope.scaling.type", "none");
  EXPECT_EQ((*config_of(none))["rope_scaling"], Json(nullptr));
}

TEST(GgufConfigTest, Refusals) {
  struct Case {
    const char* what;
    std::function<void(GgufBuilder&)> change;
    ErrorCode code;
  };
  for (const Case& c : std::vector<Case>{
           {"Mixtral without the experts of a token",
            [](auto& f) { f.u32("llama.expert_count", 8); }, ErrorCode::kCorrupt},
           {"partial rotary", [](auto& f) { f.u32("llama.rope.dimension_count", 4); },
            ErrorCode::kUnsupported},
           {"values of another width", [](auto& f) { f.u32("llama.attention.value_length", 4); },
            ErrorCode::kUnsupported},
           {"logit scale", [](auto& f) { f.f32("llama.logit_scale", 0.5f); },
            ErrorCode::kUnsupported},
           {"window", [](auto& f) { f.u32("llama.attention.sliding_window", 512); },
            ErrorCode::kUnsupported},
           {"longrope", [](auto& f) { f.text("llama.rope.scaling.type", "longrope"); },
            ErrorCode::kUnsupported},
           {"linear without factor", [](auto& f) { f.text("llama.rope.scaling.type", "linear"); },
            ErrorCode::kCorrupt},
           {"key length 0", [](auto& f) { f.u32("llama.attention.key_length", 0); },
            ErrorCode::kCorrupt},
           {"key length a string", [](auto& f) { f.text("llama.attention.key_length", "8"); },
            ErrorCode::kCorrupt},
           {"rope base infinite", [](auto& f) { f.f32("llama.rope.freq_base", INFINITY); },
            ErrorCode::kCorrupt},
           {"more tokens than rows",
            [](auto& f) { f.strings("tokenizer.ggml.tokens", std::vector<std::string>(7)); },
            ErrorCode::kCorrupt},
       }) {
    GgufBuilder file = model("llama");
    c.change(file);
    const auto config = config_of(file);
    ASSERT_FALSE(config) << c.what;
    EXPECT_EQ(config.error().code, c.code) << c.what << ": " << config.error().message;
  }
  const auto gemma = config_of(model("gemma2"));
  ASSERT_FALSE(gemma);
  EXPECT_EQ(gemma.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(gemma.error().message, HasSubstr("architecture \"gemma2\" is not supported"));
  EXPECT_EQ(config_of(GgufBuilder()).error().code, ErrorCode::kCorrupt);
}

TEST(GgufConfigTest, PerLayerHeadsMustAgree) {
  for (const uint32_t last : {2u, 4u}) {
    GgufBuilder file;
    file.text("general.architecture", "llama")
        .u32("llama.block_count", 2)
        .u32("llama.context_length", 2048)
        .u32("llama.embedding_length", 64)
        .u32("llama.feed_forward_length", 160)
        .u32("llama.attention.head_count", 8)
        .array<uint32_t>("llama.attention.head_count_kv", 4, {2, last})
        .f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    file.tensor("token_embd.weight", {64, 6}, 0, 0);
    file.data = std::string(64 * 6 * 4, '\0');
    const auto config = config_of(file);
    EXPECT_EQ(config.has_value(), last == 2);
    if (!config) {
      EXPECT_EQ(config.error().code, ErrorCode::kUnsupported);
    }
  }
}

// ---- Tokenizers ----

struct Tokenizer {
  Json tokenizer, config;
};

Result<Tokenizer> tokenizer_of(const GgufBuilder& file) {
  SLUICE_ASSIGN(const GgufHeader header, read_gguf_header(*source_of(file.build()), 0));
  SLUICE_ASSIGN(const auto files, rebuild_tokenizer(header, "model.gguf"));
  EXPECT_EQ(files.size(), 2u);
  EXPECT_EQ(files[0].name, "tokenizer.json");
  EXPECT_EQ(files[1].name, "tokenizer_config.json");
  Tokenizer out;
  SLUICE_ASSIGN(out.tokenizer, parse_json(files[0].text, files[0].name));
  SLUICE_ASSIGN(out.config, parse_json(files[1].text, files[1].name));
  return out;
}

GgufBuilder byte_level(const char* pre) {
  GgufBuilder file = model("llama");
  file.text("tokenizer.ggml.model", "gpt2")
      .text("tokenizer.ggml.pre", pre)
      .strings("tokenizer.ggml.tokens", {"<|end|>", "a", "b", "ab", "<tool>"})
      .array<int32_t>("tokenizer.ggml.token_type", 5, {3, 1, 1, 1, 4})
      .u32("tokenizer.ggml.bos_token_id", 0)
      .u32("tokenizer.ggml.eos_token_id", 0)
      .text("tokenizer.chat_template", "{{ messages }}");
  return file;
}

GgufBuilder hybrid(const std::string& arch) {
  GgufBuilder file = model(arch);
  file.u32(arch + ".attention.key_length", 16)
      .u32(arch + ".attention.value_length", 16)
      .u32(arch + ".rope.dimension_count", 4)
      .u32(arch + ".ssm.conv_kernel", 4)
      .u32(arch + ".ssm.state_size", 8)
      .u32(arch + ".ssm.group_count", 2)
      .u32(arch + ".ssm.time_step_rank", 4)
      .u32(arch + ".ssm.inner_size", 48)
      .u32(arch + ".nextn_predict_layers", 1);
  return file;
}

TEST(GgufConfigTest, Hybrids) {
  const auto config = config_of(hybrid("qwen35"));
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ((*config)["model_type"], "qwen3_5");
  const Json& text = (*config)["text_config"];
  EXPECT_EQ(text["num_hidden_layers"], 1);  // the other one predicts
  EXPECT_EQ(text["linear_num_key_heads"], 2);
  EXPECT_EQ(text["linear_num_value_heads"], 4);
  EXPECT_EQ(text["linear_key_head_dim"], 8);
  EXPECT_EQ(text["linear_value_head_dim"], 12);
  EXPECT_EQ(text["full_attention_interval"], 4);
  EXPECT_EQ(text["rope_parameters"]["partial_rotary_factor"], 0.25);

  GgufBuilder next = hybrid("qwen3next");
  next.u32("qwen3next.expert_count", 6)
      .u32("qwen3next.expert_used_count", 2)
      .u32("qwen3next.expert_feed_forward_length", 32)
      .u32("qwen3next.expert_shared_feed_forward_length", 24);
  const auto sparse = config_of(next);
  ASSERT_TRUE(sparse) << sparse.error().message;
  EXPECT_EQ((*sparse)["model_type"], "qwen3_next");
  EXPECT_EQ((*sparse)["num_experts"], 6);
  EXPECT_EQ((*sparse)["shared_expert_intermediate_size"], 24);
  EXPECT_EQ((*sparse)["norm_topk_prob"], true);

  GgufBuilder odd = hybrid("qwen35");
  odd.u32("qwen35.full_attention_interval", 2)
      .array<uint8_t>("qwen35.attention.recurrent_layers", 7, {0, 0});
  const auto refused = config_of(odd);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("recurrent_layers"));
}

TEST(GgufConfigTest, LayersWithWindows) {
  GgufBuilder gemma = model("gemma3");
  gemma.u32("gemma3.attention.key_length", 16)
      .u32("gemma3.attention.value_length", 16)
      .u32("gemma3.attention.sliding_window", 512)
      .f32("gemma3.rope.freq_base", 1e6f);
  auto config = config_of(gemma);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ((*config)["model_type"], "gemma3_text");
  EXPECT_EQ((*config)["sliding_window"], 512);
  EXPECT_EQ((*config)["sliding_window_pattern"], 6);
  EXPECT_EQ((*config)["query_pre_attn_scalar"], 16);
  config = config_of(model("gemma3", 62));  // as the largest one
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ((*config)["query_pre_attn_scalar"], 64 / 8);

  GgufBuilder oss = model("gpt-oss");
  oss.u32("gpt-oss.expert_count", 4)
      .u32("gpt-oss.expert_used_count", 2)
      .u32("gpt-oss.expert_feed_forward_length", 32)
      .u32("gpt-oss.attention.sliding_window", 128)
      .text("gpt-oss.rope.scaling.type", "yarn")
      .f32("gpt-oss.rope.scaling.factor", 32)
      .u32("gpt-oss.rope.scaling.original_context_length", 4096);
  config = config_of(oss);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ((*config)["intermediate_size"], 32);
  EXPECT_EQ((*config)["layer_types"], Json::array({"sliding_attention", "full_attention"}));
  EXPECT_EQ((*config)["rope_scaling"]["truncate"], false);
  EXPECT_EQ((*config)["rope_scaling"]["beta_fast"], 32);
}

TEST(GgufConfigTest, MultipliersOfGranite) {
  GgufBuilder file = model("granite");
  file.f32("granite.attention.scale", 0.015625f)
      .f32("granite.embedding_scale", 12)
      .f32("granite.residual_scale", 0.22f);
  const auto refused = config_of(file);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("granite.logit_scale is missing"));
  file.f32("granite.logit_scale", 8);
  const auto config = config_of(file);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ((*config)["residual_multiplier"], 0.22);
  EXPECT_EQ((*config)["logits_scaling"], 8);
}

TEST(GgufTokenizerTest, ByteLevel) {
  GgufBuilder file = byte_level("smollm");
  file.strings("tokenizer.ggml.merges", {"a b"});
  const auto built = tokenizer_of(file);
  ASSERT_TRUE(built) << built.error().message;
  const Json& t = built->tokenizer;
  EXPECT_EQ(t["model"]["type"], "BPE");
  EXPECT_EQ(t["model"]["vocab"],
            (Json{{"<|end|>", 0}, {"a", 1}, {"b", 2}, {"ab", 3}, {"<tool>", 4}}));
  EXPECT_EQ(t["model"]["merges"], Json::array({"a b"}));
  ASSERT_EQ(t["added_tokens"].size(), 2u);
  EXPECT_EQ(t["added_tokens"][0]["special"], true);
  EXPECT_EQ(t["added_tokens"][1]["content"], "<tool>");
  EXPECT_EQ(t["added_tokens"][1]["special"], false);
  EXPECT_EQ(t["pre_tokenizer"]["pretokenizers"][0]["type"], "Digits");
  EXPECT_EQ(t["post_processor"]["type"], "ByteLevel");
  EXPECT_EQ(built->config["chat_template"], "{{ messages }}");
  EXPECT_EQ(built->config["eos_token"], "<|end|>");
  EXPECT_EQ(built->config["tokenizer_class"], "PreTrainedTokenizerFast");
  EXPECT_EQ(built->config["model_max_length"], 2048);
}

TEST(GgufTokenizerTest, PreTokenizers) {
  for (const char* pre : {"llama-bpe", "qwen2", "gpt-2", "tekken", "default"}) {
    GgufBuilder file = byte_level(pre);
    file.strings("tokenizer.ggml.merges", {"a b"});
    const auto built = tokenizer_of(file);
    ASSERT_TRUE(built) << built.error().message;
    const bool llama3 = std::string_view(pre) == "llama-bpe" || std::string_view(pre) == "tekken";
    EXPECT_EQ(built->tokenizer["model"]["ignore_merges"], llama3) << pre;
    EXPECT_EQ(built->config["add_bos_token"], llama3) << pre;
    EXPECT_EQ(built->tokenizer["normalizer"].is_null(), std::string_view(pre) != "qwen2") << pre;
  }
  for (const char* pre : {"falcon3", "midm-2.0", "smaug-bpe", "dbrx", "qwen35", "megrez", "kormo",
                          "command-r", "minerva-7b", "trillion", "mellum", "deepseek-coder",
                          "deepseek-v3", "gpt-4o", "seed-coder", "poro-chat", "viking"}) {
    GgufBuilder file = byte_level(pre);
    file.strings("tokenizer.ggml.merges", {"a b"});
    const auto built = tokenizer_of(file);
    ASSERT_TRUE(built) << built.error().message;
  }
  GgufBuilder file = byte_level("no-such-pre");
  file.strings("tokenizer.ggml.merges", {"a b"});
  EXPECT_EQ(tokenizer_of(file).error().code, ErrorCode::kUnsupported);
}

TEST(GgufTokenizerTest, BadMergesAreRefused) {
  for (const char* merge : {"", " ", "a", "ab", "a  b", "a b ", " b", "a c", "b a", "a b c"}) {
    GgufBuilder file = byte_level("gpt-2");
    file.strings("tokenizer.ggml.merges", {"a b", merge});
    const auto built = tokenizer_of(file);
    ASSERT_FALSE(built) << merge;
    EXPECT_EQ(built.error().code, ErrorCode::kCorrupt) << merge;
  }
  EXPECT_FALSE(tokenizer_of(byte_level("gpt-2")));
}

TEST(GgufTokenizerTest, SentencepieceMergesFollowTheScores) {
  GgufBuilder file = model("llama");
  const std::string space = "\xe2\x96\x81";
  file.text("tokenizer.ggml.model", "llama")
      .strings("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", "a", "b", "ab", "bb", "abb", space,
                                         space + "a", "</", "s>"})
      .array<float>("tokenizer.ggml.scores", 6, {0, 0, 0, -9, -9, -2, -1, -3, -9, -4, -9, -9})
      .array<int32_t>("tokenizer.ggml.token_type", 5, {2, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1})
      .u32("tokenizer.ggml.bos_token_id", 1)
      .u32("tokenizer.ggml.eos_token_id", 2)
      .u32("tokenizer.ggml.unknown_token_id", 0);
  const auto built = tokenizer_of(file);
  ASSERT_TRUE(built) << built.error().message;
  const Json& m = built->tokenizer["model"];
  EXPECT_EQ(m["merges"],
            Json::array({Json::array({"b", "b"}), Json::array({"a", "b"}), Json::array({"ab", "b"}),
                         Json::array({"a", "bb"}), Json::array({space, "a"})}))
      << dump_json(m["merges"]);
  EXPECT_EQ(m["unk_token"], "<unk>");
  EXPECT_EQ(m["byte_fallback"], false);
  const Json& post = built->tokenizer["post_processor"];
  EXPECT_EQ(post["type"], "TemplateProcessing");
  EXPECT_EQ(post["special_tokens"]["<s>"]["ids"], Json::array({1}));
  EXPECT_EQ(built->tokenizer["normalizer"]["normalizers"][0]["type"], "Prepend");
}

TEST(GgufTokenizerTest, Refusals) {
  const auto refused = [](const std::function<void(GgufBuilder&)>& fill) {
    GgufBuilder file = model("llama");
    fill(file);
    return !tokenizer_of(file).has_value();
  };
  EXPECT_TRUE(refused([](auto&) {}));
  EXPECT_TRUE(refused([](auto& f) { f.text("tokenizer.ggml.model", "bert"); }));
  EXPECT_TRUE(refused([](auto& f) { f.text("tokenizer.ggml.model", "llama"); }));
  EXPECT_TRUE(refused([](auto& f) {
    f.text("tokenizer.ggml.model", "llama").strings("tokenizer.ggml.tokens", {"a", "a"});
  }));
  EXPECT_TRUE(refused([](auto& f) {
    f.text("tokenizer.ggml.model", "llama").strings("tokenizer.ggml.tokens", {"\xff"});
  }));
  EXPECT_TRUE(refused([](auto& f) {  // no scores
    f.text("tokenizer.ggml.model", "llama").strings("tokenizer.ggml.tokens", {"a", "b"});
  }));
  EXPECT_TRUE(refused([](auto& f) {
    f.text("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", {"a", "b"})
        .template array<float>("tokenizer.ggml.scores", 6, {0.0f, NAN});
  }));
  EXPECT_TRUE(refused([](auto& f) {
    f.text("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", {"a", "b"})
        .template array<float>("tokenizer.ggml.scores", 6, {0.0f, 0.0f})
        .u32("tokenizer.ggml.bos_token_id", 2);
  }));
  EXPECT_TRUE(refused([](auto& f) {
    f.text("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", {"a", "b"})
        .template array<int32_t>("tokenizer.ggml.token_type", 5, {1});
  }));
}

TEST(GgufTokenizerTest, RealSentencepieceModelEqualsItsOwnTokenizerJson) {
  const char* inputs = std::getenv("SLUICE_REAL_INPUTS");
  if (inputs == nullptr) GTEST_SKIP() << "no real-input folder";
  const std::string folder = std::string(inputs) + "/models/stories260K/";
  const auto source = open_file_source(folder + "gguf/stories260K-q8_0.gguf");
  ASSERT_TRUE(source) << source.error().message;
  const auto header = read_gguf_header(**source, 0);
  ASSERT_TRUE(header) << header.error().message;
  const auto files = rebuild_tokenizer(*header, "stories260K");
  ASSERT_TRUE(files) << files.error().message;
  const auto reference = open_file_source(folder + "hf/tokenizer.json");
  ASSERT_TRUE(reference);
  EXPECT_EQ(*parse_json((*files)[0].text, "built"),
            *parse_json(*read_text(**reference, 1 << 20), "reference"));
}

}  // namespace
}  // namespace sluice::io
