// Published configurations: the tables must account for exactly the tensors that follow from them.
// The tensor lists of large models are generated, so only the counts that the configuration fixes
// are asserted. Skips without the real-input folder.
#include <gmock/gmock.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "families/fake_checkpoint.h"
#include "families/family.h"

namespace sluice::families {
namespace {

std::vector<std::filesystem::path> config_files() {
  const char* folder = std::getenv("SLUICE_REAL_INPUTS");
  std::vector<std::filesystem::path> files;
  if (folder == nullptr) return files;
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(folder) / "configs/hf", error))
    files.push_back(entry.path());
  return files;
}

Json load(const std::filesystem::path& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  auto json = parse_json(text.str(), path.string());
  return json ? *json : Json();
}

// Adds whatever the mapper says is missing until it is content: the configuration alone fixes the
// tensor list. The rules under test supply the names, so only totals are held against it.
FakeCheckpoint complete(const Json& config, const Family& family) {
  FakeCheckpoint fake(config);
  const auto empty = fake.build();
  Json additions = Json::object();
  const auto dims = read_dims(*empty, family, additions);
  if (!dims) return fake;
  const uint64_t h = dims->hidden_size;
  const uint64_t q = dims->length(Dim::kQRows), kv = dims->length(Dim::kKvRows);
  fake.add("model.embed_tokens.weight", {dims->vocab_size, h}).add("model.norm.weight", {h});
  const Json* tied = json_find(config, "tie_word_embeddings");
  if (tied == nullptr || !tied->get<bool>()) fake.add("lm_head.weight", {dims->vocab_size, h});
  for (uint64_t l = 0; l < dims->layers; ++l) {
    const std::string layer = fmt::format("model.layers.{}.", l);
    const auto add = [&](const std::string& name, numerics::Shape shape) {
      fake.add(layer + name + ".weight", std::move(shape));
    };
    const bool latent = family.head_dim == HeadDim::kLatent;
    if (latent) {
      const uint64_t rank = dims->q_lora_rank, kv_rank = dims->kv_lora_rank;
      add("self_attn.q_a_proj", {rank, h});
      add("self_attn.q_a_layernorm", {rank});
      add("self_attn.q_b_proj", {dims->length(Dim::kMlaQRows), rank});
      add("self_attn.kv_a_proj_with_mqa", {dims->length(Dim::kKvARows), h});
      add("self_attn.kv_a_layernorm", {kv_rank});
      add("self_attn.kv_b_proj",
          {dims->heads * (dims->qk_nope_head_dim + dims->v_head_dim), kv_rank});
      add("self_attn.o_proj", {h, dims->length(Dim::kValueColumns)});
    } else {
      add("self_attn.q_proj", {q, h});
      add("self_attn.k_proj", {kv, h});
      add("self_attn.v_proj", {kv, h});
      add("self_attn.o_proj", {h, q});
    }
    add("input_layernorm", {h});
    add("post_attention_layernorm", {h});
    if (family.name.starts_with("qwen3")) {
      add("self_attn.q_norm", {dims->head_dim});
      add("self_attn.k_norm", {dims->head_dim});
    }
    if (family.name == "qwen2") {
      fake.add(layer + "self_attn.q_proj.bias", {q}).add(layer + "self_attn.k_proj.bias", {kv});
      fake.add(layer + "self_attn.v_proj.bias", {kv});
    }
    const bool sparse = dims->sparse_layer(l);
    const bool mixtral = family.name == "mixtral";
    if (sparse) add(mixtral ? "block_sparse_moe.gate" : "mlp.gate", {dims->experts, h});
    if (sparse && latent) {
      fake.add(layer + "mlp.gate.e_score_correction_bias", {dims->experts}, numerics::DType::kF32);
      const uint64_t shared = dims->length(Dim::kSharedIntermediate);
      add("mlp.shared_experts.gate_proj", {shared, h});
      add("mlp.shared_experts.up_proj", {shared, h});
      add("mlp.shared_experts.down_proj", {h, shared});
    }
    const uint64_t i = sparse ? dims->expert_intermediate_size : dims->intermediate_size;
    for (uint64_t e = 0; e < (sparse ? dims->experts : 1); ++e) {
      const std::string mlp = mixtral  ? fmt::format("block_sparse_moe.experts.{}.", e)
                              : sparse ? fmt::format("mlp.experts.{}.", e)
                                       : "mlp.";
      add(mlp + (mixtral ? "w1" : "gate_proj"), {i, h});
      add(mlp + (mixtral ? "w3" : "up_proj"), {i, h});
      add(mlp + (mixtral ? "w2" : "down_proj"), {h, i});
    }
  }
  return fake;
}

