// Published configurations: the tables must account for exactly the tensors that follow from them.
// The tensor lists of large models are generated, so only the counts that the configuration fixes
// are asserted. Skips without the real-input folder.
#include <gmock/gmock.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "families/complete_checkpoint.h"
#include "io/python_json.h"

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
  auto json = parse_json(io::without_python_numbers(text.str()), path.string());
  return json ? *json : Json();
}

// Whatever the configuration says itself stays as it is.
bool only_adds(const Json& config, const Json& additions) {
  for (const auto& [key, value] : additions.items()) {
    const Json* said = json_find(config, key);
    if (said == nullptr) continue;
    if (said->is_object() ? !only_adds(*said, value) : *said != value) return false;
  }
  return true;
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
    if (const Json* indexers = json_find(config, "indexer_types");
        indexers != nullptr && std::ranges::find(*indexers, Json("shared")) != indexers->end()) {
      ASSERT_FALSE(map.has_value()) << path;
      EXPECT_EQ(map.error().code, ErrorCode::kUnsupported) << map.error().message;
      continue;
    }
    ASSERT_TRUE(map.has_value()) << path << ": " << map.error().message;
    EXPECT_EQ(map->family, family->name);
    EXPECT_EQ(map->dtype_name, "bfloat16") << path;
    EXPECT_TRUE(only_adds(config, map->config_additions)) << path << map->config_additions;
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
      // Their language models, in hundredths of a billion, as llama.cpp counts them.
      {"Qwen--Qwen3.5-27B_config.json", 26'900'000'000},
      {"Qwen--Qwen3.5-35B-A3B_config.json", 34'660'000'000},
      {"Qwen--Qwen3.5-397B-A17B_config.json", 396'350'000'000},
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
    const uint64_t unit = found->second % 10'000'000 == 0 ? 10'000'000 : 1;
    EXPECT_EQ((total + unit / 2) / unit * unit, found->second) << path;
  }
}

// Where only a round number was published, or one that counts dropped layers too.
TEST(RealConfigs, ParameterCountsNearly) {
  const auto files = config_files();
  if (files.empty()) GTEST_SKIP() << "SLUICE_REAL_INPUTS is not set";
  const std::map<std::string, double> published = {
      {"MiniMaxAI--MiniMax-M2.5_config.json", 229e9},
      {"ibm-granite--granite-3.1-1b-a400m-instruct_config.json", 1.33e9},
      {"zai-org--GLM-4.7_config.json", 355e9},
  };
  for (const auto& path : files) {
    const auto found = published.find(path.filename().string());
    if (found == published.end()) continue;
    const Json config = load(path);
    const Family* family = find_family(config.at("model_type").get<std::string>());
    const auto map = map_model(*complete(config, *family).build(), "");
    ASSERT_TRUE(map.has_value()) << path << map.error().message;
    double total = 0;
    for (const OutputModule& module : map->modules) total += static_cast<double>(module.elements());
    EXPECT_NEAR(total / found->second, 1, 0.01) << path;
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
