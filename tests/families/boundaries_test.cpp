// Every number of a configuration at the edges of every integer type: an error that names the key,
// or the model that an untouched configuration gives.
#include <gmock/gmock.h>

#include "families/fake_checkpoint.h"
#include "families/recipe.h"

namespace sluice::families {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

std::string described(const ModelMap& map) {
  std::string text;
  for (const OutputModule& module : map.modules)
    text += fmt::format("{} {}; ", module.tensor_name(), numerics::shape_text(module.shape));
  return text;
}

std::vector<Json> edges(int64_t original) {
  std::vector<Json> values = {nullptr, true, "1", 1.5, -0.0, Json::array(), Json::object(), 1e300};
  for (const int64_t value :
       {int64_t{0}, int64_t{1}, int64_t{2}, int64_t{-1}, original - 1, original + 1,
        int64_t{INT32_MAX}, int64_t{INT32_MAX} + 1, int64_t{UINT32_MAX}, int64_t{1} << 32,
        int64_t{1} << 53, (int64_t{1} << 53) + 1, int64_t{1} << 62, INT64_MAX, INT64_MIN})
    values.push_back(value);
  values.push_back(uint64_t{1} << 63);
  values.push_back(UINT64_MAX);
  return values;
}

TEST(Boundaries, ConfigurationNumbers) {
  int cases = 0;
  for (const std::string type : {"llama", "qwen3", "qwen3_moe"}) {
    for (const bool gguf : {false, true}) {
      const FakeCheckpoint sound = gguf ? tiny_gguf(type) : tiny_hf(type);
      const auto expected = map_model(*sound.build(), "");
      ASSERT_TRUE(expected) << expected.error().message;
      for (const std::string key :
           {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "head_dim", "vocab_size", "num_experts", "moe_intermediate_size",
            "decoder_sparse_step"}) {
        const Json config = tiny_config(type);
        if (!config.contains(key)) continue;
        for (const Json& edge : edges(config[key].get<int64_t>())) {
          FakeCheckpoint changed = sound;
          changed.set(key, edge);
          SCOPED_TRACE(
              fmt::format("{} {}: {} = {}", type, gguf ? "gguf" : "hf", key, dump_json(edge)));
          const auto map = map_model(*changed.build(), "");
          ++cases;
          if (map) {
            // What a dense layer of this width would be does not show in a model without one.
            EXPECT_EQ(described(*map), described(*expected));
          } else {
            // Or the tensors that such a configuration would need.
            EXPECT_THAT(map.error().message,
                        AnyOf(HasSubstr(key), HasSubstr("missing"), HasSubstr("wrong"),
                              HasSubstr("does not belong"), HasSubstr("do not belong")));
            EXPECT_LT(map.error().message.size(), 2000u);
          }
        }
      }
    }
  }
  EXPECT_GT(cases, 1000);
}

}  // namespace
}  // namespace sluice::families
