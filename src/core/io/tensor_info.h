// What a tensor is (TensorInfo) and where its bytes lie (StoredTensor). Values; no bytes owned.
#pragma once

#include <cstdint>
#include <string>

#include "numerics/dtype.h"

namespace sluice::io {

struct TensorInfo {
  std::string name;
  numerics::DType dtype = numerics::DType::kF32;
  numerics::Shape shape;
  bool operator==(const TensorInfo&) const = default;
};

struct StoredTensor {
  TensorInfo info;
  uint32_t file = 0;    // index into Checkpoint::files
  uint64_t offset = 0;  // of the first byte, from the start of the file
  uint64_t bytes = 0;   // validated: offset + bytes ≤ file size, bytes = tensor_bytes(info)
};

}  // namespace sluice::io
