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

// How the parts of a packed tensor combine, in f32 and in this order of operations.
enum class PackingKind : uint8_t {
  kMlx,             // codes, scales and perhaps biases per group of a row: a QuantFormat
  kScaledElements,  // 8-bit floats or integers, a scale per block of rows and columns: value ·
                    // scale
  kIntegers,        // codes of 4 or 8 bits, a scale and a zero per group: (code − zero) · scale
  kScaledNvfp4,     // nvfp4 and a factor per tensor: value · (scale · factor), or scale / factor
};

// Where row n of a tensor lies in a part.
enum class PartOrder : uint8_t {
  kRows,           // in row n / rows_spanned
  kColumns,        // in column n: an element of every stored row
  kNibbleColumns,  // in 4 bits of every stored row: the (n mod 8)-th of word n / 8
  kAwqColumns,     // the same, of words that hold columns 0 2 4 6 1 3 5 7 from the lowest bits up
};

// One stored tensor of those that make up a packed one, seen as rows.
struct PackedPart {
  numerics::DType dtype = numerics::DType::kF32;
  uint32_t file = 0;
  uint64_t offset = 0;
  uint64_t row_bytes = 0;
  uint32_t rows_spanned = 1;  // rows of the tensor that one row of the part serves
  PartOrder order = PartOrder::kRows;
  uint64_t stored_rows = 0;  // but for kRows
};

// A tensor that decodes from several stored ones. Its place among a checkpoint's tensors has the
// name of the first part, or one that the model knows, the shape of the values, and F32 as type,
// which is what it decodes to.
struct Packing {
  PackingKind kind = PackingKind::kMlx;
  numerics::QuantFormat format = {};                     // kMlx
  uint32_t columns_spanned = 1;                          // columns that share a scale
  numerics::DType model_dtype = numerics::DType::kBF16;  // type of the model it was made for
  uint8_t bits = 0;                                      // kIntegers: of a code
  uint8_t zero = 0;        // kIntegers: of every group; where zeros are stored, what they should be
  bool has_zeros = false;  // kIntegers: zeros are stored, of as many bits as a code
  bool zeros_are_less_one = false;  // they are stored less one, modulo 2^bits
  bool has_indices = false;         // kIntegers: the group of every column is stored
  bool in_order = true;             // the configuration has groups follow each other
  bool symmetric = true;            // the configuration has `zero` in every group
  bool divides = false;             // kScaledNvfp4: scales are divided by the factor
  // kMlx: codes, scales, biases (affine only); kScaledElements: elements, scales; kIntegers: codes,
  // scales, then zeros and indices as far as they are stored; kScaledNvfp4: codes, scales, factor.
  std::array<PackedPart, 4> parts{};
  uint32_t part_count = 0;

  uint32_t indices_part() const { return has_zeros ? 3 : 2; }
};

struct StoredTensor {
  TensorInfo info;
  uint32_t file = 0;    // index into Checkpoint::files
  uint64_t offset = 0;  // of the first byte, from the start of the file
  uint64_t bytes = 0;   // validated: offset + bytes ≤ file size, bytes = tensor_bytes(info)
  // Null for plain tensors. Otherwise file and offset are the first part's, bytes those of all.
  std::shared_ptr<const Packing> packing = nullptr;
};

// How the tensor is stored, for people: "BF16", "Q4_K", "MLX 4/64", "F8_E4M3 in 128×128 blocks",
// "4-bit integers in groups of 128".
std::string storage_text(const StoredTensor& tensor);

}  // namespace sluice::io
