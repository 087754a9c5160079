// Large anonymous memory straight from the system: for weights and for keys and values. Pages come
// when they are first touched; huge ones are asked for, because decoding walks through all weights
// once a token and otherwise waits for address translation (88 against about 70 % of read
// bandwidth, measured).
#pragma once

#include <cstddef>
#include <functional>
#include <string_view>
#include <utility>

#include "base/error.h"

namespace sluice::runtime {

// Move-only. Zero until written.
class PageMemory {
 public:
  PageMemory() = default;
  PageMemory(PageMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        release_(std::exchange(other.release_, nullptr)) {}
  PageMemory& operator=(PageMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(release_, other.release_);
    return *this;
  }
  ~PageMemory();

  // what: for the message of kExhausted. bytes > 0; pages that are never touched cost nothing.
  static Result<PageMemory> reserve(size_t bytes, std::string_view what);
  // Memory of somebody else, who takes it back by release and gets no pages before.
  static PageMemory borrow(std::byte* data, size_t bytes, std::function<void()> release);
  // Gives the pages wholly within a range back to the system; they are zero then, and come again
  // when they are touched.
  void give_back(size_t offset, size_t bytes);

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  std::function<void()> release_;  // of what is borrowed
};

// Where memory for weights comes from. Thread-safe.
class MemorySource {
 public:
  virtual ~MemorySource() = default;
  // Begins at a page; zero or not. bytes, what and errors: as PageMemory::reserve().
  virtual Result<PageMemory> reserve(size_t bytes, std::string_view what) const = 0;
};
// From the one given, or from the system where it is null.
Result<PageMemory> reserve_from(const MemorySource* source, size_t bytes, std::string_view what);

}  // namespace sluice::runtime
