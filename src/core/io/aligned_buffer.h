// Memory for large transfers. Direct reads want file offset and address to agree within a page, so
// a buffer is asked for by the offset that it is to be filled from. Header only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>

#include "base/checked.h"
#include "base/error.h"

namespace sluice::io {

// What Linux asks of direct transfers at most; drives with 512-byte sectors ask for less.
inline constexpr size_t kDirectAlignment = 4096;

// Bytes of the whole pages that [offset, end) touches.
inline uint64_t bytes_of_pages(uint64_t offset, uint64_t end) {
  return align_up(end, kDirectAlignment) - offset / kDirectAlignment * kDirectAlignment;
}

// Move-only. Grows, never shrinks; its bytes are not cleared. Thread-compatible.
class AlignedBuffer {
 public:
  // bytes bytes at an address that equals offset modulo kDirectAlignment, readable up to the end of
  // their last page. What earlier calls returned is gone.
  std::span<std::byte> place(size_t bytes, uint64_t offset) {
    const size_t shift = offset % kDirectAlignment;
    const size_t needed = align_up(shift + bytes, kDirectAlignment);
    if (needed > capacity_) {
      data_.reset();  // the old bytes are not worth having both
      data_.reset(static_cast<std::byte*>(std::aligned_alloc(kDirectAlignment, needed)));
      SLUICE_CHECK(data_ != nullptr);
      capacity_ = needed;
    }
    return {data_.get() + shift, bytes};
  }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> data_;
  size_t capacity_ = 0;
};

}  // namespace sluice::io
