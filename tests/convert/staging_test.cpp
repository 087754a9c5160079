// The small files of an output, as a stock loader reads them.
#include "convert/staging.h"

#include <gmock/gmock.h>

#include "convert/conversions.h"

namespace sluice::convert {
namespace {

using numerics::Encoder;
using ::testing::HasSubstr;

TEST(OutputConfig, GlobalFormatAndOverridesPerModule) {
  const test::Job job = test::job_of(test::tiny_llama({.layers = 1}));
  const Json config = output_config(*job.checkpoint, job.map, job.plan);
  const auto global = job.plan.default_format();
  ASSERT_TRUE(global);
  const Json& quantization = config.at("quantization");
  EXPECT_EQ(quantization, config.at("quantization_config"));
  EXPECT_EQ(quantization.at("bits"), global->bits);
  EXPECT_EQ(quantization.at("group_size"), global->group_size);
  EXPECT_EQ(quantization.at("mode"), "affine");
  size_t overrides = 0;
  for (const allocate::PlannedTensor& tensor : job.plan.data().tensors) {
    const bool quantized = tensor.format.mode == numerics::QuantMode::kAffine;
    const bool listed = quantization.contains(tensor.path);
    EXPECT_EQ(listed, quantized && tensor.format != *global) << tensor.path;
    if (!listed) continue;
    ++overrides;
    EXPECT_EQ(quantization.at(tensor.path),
              Json({{"bits", tensor.format.bits}, {"group_size", tensor.format.group_size}}));
  }
  EXPECT_EQ(quantization.size(), 3 + overrides);
}

TEST(OutputConfig, TheRestIsTheSources) {
  test::ModelBuilder model = test::tiny_llama({.layers = 1});
  model.config()["_name_or_path"] = "/somebody/else";
  model.config()["rope_scaling"] = {{"factor", 8.0}};
  const test::Job job = test::job_of(model);
  Json config = output_config(*job.checkpoint, job.map, job.plan);
  EXPECT_FALSE(config.contains("_name_or_path"));
  EXPECT_EQ(config.at("rope_scaling"), Json({{"factor", 8.0}}));
  EXPECT_EQ(config.at("torch_dtype"), "bfloat16");
}

TEST(OutputConfig, ARouterIsAlwaysListed) {
  auto checkpoint = test::tiny_moe({.layers = 1}).build();
  const auto map = test::map_of(*checkpoint);
  const auto plan = test::plan_of(*checkpoint, map, [](const auto&, size_t) {
    return test::Planned{test::affine(8, 64), Encoder::kParity};
  });
  const Json config = output_config(*checkpoint, map, plan);
  EXPECT_EQ(config.at("quantization").at("model.layers.0.mlp.gate"),
            Json({{"bits", 8}, {"group_size", 64}}));
  EXPECT_EQ(config.at("quantization").size(), 4u);
}

TEST(OutputConfig, NothingQuantized) {
  auto checkpoint = test::tiny_llama({.layers = 1}).build();
  const auto map = test::map_of(*checkpoint, "float16");
  const auto plan =
      test::plan_of(*checkpoint, map, [](const auto&, size_t) { return test::Planned{}; });
  const Json config = output_config(*checkpoint, map, plan);
  EXPECT_FALSE(config.contains("quantization"));
  EXPECT_FALSE(config.contains("quantization_config"));
  EXPECT_EQ(config.at("torch_dtype"), "float16");
}

TEST(OutputIndex, NamesEveryTensor) {
  const test::Job job = test::job_of(test::tiny_moe({.layers = 1}));
  std::vector<numerics::QuantFormat> formats;
  for (const auto& tensor : job.plan.data().tensors) formats.push_back(tensor.format);
  const auto layout = stream::layout_output(stream::layout_modules(*job.checkpoint, job.map),
                                            job.map.dtype, formats);
  ASSERT_TRUE(layout);
  const Json index = output_index(*layout);
  size_t tensors = 0;
  for (const stream::OutputShard& shard : layout->shards)
    for (const io::TensorInfo& tensor : shard.tensors) {
      EXPECT_EQ(index.at("weight_map").at(tensor.name), shard.name);
      ++tensors;
    }
  EXPECT_EQ(index.at("weight_map").size(), tensors);
  EXPECT_EQ(index.at("metadata").at("total_size"), job.plan.data().tensor_bytes);
  EXPECT_EQ(index.at("metadata").at("total_parameters"), job.plan.data().elements);
}

TEST(ModelCard, SaysWhatItIs) {
  const test::Job job = test::job_of(test::tiny_llama({.layers = 1}));
  const test::Files files = test::converted(job);
  const std::string& card = files.at("README.md");
  EXPECT_TRUE(card.starts_with("---\n"));
  EXPECT_THAT(card, HasSubstr("library_name: mlx"));
  EXPECT_THAT(card, ::testing::ContainsRegex("base_model: \"?tiny\"?\n"));
  EXPECT_THAT(card, HasSubstr("| 3/32 | best |"));
}

}  // namespace
}  // namespace sluice::convert
