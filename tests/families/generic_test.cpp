// Unknown families: plain tensors pass, anything that needs a guess is refused by name.
#include <gmock/gmock.h>

#include "families/fake_checkpoint.h"
#include "families/recipe.h"

namespace sluice::families {
namespace {

using numerics::DType;
using testing::ElementsAre;
using testing::HasSubstr;

FakeCheckpoint plain() {
  FakeCheckpoint fake(Json{{"model_type", "novel"}, {"torch_dtype", "float16"}});
  fake.add("model.embed_tokens.weight", {128, 64}).add("lm_head.weight", {128, 64});
  fake.add("model.norm.weight", {64});
  for (const int l : {0, 2, 10}) {
    const std::string layer = fmt::format("model.layers.{}.", l);
    fake.add(layer + "self_attn.qkv_proj.weight", {192, 64})
        .add(layer + "mlp.fc1.weight", {96, 64});
    fake.add(layer + "mlp.fc1.bias", {96}).add(layer + "mlp.dense_4h_to_h.weight", {64, 96});
    fake.add(layer + "rel.weight", {8, 8}).add(layer + "scalar_gate", {64});
    fake.add(layer + "input_layernorm.weight", {64});
  }
  return fake;
}

Error refused(const FakeCheckpoint& fake) {
  const auto map = map_model(*fake.build(), "");
  EXPECT_FALSE(map.has_value());
  return map ? Error{} : map.error();
}

TEST(Generic, PlainTensorsPass) {
  const FakeCheckpoint fake = plain();
  const auto map = map_model(*fake.build(), "");
  ASSERT_TRUE(map.has_value()) << map.error().message;
  EXPECT_EQ(map->family, "generic");
  EXPECT_EQ(map->layers, 11);
  EXPECT_EQ(map->dtype, DType::kF16);
  EXPECT_EQ(map->modules.size(), 24u);
  EXPECT_EQ(map->modules.front().tensor_name(), "model.embed_tokens.weight");
  EXPECT_EQ(map->modules.back().tensor_name(), "lm_head.weight");
  EXPECT_EQ(map->modules[1].layer, 0);
  EXPECT_EQ(map->modules[8].layer, 2);
  ASSERT_EQ(map->notes.size(), 1u);
  EXPECT_THAT(map->notes[0], HasSubstr("11 plain Linears and Embeddings are quantized, 13 other"));
  for (const OutputModule& module : map->modules) {
    const bool expected = module.shape.size() == 2 && module.path.find(".rel") == std::string::npos;
    EXPECT_EQ(module.quantizable, expected) << module.tensor_name();
    ASSERT_EQ(module.recipe.sources.size(), 1u);
    EXPECT_EQ(module.recipe.sources[0].rows, module.rows());
  }
}

TEST(Generic, NamesWithoutParameterKeepTheirName) {
  FakeCheckpoint fake = plain();
  fake.add("sink", {64});
  const auto map = map_model(*fake.build(), "");
  ASSERT_TRUE(map.has_value());
  EXPECT_TRUE(std::any_of(map->modules.begin(), map->modules.end(),
                          [](const OutputModule& m) { return m.tensor_name() == "sink"; }));
}

TEST(Generic, TiedHeadAndInvFreqAreDropped) {
  FakeCheckpoint fake = plain();
  fake.set("tie_word_embeddings", true);
  fake.add("model.layers.0.self_attn.rotary_emb.inv_freq", {8}, DType::kF32);
  const auto map = map_model(*fake.build(), "");
  ASSERT_TRUE(map.has_value());
  EXPECT_THAT(map->dropped,
              ElementsAre("lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"));
}

TEST(Generic, AmbiguousTensorsAreRefusedByName) {
  struct Case {
    const char* name;
    numerics::Shape shape;
    DType dtype;
    const char* reason;
  };
  const Case cases[] = {
      {"model.layers.0.conv1d.weight", {64, 1, 4}, DType::kBF16, "orientation"},
      {"model.layers.0.stack", {4, 32, 64}, DType::kBF16, "orientation"},
      {"model.step", {}, DType::kF32, "has shape []"},
      {"model.layers.0.mlp.fc2.qweight", {8, 64}, DType::kI32, "packed"},
      {"model.layers.0.mlp.fc2.weight_packed", {8, 64}, DType::kI32, "packed"},
      {"model.layers.0.mlp.fc2.weight_scale", {8, 1}, DType::kBF16, "packed"},
      {"model.layers.0.mlp.fc2.weight_scale_inv", {8, 1}, DType::kF32, "packed"},
      {"model.layers.0.mlp.gate_up_proj_blocks", {4, 32, 4, 16}, DType::kU8, "packed"},
      {"model.layers.0.mlp.fc2.scales", {8, 4}, DType::kBF16, "packed"},
      {"model.layers.0.mlp.fc2.weight", {64, 64}, DType::kU8, "is U8"},
      {"model.layers.0.norm2.weight", {64}, DType::kI32, "is I32"},
      {"model.layers.0.phases", {64}, DType::kC64, "is C64"},
      {"model.layers.0.mlp.experts.0.w1.weight", {64, 64}, DType::kBF16, "is an expert"},
  };
  for (const Case& each : cases) {
    FakeCheckpoint fake = plain();
    fake.add(each.name, each.shape, each.dtype);
    const Error error = refused(fake);
    EXPECT_EQ(error.code, ErrorCode::kUnsupported);
    EXPECT_THAT(error.message, HasSubstr(each.name));
    EXPECT_THAT(error.message, HasSubstr(each.reason));
    EXPECT_THAT(error.message, HasSubstr("novel"));
  }
}

TEST(Generic, OtherTypesAreTaken) {
  FakeCheckpoint fake = plain();
  fake.add("model.layers.0.mlp.fc7.weight", {64, 64}, DType::kF8E4M3);
  fake.add("model.layers.0.mlp.fc8.weight", {64, 64}, DType::kF64);
  fake.add("model.layers.0.mask", {64, 64}, DType::kBool);
  fake.add("model.position_ids", {1, 64}, DType::kI64);
  const auto map = map_model(*fake.build(), "");
  ASSERT_TRUE(map.has_value()) << map.error().message;
  for (const OutputModule& module : map->modules) {
    const bool integers = module.path == "model.layers.0" || module.path == "model";
    const bool weights = module.path.ends_with("fc7") || module.path.ends_with("fc8");
    if (integers || weights) {
      EXPECT_EQ(module.quantizable, weights) << module.path;
    }
  }
}

TEST(Generic, KnownTroubleIsRefusedByFamily) {
  for (const char* type : {"rwkv7", "dbrx", "step3p5", "gpt2"}) {
    FakeCheckpoint fake = plain();
    fake.set("model_type", type);
    EXPECT_EQ(refused(fake).code, ErrorCode::kUnsupported);
    EXPECT_THAT(refused(fake).message, HasSubstr(type));
  }
  FakeCheckpoint fake = plain();
  fake.set("model_type", "deepseek_v4");
  EXPECT_THAT(refused(fake).message, HasSubstr("stock mlx_lm cannot load model_type deepseek_v4"));
}

TEST(Generic, NothingToQuantize) {
  FakeCheckpoint fake(Json{{"model_type", "novel"}});
  fake.add("a", {64});
  EXPECT_THAT(refused(fake).message, HasSubstr("none of its 1 tensors looks like a Linear"));
}

TEST(Generic, GgufIsRefused) {
  FakeCheckpoint fake(Json{{"model_type", "novel"}}, io::SourceKind::kGguf);
  fake.add("token_embd.weight", {128, 64});
  EXPECT_THAT(refused(fake).message, HasSubstr("GGUF models of architecture novel"));
}

}  // namespace
}  // namespace sluice::families
