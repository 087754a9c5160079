// Memory from MLX's allocator, which processor and GPU read alike, and arrays over parts of it
// that copy nothing.
#pragma once

#include <map>

#include "base/mutex.h"
#include "gpu/mlx_library.h"
#include "runtime/page_memory.h"

namespace sluice::gpu {

// Thread-safe. Must outlive what it reserved.
class MlxMemory : public runtime::MemorySource {
 public:
  Result<runtime::PageMemory> reserve(size_t bytes, std::string_view what) const override;
  // An array over what lies there, in this memory and as long as it stays; a copy where the address
  // is no multiple of the element's size, or is not this memory's.
  mx::array view(const std::byte* data, mx::Shape shape, mx::Dtype dtype) const;
  static mx::array copy(const std::byte* data, mx::Shape shape, mx::Dtype dtype);

 private:
  struct Region {
    size_t bytes = 0;   // from the page on
    size_t offset = 0;  // of the page in the buffer
    mx::array buffer;   // uint8; keeps the memory
  };
  mutable Mutex mutex_;
  mutable std::map<const std::byte*, Region> regions_ GUARDED_BY(mutex_);  // by their first byte
};

}  // namespace sluice::gpu
