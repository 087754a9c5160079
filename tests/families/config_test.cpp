// The configuration's numbers are checked before use; the output's float type follows the rules
// stated at map_model().
#include <gmock/gmock.h>

#include "families/fake_checkpoint.h"
#include "families/family.h"

namespace sluice::families {
namespace {

using numerics::DType;
using testing::HasSubstr;

std::string error_of(const FakeCheckpoint& fake) {
  const auto map = map_model(*fake.build(), "");
  EXPECT_FALSE(map.has_value());
  return map ? "" : map.error().message;
}

DType dtype_of(const FakeCheckpoint& fake, std::string_view override_name = "") {
  const auto type = choose_dtype(*fake.build(), override_name);
  EXPECT_TRUE(type.has_value());
  return type ? type->dtype : DType::kBool;
}

TEST(Dims, EveryNumberHasItsRange) {
  const std::pair<const char*, Json> bad[] = {
      {"hidden_size", 0},
      {"hidden_size", -64},
      {"hidden_size", 1.5},
      {"hidden_size", "64"},
      {"hidden_size", uint64_t{1} << 63},
      {"intermediate_size", int64_t{1} << 40},
      {"num_hidden_layers", 0},
      {"num_hidden_layers", 1025},
      {"num_attention_heads", 0},
      {"num_attention_heads", int64_t{1} << 32},
      {"num_key_value_heads", -1},
      {"head_dim", 0},
      {"head_dim", int64_t{1} << 40},
      {"vocab_size", int64_t{1} << 40},
      {"num_experts", 4097},
      {"num_experts", -1},
      {"moe_intermediate_size", 0},
      {"decoder_sparse_step", 0},
      {"mlp_only_layers", 3},
      {"mlp_only_layers", {-1}},
      {"mlp_only_layers", {"all"}},
      {"tie_word_embeddings", "yes"},
      {"attention_bias", 1},
      {"mlp_bias", 0},
  };
  for (const auto& [key, value] : bad) {
    FakeCheckpoint fake = tiny_hf("qwen3_moe");
    fake.set(key, value);
    EXPECT_THAT(error_of(fake), HasSubstr(key)) << value;
    EXPECT_THAT(error_of(fake), HasSubstr("config.json")) << value;
  }
}

TEST(Dims, RequiredNumbers) {
  for (const char* key :
       {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "vocab_size", "num_experts", "moe_intermediate_size"}) {
    FakeCheckpoint fake = tiny_hf("qwen3_moe");
    fake.unset(key);
    EXPECT_THAT(error_of(fake), HasSubstr(key));
  }
}

TEST(Dims, DefaultsThatMlxLmDoesNotHaveAreAdded) {
  FakeCheckpoint fake = tiny_hf("qwen3_moe");
  fake.unset("decoder_sparse_step").unset("mlp_only_layers");
  const auto map = map_model(*fake.build(), "");
  ASSERT_TRUE(map.has_value());
  EXPECT_EQ(map->config_additions,
            (Json{{"decoder_sparse_step", 1}, {"mlp_only_layers", Json::array()}}));
}

TEST(Dims, KeyValueHeadsDefaultToHeads) {
  FakeCheckpoint fake = tiny_hf("llama", 1);
  fake.unset("num_key_value_heads");
  EXPECT_THAT(error_of(fake), HasSubstr("k_proj.weight should have shape [64, 64]"));
}

TEST(Dims, HeadDimMayBeNull) {
  FakeCheckpoint fake = tiny_hf("llama");
  fake.set("head_dim", nullptr);
  EXPECT_TRUE(map_model(*fake.build(), "").has_value());
  fake.set("head_dim", 32);
  EXPECT_THAT(error_of(fake), HasSubstr("q_proj.weight should have shape [128, 64]"));
  fake.unset("head_dim").set("num_attention_heads", 6);
  EXPECT_THAT(error_of(fake), HasSubstr("hidden_size 64 is no multiple of num_attention_heads 6"));
}

TEST(Dims, Qwen2ReadsNoHeadDim) {
  FakeCheckpoint fake = tiny_hf("qwen2");
  fake.set("head_dim", 16);
  EXPECT_TRUE(map_model(*fake.build(), "").has_value());
  fake.set("head_dim", 32);
  EXPECT_THAT(error_of(fake), HasSubstr("stock mlx_lm does not read for qwen2"));
}

TEST(Dims, Qwen3GetsTheHeadDimItLacks) {
  FakeCheckpoint fake = tiny_hf("llama", 1);
  fake.set("model_type", "qwen3");
  fake.add("model.layers.0.self_attn.q_norm.weight", {16});
  fake.add("model.layers.0.self_attn.k_norm.weight", {16});
  const auto map = map_model(*fake.build(), "");
  ASSERT_TRUE(map.has_value()) << map.error().message;
  EXPECT_EQ(map->config_additions, (Json{{"head_dim", 16}}));
}

TEST(Dims, InterleavedHeadsAreEven) {
  FakeCheckpoint fake = tiny_gguf("llama");
  fake.set("head_dim", 15);
  EXPECT_THAT(error_of(fake), HasSubstr("head_dim 15 is odd"));
}

TEST(OutputDType, FollowsTheConfiguration) {
  FakeCheckpoint fake = tiny_hf("llama");
  EXPECT_EQ(dtype_of(fake), DType::kBF16);
  fake.set("torch_dtype", "float16");
  EXPECT_EQ(dtype_of(fake), DType::kF16);
  fake.set("torch_dtype", "torch.float32");
  EXPECT_EQ(dtype_of(fake), DType::kF32);
  fake.unset("torch_dtype").set("dtype", "float16");
  EXPECT_EQ(dtype_of(fake), DType::kF16);
  fake.unset("dtype").set("text_config", {{"dtype", "float32"}});
  EXPECT_EQ(dtype_of(fake), DType::kF32);
}

TEST(OutputDType, ElseMostElements) {
  FakeCheckpoint fake = tiny_hf("llama");
  fake.set("torch_dtype", "auto");
  EXPECT_EQ(dtype_of(fake), DType::kBF16);
  fake.unset("torch_dtype");
  fake.at("model.norm.weight").dtype = DType::kF32;
  EXPECT_EQ(dtype_of(fake), DType::kBF16);
  fake.add("large", {1000, 1000}, DType::kF16);
  EXPECT_EQ(dtype_of(fake), DType::kF16);
}

TEST(OutputDType, OverrideWins) {
  const FakeCheckpoint fake = tiny_hf("llama");
  EXPECT_EQ(dtype_of(fake, "float32"), DType::kF32);
  EXPECT_EQ(dtype_of(tiny_gguf("llama"), "bfloat16"), DType::kBF16);
  const auto bad = choose_dtype(*fake.build(), "int8");
  ASSERT_FALSE(bad.has_value());
  EXPECT_EQ(bad.error().code, ErrorCode::kInvalidArgument);
}

TEST(OutputDType, GgufIsFloat16UnlessAllBf16) {
  EXPECT_EQ(dtype_of(tiny_gguf("llama", DType::kQ4_0)), DType::kF16);
  EXPECT_EQ(dtype_of(tiny_gguf("llama", DType::kF32)), DType::kF16);
  FakeCheckpoint bf16 = tiny_gguf("llama", DType::kBF16);
  EXPECT_EQ(dtype_of(bf16), DType::kBF16);
  bf16.at("output.weight").dtype = DType::kQ8_0;
  EXPECT_EQ(dtype_of(bf16), DType::kF16);
}

}  // namespace
}  // namespace sluice::families
