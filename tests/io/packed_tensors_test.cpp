// Joining of codes, scales and biases into one tensor, and what is refused.
#include "io/packed_tensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sluice::io {
namespace {

using numerics::DType;
using numerics::QuantMode;
using numerics::Shape;
using testing::HasSubstr;

struct Fake {
  Checkpoint checkpoint;
  uint64_t offset = 0;

  explicit Fake(Json config) {
    checkpoint.path = "fake";
    checkpoint.config = std::move(config);
    checkpoint.identity.push_back({"model.safetensors", 0, {}});
  }
  Fake& add(const std::string& name, DType dtype, Shape shape) {
    const uint64_t bytes = *numerics::tensor_bytes(dtype, shape);
    checkpoint.tensors.push_back({{name, dtype, std::move(shape)}, 0, offset, bytes});
    offset += bytes;
    return *this;
  }
  Status join() {
    SLUICE_TRY(index_tensors(checkpoint));
    return join_packed_tensors(checkpoint);
  }
  Error refusal() {
    const Status status = join();
    EXPECT_FALSE(status.has_value());
    return status ? Error{} : status.error();
  }
};

Json mlx_config() { return {{"quantization", {{"group_size", 64}, {"bits", 4}}}}; }

Json fp8_config() {
  return {{"quantization_config",
           {{"quant_method", "fp8"}, {"fmt", "e4m3"}, {"weight_block_size", {128, 128}}}}};
}

// [6, 128] at 4 bits and groups of 64.
Fake mlx_weight() {
  Fake fake(mlx_config());
  fake.add("a.weight", DType::kU32, {6, 16});
  fake.add("a.scales", DType::kBF16, {6, 2}).add("a.biases", DType::kBF16, {6, 2});
  fake.add("norm.weight", DType::kBF16, {128});
  return fake;
}

Fake fp8_weight() {
  Fake fake(fp8_config());
  fake.add("a.weight", DType::kF8E4M3, {130, 200});
  fake.add("a.weight_scale_inv", DType::kF32, {2, 2});
  return fake;
}

TEST(PackedTensors, MlxPartsBecomeOneTensor) {
  Fake fake = mlx_weight();
  ASSERT_TRUE(fake.join().has_value());
  ASSERT_EQ(fake.checkpoint.tensors.size(), 2);
  const StoredTensor* tensor = fake.checkpoint.find("a.weight");
  ASSERT_NE(tensor, nullptr);
  EXPECT_EQ(tensor->info, (TensorInfo{"a.weight", DType::kF32, {6, 128}}));
  EXPECT_EQ(tensor->bytes, 6 * 64 + 2 * 6 * 2 * 2);
  ASSERT_NE(tensor->packing, nullptr);
  const Packing& packing = *tensor->packing;
  EXPECT_EQ(packing.kind, PackingKind::kMlx);
  EXPECT_EQ(packing.format, (numerics::QuantFormat{QuantMode::kAffine, 4, 64}));
  EXPECT_EQ(packing.model_dtype, DType::kBF16);
  EXPECT_EQ(packing.part_count, 3);
  EXPECT_EQ(packing.parts[0].row_bytes, 64);
  EXPECT_EQ(packing.parts[1].offset, 384);
  EXPECT_EQ(packing.parts[1].row_bytes, 4);
  EXPECT_EQ(packing.parts[2].offset, 408);
  EXPECT_EQ(storage_text(*tensor), "MLX 4/64");
  EXPECT_EQ(fake.checkpoint.find("norm.weight")->packing, nullptr);
  EXPECT_EQ(fake.checkpoint.find("a.scales"), nullptr);
}

TEST(PackedTensors, AnEntryForThePathDecides) {
  Fake fake(mlx_config());
  fake.checkpoint.config["quantization"]["e"] = {{"group_size", 32}, {"bits", 3}};
  fake.add("e.weight", DType::kU32, {2, 5, 12});
  fake.add("e.scales", DType::kF16, {2, 5, 4}).add("e.biases", DType::kF16, {2, 5, 4});
  ASSERT_TRUE(fake.join().has_value());
  EXPECT_EQ(fake.checkpoint.find("e.weight")->info.shape, (Shape{2, 5, 128}));
  EXPECT_EQ(storage_text(fake.checkpoint.tensors[0]), "MLX 3/32");
  EXPECT_EQ(fake.checkpoint.tensors[0].packing->model_dtype, DType::kF16);
}

// mlx_lm's mixed recipes leave the group to the mode.
TEST(PackedTensors, WhatAnEntryLeavesOutIsTheModes) {
  Fake fake(mlx_config());
  fake.checkpoint.config["quantization"]["e"] = {
      {"group_size", nullptr}, {"bits", 3}, {"mode", "affine"}};
  fake.checkpoint.config["quantization"]["f"] = {{"mode", "mxfp4"}};
  fake.add("e.weight", DType::kU32, {5, 12});
  fake.add("e.scales", DType::kF16, {5, 2}).add("e.biases", DType::kF16, {5, 2});
  fake.add("f.weight", DType::kU32, {5, 16}).add("f.scales", DType::kU8, {5, 4});
  const auto joined = fake.join();
  ASSERT_TRUE(joined.has_value()) << joined.error().message;
  EXPECT_EQ(storage_text(*fake.checkpoint.find("e.weight")), "MLX 3/64");
  EXPECT_EQ(storage_text(*fake.checkpoint.find("f.weight")), "MLX mxfp4");
}

Json mxfp4_config() { return {{"quantization_config", {{"quant_method", "mxfp4"}}}}; }

TEST(PackedTensors, PublishedMxfp4BlocksAreMlxMxfp4) {
  Fake fake(mxfp4_config());
  fake.add("a.down_proj_blocks", DType::kU8, {4, 6, 3, 16});
  fake.add("a.down_proj_scales", DType::kU8, {4, 6, 3});
  fake.add("norm.weight", DType::kBF16, {96});
  ASSERT_TRUE(fake.join().has_value());
  ASSERT_EQ(fake.checkpoint.tensors.size(), 2u);
  const StoredTensor* tensor = fake.checkpoint.find("a.down_proj_blocks");
  ASSERT_NE(tensor, nullptr);
  EXPECT_EQ(tensor->info, (TensorInfo{"a.down_proj_blocks", DType::kF32, {4, 6, 96}}));
  EXPECT_EQ(tensor->bytes, 4 * 6 * 3 * 17u);
  ASSERT_NE(tensor->packing, nullptr);
  const Packing& packing = *tensor->packing;
  EXPECT_EQ(packing.kind, PackingKind::kMlx);
  EXPECT_EQ(packing.format, (numerics::QuantFormat{QuantMode::kMxfp4, 4, 32}));
  EXPECT_EQ(packing.part_count, 2u);
  EXPECT_EQ(packing.parts[0].row_bytes, 48u);
  EXPECT_EQ(packing.parts[1].row_bytes, 3u);
  EXPECT_EQ(packing.parts[1].offset, 4 * 6 * 48u);
  EXPECT_EQ(storage_text(*tensor), "MLX mxfp4");
}

TEST(PackedTensors, Mxfp4PartsMustFit) {
  const auto refusal = [](DType blocks_type, Shape blocks, DType scales_type, Shape scales) {
    Fake fake(mxfp4_config());
    fake.add("a_blocks", blocks_type, std::move(blocks));
    fake.add("a_scales", scales_type, std::move(scales));
    const Error error = fake.refusal();
    EXPECT_EQ(error.code, ErrorCode::kCorrupt);
    return error.message;
  };
  EXPECT_THAT(refusal(DType::kU8, {4, 6, 3, 16}, DType::kU8, {4, 6, 2}),
              HasSubstr("a_scales U8 [4, 6, 2] does not fit a_blocks U8 [4, 6, 3, 16]"));
  EXPECT_THAT(refusal(DType::kU8, {4, 6, 3, 8}, DType::kU8, {4, 6, 3}), HasSubstr("does not fit"));
  EXPECT_THAT(refusal(DType::kU8, {4, 6, 0, 16}, DType::kU8, {4, 6, 0}), HasSubstr("does not fit"));
  EXPECT_THAT(refusal(DType::kU8, {3, 16}, DType::kU8, {3}), HasSubstr("does not fit"));
  EXPECT_THAT(refusal(DType::kBF16, {4, 6, 3, 16}, DType::kU8, {4, 6, 3}),
              HasSubstr("does not fit"));
  EXPECT_THAT(refusal(DType::kU8, {4, 6, 3, 16}, DType::kBF16, {4, 6, 3}),
              HasSubstr("does not fit"));
  Fake alone(mxfp4_config());
  alone.add("a_scales", DType::kU8, {4, 6, 3});
  EXPECT_THAT(alone.refusal().message, HasSubstr("a_scales has no blocks beside it"));
}

TEST(PackedTensors, Fp8WeightsTakeTheirScales) {
  Fake fake = fp8_weight();
  ASSERT_TRUE(fake.join().has_value());
  ASSERT_EQ(fake.checkpoint.tensors.size(), 1);
  const StoredTensor& tensor = fake.checkpoint.tensors[0];
  EXPECT_EQ(tensor.info, (TensorInfo{"a.weight", DType::kF32, {130, 200}}));
  EXPECT_EQ(tensor.packing->kind, PackingKind::kScaledElements);
  EXPECT_EQ(tensor.packing->parts[1].rows_spanned, 128);
  EXPECT_EQ(tensor.packing->columns_spanned, 128);
  EXPECT_EQ(tensor.packing->parts[1].row_bytes, 8);
  EXPECT_EQ(storage_text(tensor), "F8_E4M3 in 128×128 blocks");
}

TEST(PackedTensors, PlainCheckpointsStayAsTheyAre) {
  for (const Json& config : {Json::object(), Json{{"quantization", nullptr}},
                             Json{{"quantization_config", {{"quant_method", "novel"}}}}}) {
    Fake fake(config);
    fake.add("a.weight", DType::kU32, {6, 16}).add("a.scales", DType::kBF16, {6, 2});
    ASSERT_TRUE(fake.join().has_value());
    EXPECT_EQ(fake.checkpoint.tensors.size(), 2);
  }
}

TEST(PackedTensors, MlxPartsThatDoNotFit) {
  const auto change = [](const std::string& name, DType dtype, Shape shape) {
    Fake fake = mlx_weight();
    for (StoredTensor& tensor : fake.checkpoint.tensors)
      if (tensor.info.name == name) tensor.info = {name, dtype, shape};
    return fake.refusal().message;
  };
  EXPECT_THAT(change("a.scales", DType::kBF16, {6, 3}), HasSubstr("a.scales BF16 [6, 3]"));
  EXPECT_THAT(change("a.scales", DType::kBF16, {5, 2}), HasSubstr("a.weight U32 [6, 16] at 4/64"));
  EXPECT_THAT(change("a.scales", DType::kI32, {6, 2}), HasSubstr("a.scales I32 [6, 2]"));
  EXPECT_THAT(change("a.scales", DType::kBF16, {12}), HasSubstr("a.scales BF16 [12]"));
  EXPECT_THAT(change("a.scales", DType::kBF16, {6, 0}), HasSubstr("a.scales BF16 [6, 0]"));
  EXPECT_THAT(change("a.biases", DType::kF16, {6, 2}), HasSubstr("a.biases F16 [6, 2]"));
  EXPECT_THAT(change("a.scales", DType::kBF16, {6, UINT64_MAX / 64}), HasSubstr("does not fit"));
}

TEST(PackedTensors, MlxPartsThatAreMissingOrUnknown) {
  Fake no_biases(mlx_config());
  no_biases.add("a.weight", DType::kU32, {6, 16}).add("a.scales", DType::kBF16, {6, 2});
  EXPECT_THAT(no_biases.refusal().message, HasSubstr("a.weight has scales but no biases"));
  Fake off = mlx_weight();
  off.checkpoint.config["quantization"]["a"] = false;
  EXPECT_THAT(off.refusal().message, HasSubstr("says false for a, which has scales"));
  Fake mode = mlx_weight();
  mode.checkpoint.config["quantization"]["mode"] = "novel4";
  EXPECT_EQ(mode.refusal().code, ErrorCode::kUnsupported);
  EXPECT_THAT(mode.refusal().message, HasSubstr("mode novel4"));
  Fake bits = mlx_weight();
  bits.checkpoint.config["quantization"]["bits"] = 7;
  EXPECT_EQ(bits.refusal().code, ErrorCode::kUnsupported);
}

TEST(PackedTensors, Fp8PartsThatDoNotFit) {
  Fake scales = fp8_weight();
  scales.checkpoint.tensors[1].info.shape = {1, 2};
  EXPECT_THAT(scales.refusal().message,
              HasSubstr("a.weight_scale_inv F32 [1, 2] does not fit a.weight F8_E4M3 [130, 200] in "
                        "blocks of 128×128"));
  Fake type = fp8_weight();
  type.checkpoint.tensors[0].info.dtype = DType::kBF16;
  EXPECT_EQ(type.refusal().code, ErrorCode::kCorrupt);
  Fake alone(fp8_config());
  alone.add("a.weight_scale_inv", DType::kF32, {2, 2});
  EXPECT_THAT(alone.refusal().message, HasSubstr("a.weight_scale_inv has no weight beside it"));
  for (const Json& size : {Json(128), Json{128, 0}, Json{128, -1}, Json{128}, Json{128, "x"}}) {
    Fake fake = fp8_weight();
    fake.checkpoint.config["quantization_config"]["weight_block_size"] = size;
    EXPECT_THAT(fake.refusal().message, HasSubstr("weight_block_size")) << size;
  }
  Fake bare(fp8_config());
  bare.add("a.weight", DType::kF8E4M3, {130, 200});
  EXPECT_THAT(bare.refusal().message, HasSubstr("a.weight F8_E4M3 [130, 200] has no scales"));
}

TEST(PackedTensors, ScalesSpreadAsTheirShapesSay) {
  struct Case {
    Shape weight, scales;
    uint32_t rows, columns;
    uint64_t row_bytes;
    std::string text;
  };
  for (const Case& c : {
           Case{{130, 200}, {}, 130, 200, 4, "F8_E4M3 with a scale for each tensor"},
           Case{{130, 200}, {1}, 130, 200, 4, "F8_E4M3 with a scale for each tensor"},
           Case{{130, 200}, {130}, 1, 200, 4, "F8_E4M3 with a scale for each row"},
           Case{{130, 200}, {130, 1}, 1, 200, 4, "F8_E4M3 with a scale for each row"},
           Case{{3, 40, 60}, {3, 1, 1}, 40, 60, 4, "F8_E4M3 with a scale for each tensor"},
           Case{{3, 40, 60}, {3, 1, 60}, 40, 1, 240, "F8_E4M3 in 40×1 blocks"},
           Case{{2, 256, 130}, {2, 2, 2}, 128, 128, 8, "F8_E4M3 in 128×128 blocks"},
       }) {
    Fake fake(fp8_config());
    fake.add("a.weight", DType::kF8E4M3, c.weight);
    fake.add("a.weight_scale", DType::kF32, c.scales).add("a.input_scale", DType::kF32, {});
    const Status status = fake.join();
    ASSERT_TRUE(status.has_value()) << status.error().message;
    ASSERT_EQ(fake.checkpoint.tensors.size(), 1u);
    const StoredTensor& tensor = fake.checkpoint.tensors[0];
    EXPECT_EQ(tensor.info, (TensorInfo{"a.weight", DType::kF32, c.weight}));
    EXPECT_EQ(tensor.packing->parts[1].rows_spanned, c.rows);
    EXPECT_EQ(tensor.packing->columns_spanned, c.columns);
    EXPECT_EQ(tensor.packing->parts[1].row_bytes, c.row_bytes);
    EXPECT_EQ(storage_text(tensor), c.text);
  }
  for (const Shape& scales : {Shape{2}, Shape{130, 2}, Shape{1, 2}, Shape{0}, Shape{2, 2, 1}}) {
    Fake fake(fp8_config());
    fake.add("a.weight", DType::kF8E4M3, {130, 200}).add("a.weight_scale", DType::kF32, scales);
    EXPECT_THAT(fake.refusal().message, HasSubstr("does not fit")) << numerics::shape_text(scales);
  }
}

Json compressed(int bits, int group) {
  return {{"quantization_config",
           {{"quant_method", "compressed-tensors"},
            {"format", "pack-quantized"},
            {"config_groups",
             {{"group_0",
               {{"weights",
                 {{"num_bits", bits},
                  {"type", "int"},
                  {"symmetric", true},
                  {"strategy", "group"},
                  {"group_size", group}}}}}}}}}};
}

TEST(PackedTensors, PackedIntegersTakeTheNameOfTheWeight) {
  Fake fake(compressed(4, 32));
  fake.add("a.weight_packed", DType::kI32, {6, 16}).add("a.weight_scale", DType::kBF16, {6, 4});
  fake.add("a.weight_shape", DType::kI64, {2}).add("b.weight", DType::kBF16, {6, 16});
  ASSERT_TRUE(fake.join().has_value());
  ASSERT_EQ(fake.checkpoint.tensors.size(), 2u);
  const StoredTensor* tensor = fake.checkpoint.find("a.weight");
  ASSERT_NE(tensor, nullptr);
  EXPECT_EQ(tensor->info, (TensorInfo{"a.weight", DType::kF32, {6, 128}}));
  EXPECT_EQ(tensor->packing->kind, PackingKind::kIntegers);
  EXPECT_EQ(tensor->packing->zero, 8);
  EXPECT_EQ(storage_text(*tensor), "4-bit integers in groups of 32");
  EXPECT_EQ(tensor->bytes, 6 * 64 + 6 * 4 * 2u);
}

TEST(PackedTensors, GroupsThatWouldBothFitAreRefused) {
  Json config = compressed(4, 32);
  Json& groups = config["quantization_config"]["config_groups"];
  groups["group_1"] = groups["group_0"];
  groups["group_1"]["weights"]["num_bits"] = 8;
  groups["group_1"]["weights"]["group_size"] = 16;
  Fake fake(config);
  fake.add("a.weight_packed", DType::kI32, {6, 16}).add("a.weight_scale", DType::kBF16, {6, 4});
  const Error error = fake.refusal();
  EXPECT_EQ(error.code, ErrorCode::kUnsupported);
  EXPECT_THAT(error.message, HasSubstr("a.weight_packed I32 [6, 16] may be packed at"));
}

TEST(PackedTensors, HostileShapesDoNotOverflow) {
  constexpr uint64_t kHuge = UINT64_MAX / 8;
  const auto refused = [](Json config, const std::string& codes, DType type, Shape shape,
                          const std::string& other, DType other_type, Shape other_shape) {
    Fake fake(std::move(config));
    fake.add("a." + codes, type, {0}).add("a." + other, other_type, {0});
    fake.add("a.qzeros", DType::kI32, {0});
    for (StoredTensor& tensor : fake.checkpoint.tensors) {
      if (tensor.info.name == "a." + codes) tensor.info.shape = shape;
      if (tensor.info.name == "a." + other) tensor.info.shape = other_shape;
    }
    return fake.refusal().code;
  };
  EXPECT_EQ(refused(compressed(4, 32), "weight_packed", DType::kI32, {1, kHuge}, "weight_scale",
                    DType::kBF16, {1, kHuge / 4}),
            ErrorCode::kCorrupt);
  EXPECT_EQ(refused(compressed(4, 32), "weight_packed", DType::kU8, {1, kHuge * 7}, "weight_scale",
                    DType::kU8, {1, kHuge}),
            ErrorCode::kCorrupt);
  for (const char* method : {"gptq", "awq"}) {
    const Json config{
        {"quantization_config",
         {{"quant_method", method}, {"bits", 4}, {"group_size", 128}, {"desc_act", false}}}};
    for (const Shape& shape : {Shape{kHuge, 8}, Shape{8, kHuge}, Shape{0, 8}, Shape{8, 0}})
      EXPECT_EQ(refused(config, "qweight", DType::kI32, shape, "scales", DType::kF16, {1, 8}),
                ErrorCode::kCorrupt);
  }
}

TEST(PackedTensors, SettingsMayLieBesideTheText) {
  Json config;
  config["text_config"] = compressed(4, 32);
  Fake fake(config);
  fake.add("a.weight_packed", DType::kI32, {6, 16}).add("a.weight_scale", DType::kBF16, {6, 4});
  ASSERT_TRUE(fake.join().has_value());
  EXPECT_NE(fake.checkpoint.find("a.weight"), nullptr);
  EXPECT_EQ(unknown_packing(config), "");
  config["text_config"]["quantization_config"]["quant_method"] = "bitsandbytes";
  EXPECT_EQ(unknown_packing(config), "bitsandbytes");
  EXPECT_EQ(unknown_packing(Json::object()), "");
}

}  // namespace
}  // namespace sluice::io
