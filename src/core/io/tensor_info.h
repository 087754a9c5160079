// What a tensor is (TensorInfo) and where its bytes lie (StoredTensor). Values; no bytes owned.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "numerics/dtype.h"
#include "numerics/quant_format.h"

namespace sluice::io {

struct TensorInfo {
  std::string name;
  numerics::DType dtype = numerics::DType::kF32;
  numerics::Shape shape;
  bool operator==(const TensorInfo&) const = default;
};

// How the parts of a packed tensor combine.
enum class PackingKind : uint8_t {
  kMlx,        // codes, scales and perhaps biases per group of a row: a QuantFormat
  kFp8Blocks,  // 8-bit floats, and one scale per block of rows and columns
};

// One stored tensor of those that make up a packed one, seen as rows.
struct PackedPart {
  numerics::DType dtype = numerics::DType::kF32;
  uint32_t file = 0;
  uint64_t offset = 0;
  uint64_t row_bytes = 0;
  uint32_t rows_spanned = 1;  // rows of the tensor that one row of the part serves
};

// A tensor that decodes from several stored ones. Its place among a checkpoint's tensors has the
// name of the first part, the shape of the values, and F32 as type, which is what it decodes to.
struct Packing {
  PackingKind kind = PackingKind::kMlx;
  numerics::QuantFormat format;                          // kMlx
  uint32_t columns_spanned = 1;                          // kFp8Blocks: columns that share a scale
  numerics::DType model_dtype = numerics::DType::kBF16;  // type of the model it was made for
  // kMlx: codes, scales, biases (affine only); kFp8Blocks: weights, scales.
  std::array<PackedPart, 3> parts{};
  uint32_t part_count = 0;
};

struct StoredTensor {
  TensorInfo info;
  uint32_t file = 0;    // index into Checkpoint::files
  uint64_t offset = 0;  // of the first byte, from the start of the file
  uint64_t bytes = 0;   // validated: offset + bytes ≤ file size, bytes = tensor_bytes(info)
  // Null for plain tensors. Otherwise file and offset are the first part's, bytes those of all.
  std::shared_ptr<const Packing> packing = nullptr;
};

// How the tensor is stored, for people: "BF16", "Q4_K", "MLX 4/64", "F8_E4M3 in 128×128 blocks".
std::string storage_text(const StoredTensor& tensor);

}  // namespace sluice::io
