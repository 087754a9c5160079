// The table behind DType: names, block sizes, and the overflow-checked bytes of a tensor.
#include "numerics/dtype.h"

#include <array>

#include "base/checked.h"
#include "base/error.h"

namespace sluice::numerics {
namespace {

// In the order of the enumerators.
constexpr DTypeInfo kTable[] = {
    {"F32", 1, 4, true},       {"F16", 1, 2, true},      {"BF16", 1, 2, true},
    {"F64", 1, 8, true},       {"F8_E4M3", 1, 1, true},  {"F8_E5M2", 1, 1, true},
    {"F8_E8M0", 1, 1, true},   {"I8", 1, 1, false},      {"I16", 1, 2, false},
    {"I32", 1, 4, false},      {"I64", 1, 8, false},     {"U8", 1, 1, false},
    {"U16", 1, 2, false},      {"U32", 1, 4, false},     {"U64", 1, 8, false},
    {"BOOL", 1, 1, false},     {"C64", 1, 8, false},     {"Q4_0", 32, 18, true},
    {"Q4_1", 32, 20, true},    {"Q5_0", 32, 22, true},   {"Q5_1", 32, 24, true},
    {"Q8_0", 32, 34, true},    {"Q4_K", 256, 144, true}, {"Q5_K", 256, 176, true},
    {"Q6_K", 256, 210, true},  {"Q2_K", 256, 84, true},  {"Q3_K", 256, 110, true},
    {"IQ1_S", 256, 50, true},  {"IQ1_M", 256, 56, true}, {"IQ2_XXS", 256, 66, true},
    {"IQ2_XS", 256, 74, true}, {"IQ2_S", 256, 82, true}, {"IQ3_XXS", 256, 98, true},
    {"IQ3_S", 256, 110, true}, {"IQ4_NL", 32, 18, true}, {"IQ4_XS", 256, 136, true},
    {"TQ1_0", 256, 54, true},  {"TQ2_0", 256, 66, true}, {"Q1_0", 128, 18, true},
    {"Q2_0", 64, 18, true},    {"MXFP4", 32, 17, true},  {"NVFP4", 64, 36, true},
};
static_assert(std::size(kTable) == static_cast<size_t>(DType::kNVFP4) + 1);

struct GgmlType {
  std::string_view name;
  std::optional<DType> dtype;
};

// By ggml_type number; empty names are numbers that ggml has retired or not given out.
constexpr GgmlType kGgmlTypes[] = {
    {"F32", DType::kF32},
    {"F16", DType::kF16},
    {"Q4_0", DType::kQ4_0},
    {"Q4_1", DType::kQ4_1},
    {"Q4_2", {}},
    {"Q4_3", {}},
    {"Q5_0", DType::kQ5_0},
    {"Q5_1", DType::kQ5_1},
    {"Q8_0", DType::kQ8_0},
    {"Q8_1", {}},
    {"Q2_K", DType::kQ2_K},
    {"Q3_K", DType::kQ3_K},
    {"Q4_K", DType::kQ4_K},
    {"Q5_K", DType::kQ5_K},
    {"Q6_K", DType::kQ6_K},
    {"Q8_K", {}},
    {"IQ2_XXS", DType::kIQ2_XXS},
    {"IQ2_XS", DType::kIQ2_XS},
    {"IQ3_XXS", DType::kIQ3_XXS},
    {"IQ1_S", DType::kIQ1_S},
    {"IQ4_NL", DType::kIQ4_NL},
    {"IQ3_S", DType::kIQ3_S},
    {"IQ2_S", DType::kIQ2_S},
    {"IQ4_XS", DType::kIQ4_XS},
    {"I8", DType::kI8},
    {"I16", DType::kI16},
    {"I32", DType::kI32},
    {"I64", DType::kI64},
    {"F64", DType::kF64},
    {"IQ1_M", DType::kIQ1_M},
    {"BF16", DType::kBF16},
    {"Q4_0_4_4", {}},
    {"Q4_0_4_8", {}},
    {"Q4_0_8_8", {}},
    {"TQ1_0", DType::kTQ1_0},
    {"TQ2_0", DType::kTQ2_0},
    {"IQ4_NL_4_4", {}},
    {"IQ4_NL_4_8", {}},
    {"IQ4_NL_8_8", {}},
    {"MXFP4", DType::kMXFP4},
    {"NVFP4", DType::kNVFP4},
    {"Q1_0", DType::kQ1_0},
    {"Q2_0", DType::kQ2_0},
};

}  // namespace

const DTypeInfo& dtype_info(DType dtype) {
  const auto index = static_cast<size_t>(dtype);
  SLUICE_CHECK(index < std::size(kTable));
  return kTable[index];
}

std::optional<DType> dtype_from_safetensors(std::string_view name) {
  for (size_t i = 0; i <= static_cast<size_t>(DType::kC64); ++i)
    if (kTable[i].name == name) return static_cast<DType>(i);
  return std::nullopt;
}

std::optional<DType> dtype_from_model_name(std::string_view name) {
  if (name == "bfloat16") return DType::kBF16;
  if (name == "float16") return DType::kF16;
  if (name == "float32") return DType::kF32;
  return std::nullopt;
}

std::optional<DType> dtype_from_ggml(uint32_t type) {
  return type < std::size(kGgmlTypes) ? kGgmlTypes[type].dtype : std::nullopt;
}

std::string_view ggml_type_name(uint32_t type) {
  return type < std::size(kGgmlTypes) ? kGgmlTypes[type].name : "unknown";
}

std::optional<uint64_t> element_count(std::span<const uint64_t> shape) {
  // A zero among the factors must not hide an overflow of the others, nor depend on their order.
  uint64_t nonzero_product = 1;
  bool empty = false;
  for (const uint64_t size : shape) {
    if (size == 0) {
      empty = true;
      continue;
    }
    const auto next = checked_mul(nonzero_product, size);
    if (!next) return std::nullopt;
    nonzero_product = *next;
  }
  return empty ? 0 : nonzero_product;
}

std::optional<uint64_t> tensor_bytes(DType dtype, std::span<const uint64_t> shape) {
  const DTypeInfo& info = dtype_info(dtype);
  const uint64_t last = shape.empty() ? 1 : shape.back();
  if (last % info.block_elements != 0) return std::nullopt;
  const auto elements = element_count(shape);
  if (!elements) return std::nullopt;
  return checked_mul(*elements / info.block_elements, info.block_bytes);
}

std::string shape_text(std::span<const uint64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i != 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + "]";
}

}  // namespace sluice::numerics
