// Element and block types of stored tensors, and the bytes they take. Plain types hold one element
// per block; GGUF block types hold 32 to 256. What a block means is block_codec.h's business.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::numerics {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kF64,
  kF8E4M3,
  kF8E5M2,
  kF8E8M0,
  kI8,
  kI16,
  kI32,
  kI64,
  kU8,
  kU16,
  kU32,
  kU64,
  kBool,
  kC64,
  // GGUF blocks.
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kQ2_K,
  kQ3_K,
  kIQ1_S,
  kIQ1_M,
  kIQ2_XXS,
  kIQ2_XS,
  kIQ2_S,
  kIQ3_XXS,
  kIQ3_S,
  kIQ4_NL,
  kIQ4_XS,
  kTQ1_0,
  kTQ2_0,
  kQ1_0,
  kQ2_0,
  kMXFP4,
  kNVFP4,
};

// Row-major; the last axis is contiguous and is the input axis of a matrix.
using Shape = std::vector<uint64_t>;

struct DTypeInfo {
  std::string_view name;    // as safetensors spells it ("BF16"), or GGUF ("Q4_K")
  uint32_t block_elements;  // 1 for plain types
  uint32_t block_bytes;
  bool is_float;  // decodes to real numbers (all GGUF blocks do)
};

const DTypeInfo& dtype_info(DType dtype);

// "F32", "BF16", "F8_E4M3", …; nothing for a name that safetensors does not define.
std::optional<DType> dtype_from_safetensors(std::string_view name);
// The name that a configuration gives a model's float type: "bfloat16", "float16", "float32".
std::optional<DType> dtype_from_model_name(std::string_view name);
// ggml_type numbers; nothing for types not supported as a source.
std::optional<DType> dtype_from_ggml(uint32_t type);
// GGML's own name of a type number, known to us or not ("IQ4_XS"); for messages.
std::string_view ggml_type_name(uint32_t type);

// Overflow-checked; nothing when the product overflows or the last axis is no whole number of
// blocks. Zero-sized axes are allowed and give 0.
std::optional<uint64_t> element_count(std::span<const uint64_t> shape);
std::optional<uint64_t> tensor_bytes(DType dtype, std::span<const uint64_t> shape);

// "[32, 64]".
std::string shape_text(std::span<const uint64_t> shape);

}  // namespace sluice::numerics
