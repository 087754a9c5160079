// Known families: every module found, in order, with its shape and sources, from Hugging Face and
// from GGUF; and each way in which a checkpoint can fail to be what it says.
#include <gmock/gmock.h>

#include "families/fake_checkpoint.h"
#include "families/recipe.h"

namespace sluice::families {
namespace {

using numerics::DType;
using numerics::Shape;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

ModelMap mapped(const FakeCheckpoint& fake, std::string_view dtype = "") {
  const auto map = map_model(*fake.build(), dtype);
  if (!map) {
    ADD_FAILURE() << map.error().message;
    return {};
  }
  return *map;
}

Error refused(const FakeCheckpoint& fake) {
  const auto map = map_model(*fake.build(), "");
  EXPECT_FALSE(map.has_value());
  return map ? Error{} : map.error();
}

std::vector<std::string> names(const ModelMap& map) {
  std::vector<std::string> list;
  for (const OutputModule& module : map.modules) list.push_back(module.tensor_name());
  return list;
}

const OutputModule& module(const ModelMap& map, const std::string& name) {
  for (const OutputModule& candidate : map.modules)
    if (candidate.tensor_name() == name) return candidate;
  ADD_FAILURE() << "no module " << name;
  static const OutputModule none;
  return none;
}

// Names of the tensors that a module is made from, one per source.
std::vector<std::string> sources(const io::Checkpoint& checkpoint, const OutputModule& of) {
  std::vector<std::string> list;
  for (const RowSource& source : of.recipe.sources)
    list.push_back(checkpoint.tensors[source.tensor].info.name);
  return list;
}

void expect_consistent(const FakeCheckpoint& fake, const ModelMap& map) {
  const auto checkpoint = fake.build();
  for (const OutputModule& each : map.modules) {
    uint64_t rows = 0;
    for (const RowSource& source : each.recipe.sources) {
      rows += source.rows;
      const Shape& shape = checkpoint->tensors[source.tensor].info.shape;
      EXPECT_EQ(shape.back(), each.shape.back()) << each.tensor_name();
    }
    EXPECT_EQ(rows, each.rows()) << each.tensor_name();
  }
}

TEST(MapModel, LlamaModulesInOrder) {
  const ModelMap map = mapped(tiny_hf("llama", 1));
  EXPECT_EQ(map.family, "llama");
  EXPECT_EQ(map.layers, 1);
  EXPECT_FALSE(map.tied);
  EXPECT_EQ(map.dtype, DType::kBF16);
  EXPECT_EQ(map.dtype_name, "bfloat16");
  EXPECT_TRUE(map.config_additions.empty());
  EXPECT_THAT(
      names(map),
      ElementsAre(
          "model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight",
          "model.layers.0.self_attn.k_proj.weight", "model.layers.0.self_attn.v_proj.weight",
          "model.layers.0.self_attn.o_proj.weight", "model.layers.0.mlp.gate_proj.weight",
          "model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.up_proj.weight",
          "model.layers.0.input_layernorm.weight", "model.layers.0.post_attention_layernorm.weight",
          "model.norm.weight", "lm_head.weight"));
  const OutputModule& q = module(map, "model.layers.0.self_attn.q_proj.weight");
  EXPECT_EQ(q.role, Role::kAttentionQ);
  EXPECT_EQ(q.layer, 0);
  EXPECT_EQ(q.shape, (Shape{64, 64}));
  EXPECT_TRUE(q.quantizable);
  EXPECT_EQ(q.bits_floor, 0);
  EXPECT_FALSE(module(map, "model.norm.weight").quantizable);
  EXPECT_EQ(module(map, "model.norm.weight").layer, -1);
}

TEST(MapModel, EveryFamilyFromEitherSource) {
  for (const char* family : {"llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe"}) {
    const FakeCheckpoint hf = tiny_hf(family);
    const ModelMap map = mapped(hf);
    EXPECT_EQ(map.family, family);
    expect_consistent(hf, map);
    EXPECT_TRUE(map.dropped.empty());
    const FakeCheckpoint gguf = tiny_gguf(family);
    const ModelMap other = mapped(gguf);
    expect_consistent(gguf, other);
    EXPECT_EQ(names(other), names(map)) << family;
    for (size_t i = 0; i < map.modules.size(); ++i)
      EXPECT_EQ(other.modules[i].shape, map.modules[i].shape);
  }
}

TEST(MapModel, MixtralStacksItsExperts) {
  const FakeCheckpoint fake = tiny_hf("mixtral");
  const ModelMap map = mapped(fake);
  expect_consistent(fake, map);
  const std::string moe = "model.layers.1.block_sparse_moe.";
  const OutputModule& up = module(map, moe + "switch_mlp.up_proj.weight");
  EXPECT_EQ(up.role, Role::kExpertUp);
  EXPECT_EQ(up.shape, (Shape{3, 96, 64}));
  EXPECT_THAT(sources(*fake.build(), up),
              ElementsAre(moe + "experts.0.w3.weight", moe + "experts.1.w3.weight",
                          moe + "experts.2.w3.weight"));
  EXPECT_EQ(module(map, moe + "gate.weight").role, Role::kRouter);
}

TEST(MapModel, Biases) {
  const ModelMap qwen2 = mapped(tiny_hf("qwen2"));
  const OutputModule& bias = module(qwen2, "model.layers.1.self_attn.k_proj.bias");
  EXPECT_EQ(bias.role, Role::kBias);
  EXPECT_FALSE(bias.quantizable);
  EXPECT_EQ(bias.shape, Shape{32});

  FakeCheckpoint llama = tiny_hf("llama", 1);
  llama.set("attention_bias", true).set("mlp_bias", true);
  EXPECT_THAT(refused(llama).message,
              HasSubstr("7 tensors are missing: model.layers.0.self_attn.q_proj.bias [64]"));
  for (const auto& [name, rows] : {std::pair("self_attn.q_proj", 64),
                                   {"self_attn.k_proj", 32},
                                   {"self_attn.v_proj", 32},
                                   {"self_attn.o_proj", 64},
                                   {"mlp.gate_proj", 96},
                                   {"mlp.up_proj", 96},
                                   {"mlp.down_proj", 64}})
    llama.add(fmt::format("model.layers.0.{}.bias", name), {static_cast<uint64_t>(rows)});
  EXPECT_EQ(mapped(llama).modules.size(), 19u);
}

TEST(MapModel, Qwen3HasItsOwnHeadDim) {
  const ModelMap map = mapped(tiny_hf("qwen3"));
  EXPECT_EQ(module(map, "model.layers.0.self_attn.q_proj.weight").shape, (Shape{128, 64}));
  EXPECT_EQ(module(map, "model.layers.0.self_attn.o_proj.weight").shape, (Shape{64, 128}));
  EXPECT_EQ(module(map, "model.layers.0.self_attn.q_norm.weight").shape, Shape{32});
}

TEST(MapModel, ExpertsAreStackedInNumericOrder) {
  FakeCheckpoint fake(tiny_config("qwen3_moe", 1));
  fake = tiny_hf("qwen3_moe", 1);
  fake.set("num_experts", 12).add("model.layers.0.mlp.gate.weight", {12, 64});
  for (int e = 3; e < 12; ++e) {
    const std::string expert = fmt::format("model.layers.0.mlp.experts.{}.", e);
    fake.add(expert + "gate_proj.weight", {32, 64}).add(expert + "up_proj.weight", {32, 64});
    fake.add(expert + "down_proj.weight", {64, 32});
  }
  const auto checkpoint = fake.build();
  const ModelMap map = mapped(fake);
  const OutputModule& up = module(map, "model.layers.0.mlp.switch_mlp.up_proj.weight");
  EXPECT_EQ(up.role, Role::kExpertUp);
  EXPECT_EQ(up.shape, (Shape{12, 32, 64}));
  const std::vector<std::string> from = sources(*checkpoint, up);
  ASSERT_EQ(from.size(), 12u);
  // Tensors are sorted by name, where 10 comes before 2.
  EXPECT_EQ(from[2], "model.layers.0.mlp.experts.2.up_proj.weight");
  EXPECT_EQ(from[10], "model.layers.0.mlp.experts.10.up_proj.weight");
  const OutputModule& router = module(map, "model.layers.0.mlp.gate.weight");
  EXPECT_EQ(router.role, Role::kRouter);
  EXPECT_EQ(router.bits_floor, 8);
  EXPECT_TRUE(router.quantizable);
}

TEST(MapModel, FusedExpertsAreCutInHalves) {
  FakeCheckpoint fake = tiny_hf("qwen3_moe", 1);
  for (int e = 0; e < 3; ++e)
    for (const char* name : {"gate_proj", "up_proj", "down_proj"})
      fake.remove(fmt::format("model.layers.0.mlp.experts.{}.{}.weight", e, name));
  fake.add("model.layers.0.mlp.experts.gate_up_proj", {3, 64, 64});
  fake.add("model.layers.0.mlp.experts.down_proj", {3, 64, 32});
  const ModelMap map = mapped(fake);
  expect_consistent(fake, map);
  const auto first_rows = [&](const std::string& name) {
    std::vector<uint64_t> rows;
    for (const RowSource& source : module(map, name).recipe.sources)
      rows.push_back(source.first_row);
    return rows;
  };
  EXPECT_THAT(first_rows("model.layers.0.mlp.switch_mlp.gate_proj.weight"),
              ElementsAre(0, 64, 128));
  EXPECT_THAT(first_rows("model.layers.0.mlp.switch_mlp.up_proj.weight"), ElementsAre(32, 96, 160));
  EXPECT_THAT(first_rows("model.layers.0.mlp.switch_mlp.down_proj.weight"), ElementsAre(0));
}

TEST(MapModel, DenseLayersAmongSparseOnes) {
  FakeCheckpoint fake = tiny_hf("qwen3_moe", 2);
  fake.set("mlp_only_layers", {1});
  EXPECT_THAT(refused(fake).message, HasSubstr("model.layers.1.mlp.gate_proj.weight [96, 64]"));
  for (int e = 0; e < 3; ++e)
    for (const char* name : {"gate_proj", "up_proj", "down_proj"})
      fake.remove(fmt::format("model.layers.1.mlp.experts.{}.{}.weight", e, name));
  fake.remove("model.layers.1.mlp.gate.weight");
  fake.add("model.layers.1.mlp.gate_proj.weight", {96, 64});
  fake.add("model.layers.1.mlp.up_proj.weight", {96, 64});
  fake.add("model.layers.1.mlp.down_proj.weight", {64, 96});
  const ModelMap map = mapped(fake);
  EXPECT_EQ(module(map, "model.layers.1.mlp.up_proj.weight").role, Role::kMlpUp);
  EXPECT_EQ(module(map, "model.layers.0.mlp.switch_mlp.up_proj.weight").role, Role::kExpertUp);
  // Every second layer, counted from one: the first is dense.
  fake.set("mlp_only_layers", Json::array()).set("decoder_sparse_step", 2);
  EXPECT_THAT(refused(fake).message, HasSubstr("model.layers.1.mlp.gate.weight"));
}

TEST(MapModel, GgufUndoesThePermutationOfLlamaOnly) {
  for (const char* family : {"llama", "mistral"}) {
    const ModelMap map = mapped(tiny_gguf(family));
    for (const char* name : {"q_proj", "k_proj"}) {
      const OutputModule& each =
          module(map, fmt::format("model.layers.1.self_attn.{}.weight", name));
      ASSERT_EQ(each.recipe.sources.size(), 1u);
      EXPECT_EQ(each.recipe.sources[0].order, RowOrder::kUninterleaveHeads);
      EXPECT_EQ(each.recipe.sources[0].head_rows, 16u);
    }
    EXPECT_EQ(module(map, "model.layers.1.self_attn.v_proj.weight").recipe.sources[0].order,
              RowOrder::kInOrder);
  }
  for (const char* family : {"qwen2", "qwen3", "qwen3_moe"})
    for (const OutputModule& each : mapped(tiny_gguf(family)).modules)
      for (const RowSource& source : each.recipe.sources)
        EXPECT_EQ(source.order, RowOrder::kInOrder) << family << " " << each.tensor_name();
  for (const OutputModule& each : mapped(tiny_hf("llama")).modules)
    for (const RowSource& source : each.recipe.sources)
      EXPECT_EQ(source.order, RowOrder::kInOrder) << each.tensor_name();
}

TEST(MapModel, GgufBiasesOfLlamaMoveByElement) {
  FakeCheckpoint fake = tiny_gguf("llama", DType::kF16, 1);
  fake.set("attention_bias", true);
  fake.add("blk.0.attn_q.bias", {64}, DType::kF32).add("blk.0.attn_k.bias", {32}, DType::kF32);
  fake.add("blk.0.attn_v.bias", {32}, DType::kF32).add("blk.0.attn_output.bias", {64}, DType::kF32);
  const ModelMap map = mapped(fake);
  const OutputModule& bias = module(map, "model.layers.0.self_attn.k_proj.bias");
  EXPECT_TRUE(bias.by_element);
  EXPECT_EQ(bias.rows(), 32u);
  EXPECT_EQ(bias.columns(), 1u);
  std::vector<RowRun> runs;
  append_row_runs(bias.recipe, 0, 3, runs);
  EXPECT_THAT(runs, ElementsAre(RowRun{runs[0].tensor, 0, 1}, RowRun{runs[0].tensor, 2, 1},
                                RowRun{runs[0].tensor, 4, 1}));
  EXPECT_FALSE(module(map, "model.layers.0.self_attn.v_proj.bias").by_element);
}

TEST(MapModel, GgufDropsRopeFactors) {
  FakeCheckpoint fake = tiny_gguf("llama");
  fake.add("rope_freqs.weight", {8}, DType::kF32);
  EXPECT_THAT(mapped(fake).dropped, ElementsAre("rope_freqs.weight"));
  FakeCheckpoint qwen = tiny_gguf("qwen2");
  qwen.add("rope_freqs.weight", {8}, DType::kF32);
  EXPECT_THAT(refused(qwen).message, HasSubstr("1 tensor does not belong: rope_freqs.weight [8]"));
}

TEST(MapModel, Tied) {
  FakeCheckpoint fake = tiny_hf("llama");
  fake.set("tie_word_embeddings", true);
  ModelMap map = mapped(fake);
  EXPECT_TRUE(map.tied);
  EXPECT_THAT(map.dropped, ElementsAre("lm_head.weight"));
  EXPECT_THAT(names(map), Not(testing::Contains("lm_head.weight")));
  fake.remove("lm_head.weight");
  EXPECT_TRUE(mapped(fake).tied);
  fake.set("tie_word_embeddings", false);
  EXPECT_THAT(refused(fake).message, HasSubstr("1 tensor is missing: lm_head.weight [128, 64]"));
}

TEST(MapModel, TiedWhenNobodySays) {
  FakeCheckpoint fake = tiny_hf("llama");
  fake.unset("tie_word_embeddings");
  EXPECT_FALSE(mapped(fake).tied);
  EXPECT_EQ(mapped(fake).config_additions, (Json{{"tie_word_embeddings", false}}));
  fake.remove("lm_head.weight");
  EXPECT_TRUE(mapped(fake).tied);
  EXPECT_EQ(mapped(fake).config_additions, (Json{{"tie_word_embeddings", true}}));
}

TEST(MapModel, GgufIsTiedByAbsence) {
  FakeCheckpoint fake = tiny_gguf("llama");
  fake.set("tie_word_embeddings", true);
  EXPECT_FALSE(mapped(fake).tied);
  EXPECT_EQ(mapped(fake).config_additions.at("tie_word_embeddings"), Json(false));
  fake.remove("output.weight");
  EXPECT_TRUE(mapped(fake).tied);
}

TEST(MapModel, InvFreqIsDropped) {
  FakeCheckpoint fake = tiny_hf("llama");
  fake.add("model.layers.0.self_attn.rotary_emb.inv_freq", {8}, DType::kF32);
  fake.add("model.layers.1.self_attn.rotary_emb.inv_freq", {8}, DType::kF32);
  EXPECT_EQ(mapped(fake).dropped.size(), 2u);
  fake.add("model.layers.x.self_attn.rotary_emb.inv_freq", {8}, DType::kF32);
  EXPECT_THAT(refused(fake).message, HasSubstr("model.layers.x.self_attn"));
}

TEST(MapModel, WrongShapeNamesBoth) {
  FakeCheckpoint fake = tiny_hf("llama");
  fake.at("model.layers.1.mlp.down_proj.weight").shape = {96, 64};
  const Error error = refused(fake);
  EXPECT_EQ(error.code, ErrorCode::kCorrupt);
  EXPECT_EQ(error.message,
            "fake: as a llama model, 1 tensor is wrong: model.layers.1.mlp.down_proj.weight should "
            "have shape [64, 96] and has [96, 64]");
}

TEST(MapModel, WrongType) {
  for (const DType dtype : {DType::kI32, DType::kBool, DType::kC64, DType::kU8}) {
    FakeCheckpoint fake = tiny_hf("qwen3");
    fake.at("model.norm.weight").dtype = dtype;
    const Error error = refused(fake);
    EXPECT_EQ(error.code, ErrorCode::kCorrupt);
    EXPECT_THAT(error.message, HasSubstr("model.norm.weight should be of a float type and is"));
  }
}

TEST(MapModel, MissingAndLeftOverAreListedBriefly) {
  FakeCheckpoint fake = tiny_hf("llama", 8);
  for (int l = 0; l < 8; ++l) fake.remove(fmt::format("model.layers.{}.mlp.up_proj.weight", l));
  fake.add("model.layers.8.mlp.up_proj.weight", {96, 64}).add("extra", {});
  const std::string message = refused(fake).message;
  EXPECT_THAT(message, HasSubstr("8 tensors are missing: model.layers.0.mlp.up_proj.weight"));
  EXPECT_THAT(message, HasSubstr("model.layers.3.mlp.up_proj.weight [96, 64] and 4 more"));
  EXPECT_THAT(message, HasSubstr("2 tensors do not belong: extra [], model.layers.8."));
}

TEST(MapModel, HostileCountsEndQuickly) {
  FakeCheckpoint fake = tiny_hf("qwen3_moe");
  fake.set("num_experts", 4096).set("num_hidden_layers", 1024);
  EXPECT_THAT(refused(fake).message, HasSubstr("999 tensors are missing"));
  EXPECT_THAT(refused(fake).message, HasSubstr("the search stopped there"));
}

TEST(MapModel, UnknownPackingIsRefused) {
  FakeCheckpoint other = tiny_hf("qwen3");
  other.set("quantization_config", {{"quant_method", "bitsandbytes"}});
  EXPECT_EQ(refused(other).code, ErrorCode::kUnsupported);
  EXPECT_THAT(refused(other).message,
              HasSubstr("not supported (quantization_config: bitsandbytes)"));
  // Scales that opening the checkpoint did not join to a weight belong to nothing.
  FakeCheckpoint mlx = tiny_hf("qwen3");
  mlx.set("quantization", {{"group_size", 64}, {"bits", 4}});
  EXPECT_EQ(mapped(mlx).family, "qwen3");
  mlx.add("lm_head.scales", {128, 1});
  EXPECT_THAT(refused(mlx).message, HasSubstr("1 tensor does not belong: lm_head.scales"));
  FakeCheckpoint none = tiny_hf("qwen3");
  none.set("quantization_config", nullptr);
  EXPECT_EQ(mapped(none).family, "qwen3");
}

TEST(MapModel, NoModelType) {
  FakeCheckpoint fake = tiny_hf("llama");
  fake.unset("model_type");
  EXPECT_THAT(refused(fake).message, HasSubstr("model_type"));
}

}  // namespace
}  // namespace sluice::families