TEST(RealConfigs, KnownFamiliesMapCompletely) {
  const auto files = config_files();
  if (files.empty()) GTEST_SKIP() << "SLUICE_REAL_INPUTS is not set";
  size_t known = 0;
  for (const auto& path : files) {
    const Json config = load(path);
    const Json* type = json_find(config, "model_type");
    const Family* family =
        type != nullptr && type->is_string() ? find_family(type->get<std::string>()) : nullptr;
    if (family == nullptr) continue;
    ++known;
    const auto map = map_model(*complete(config, *family).build(), "");
    const Json* packing = json_find(config, "quantization_config");
    if (packing != nullptr && packing->value("quant_method", "") != "fp8") {
      ASSERT_FALSE(map.has_value()) << path;
      EXPECT_EQ(map.error().code, ErrorCode::kUnsupported) << map.error().message;
      continue;
    }
    ASSERT_TRUE(map.has_value()) << path << ": " << map.error().message;
    EXPECT_EQ(map->family, family->name);
    EXPECT_EQ(map->dtype_name, "bfloat16") << path;
    EXPECT_TRUE(map->config_additions.empty()) << path << map->config_additions;
  }
  EXPECT_GE(known, 10u);
}

// Published totals, in parameters.
TEST(RealConfigs, ParameterCounts) {
  const auto files = config_files();
  if (files.empty()) GTEST_SKIP() << "SLUICE_REAL_INPUTS is not set";
  const std::map<std::string, uint64_t> published = {
      {"Qwen--Qwen3-0.6B_config.json", 596'049'920},
      {"deepseek-ai--DeepSeek-V3_config.json", 671'026'419'200},
      {"Qwen--Qwen3-30B-A3B_config.json", 30'532'122'624},
      {"Qwen--Qwen3-8B_config.json", 8'190'735'360},
      {"mistralai--Mixtral-8x7B-v0.1_config.json", 46'702'792'704},
      {"meta-llama--Meta-Llama-3.1-70B_config.json", 70'553'706'496},
      {"meta-llama--Meta-Llama-3.1-8B_config.json", 8'030'261'248},
  };
  for (const auto& path : files) {
    const auto found = published.find(path.filename().string());
    if (found == published.end()) continue;
    const Json config = load(path);
    const Family* family = find_family(config.at("model_type").get<std::string>());
    const auto map = map_model(*complete(config, *family).build(), "");
    ASSERT_TRUE(map.has_value()) << path;
    uint64_t total = 0;
    for (const OutputModule& module : map->modules) total += module.elements();
    EXPECT_EQ(total, found->second) << path;
  }
}

// Families without a table end in a clear refusal or in the generic rule, never in a crash.
TEST(RealConfigs, OthersAreRefusedByName) {
  const auto files = config_files();
  if (files.empty()) GTEST_SKIP() << "SLUICE_REAL_INPUTS is not set";
  for (const auto& path : files) {
    const Json config = load(path);
    const Json* type = json_find(config, "model_type");
    if (type == nullptr || !type->is_string()) continue;
    if (find_family(type->get<std::string>()) != nullptr) continue;
    FakeCheckpoint fake(config);
    fake.add("model.layers.0.mlp.experts.gate_up_proj", {4, 64, 64});
    const auto map = map_model(*fake.build(), "");
    ASSERT_FALSE(map.has_value()) << path;
    EXPECT_EQ(map.error().code, ErrorCode::kUnsupported) << map.error().message;
  }
}

}  // namespace
}  // namespace sluice::families
