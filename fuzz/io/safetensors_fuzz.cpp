// The safetensors header reader over arbitrary bytes. What it accepts must tile the file.
#include "allocation_bound.h"
#include "io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const sluice::fuzz::AllocationBound bound(size);
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  const auto source = sluice::io::memory_source("fuzz", {bytes, bytes + size});
  const auto header = sluice::io::read_safetensors_header(*source, 0);
  if (!header) return 0;
  uint64_t end = header->data_start;
  for (const auto& tensor : header->tensors) {
    SLUICE_CHECK(tensor.offset == end);
    SLUICE_CHECK(tensor.bytes ==
                 sluice::numerics::tensor_bytes(tensor.info.dtype, tensor.info.shape));
    end += tensor.bytes;
  }
  SLUICE_CHECK(end == size);
  return 0;
}
