// Sizes and names of element types, and the refusal of every size that overflows.
#include "numerics/dtype.h"

#include <gtest/gtest.h>

#include <cstdint>

namespace sluice::numerics {
namespace {

TEST(DTypeTest, SafetensorsNamesRoundTrip) {
  for (int i = 0; i <= static_cast<int>(DType::kC64); ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(dtype_from_safetensors(dtype_info(dtype).name), dtype);
    EXPECT_EQ(dtype_info(dtype).block_elements, 1u);
  }
  for (const char* name : {"", "f32", "F4", "Q4_0", "Q6_K", "F32 ", "bfloat16"})
    EXPECT_FALSE(dtype_from_safetensors(name)) << name;
}

TEST(DTypeTest, GgmlNumbers) {
  EXPECT_EQ(dtype_from_ggml(0), DType::kF32);
  EXPECT_EQ(dtype_from_ggml(1), DType::kF16);
  EXPECT_EQ(dtype_from_ggml(2), DType::kQ4_0);
  EXPECT_EQ(dtype_from_ggml(14), DType::kQ6_K);
  EXPECT_EQ(dtype_from_ggml(28), DType::kF64);
  EXPECT_EQ(dtype_from_ggml(30), DType::kBF16);
  EXPECT_EQ(dtype_from_ggml(10), DType::kQ2_K);
  EXPECT_EQ(dtype_from_ggml(42), DType::kQ2_0);
  EXPECT_FALSE(dtype_from_ggml(4));  // retired
  EXPECT_FALSE(dtype_from_ggml(9));  // Q8_1 and Q8_K: ggml's intermediates, in no file
  EXPECT_FALSE(dtype_from_ggml(15));
  EXPECT_FALSE(dtype_from_ggml(43));
  EXPECT_FALSE(dtype_from_ggml(UINT32_MAX));
  EXPECT_EQ(ggml_type_name(10), "Q2_K");
  EXPECT_EQ(ggml_type_name(23), "IQ4_XS");
  EXPECT_EQ(ggml_type_name(29), "IQ1_M");
  EXPECT_EQ(ggml_type_name(39), "MXFP4");
  EXPECT_EQ(ggml_type_name(UINT32_MAX), "unknown");
  for (uint32_t type = 0; type < 64; ++type) {
    const auto dtype = dtype_from_ggml(type);
    if (dtype) {
      EXPECT_EQ(dtype_info(*dtype).name, ggml_type_name(type));
    }
  }
}

TEST(DTypeTest, TensorBytes) {
  const Shape matrix = {64, 512};
  EXPECT_EQ(tensor_bytes(DType::kF32, matrix), 64u * 512 * 4);
  EXPECT_EQ(tensor_bytes(DType::kQ4_0, matrix), 64u * 16 * 18);
  EXPECT_EQ(tensor_bytes(DType::kQ6_K, matrix), 64u * 2 * 210);
  EXPECT_EQ(tensor_bytes(DType::kF64, {}), 8u);
  EXPECT_FALSE(tensor_bytes(DType::kQ4_0, {}));
  EXPECT_FALSE(tensor_bytes(DType::kQ4_0, Shape{32, 31}));
  EXPECT_FALSE(tensor_bytes(DType::kQ4_K, Shape{256, 32}));
  EXPECT_EQ(tensor_bytes(DType::kQ4_K, Shape{4, 0}), 0u);
}

TEST(DTypeTest, Overflow) {
  const uint64_t high = uint64_t{1} << 63;
  EXPECT_EQ(element_count(Shape{high}), high);
  EXPECT_FALSE(element_count(Shape{high, 2}));
  EXPECT_FALSE(element_count(Shape{UINT64_MAX, UINT64_MAX}));
  EXPECT_EQ(element_count(Shape{UINT64_MAX}), UINT64_MAX);
  EXPECT_FALSE(tensor_bytes(DType::kF16, Shape{high}));
  EXPECT_EQ(tensor_bytes(DType::kU8, Shape{UINT64_MAX}), UINT64_MAX);
  // An empty axis does not excuse the others, wherever it stands.
  EXPECT_EQ(element_count(Shape{0, 5}), 0u);
  EXPECT_FALSE(element_count(Shape{0, high, 2}));
  EXPECT_FALSE(element_count(Shape{high, 2, 0}));
}

TEST(DTypeTest, ShapeText) {
  EXPECT_EQ(shape_text({}), "[]");
  EXPECT_EQ(shape_text(Shape{32, 64}), "[32, 64]");
}

}  // namespace
}  // namespace sluice::numerics
