// A bounded number of open descriptors for any number of files: a model of a thousand shards works
// where a process may open 256. Private to io but for its construction.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>

#include "base/error.h"
#include "base/mutex.h"
#include "io/posix.h"

namespace sluice::io {

// Thread-safe. The least recently used descriptor goes first; one that is in use stays open until
// its user lets go, so a few more than capacity may be open for a moment.
class DescriptorCache {
 public:
  // Half a dozen for every reading thread, and far below the 256 of macOS.
  static constexpr size_t kDefaultCapacity = 48;

  explicit DescriptorCache(size_t capacity = kDefaultCapacity) : capacity_(capacity) {}

  using Open = std::function<Result<FileDescriptor>()>;
  // The descriptor known under a key, opened if need be. Errors: open's.
  Result<std::shared_ptr<const FileDescriptor>> get(uint64_t key, const Open& open)
      EXCLUDES(mutex_);
  uint64_t new_key() EXCLUDES(mutex_);
  // Closes what is kept under the key.
  void forget(uint64_t key) EXCLUDES(mutex_);

  // What becomes of pages that are read: as DirectReads say; kept, for a model that is soon read
  // again, where there is room for it; or left out of the page cache however small the files are,
  // for a model that must do with little memory.
  enum class Pages { kAsDirectReadsSay, kKept, kLeftOut };
  void set_pages(Pages pages) { pages_.store(pages, std::memory_order_relaxed); }
  Pages pages() const { return pages_.load(std::memory_order_relaxed); }

 private:
  struct Entry {
    uint64_t key;
    std::shared_ptr<const FileDescriptor> descriptor;
  };
  const size_t capacity_;
  std::atomic<Pages> pages_{Pages::kAsDirectReadsSay};
  Mutex mutex_;
  std::list<Entry> entries_ GUARDED_BY(mutex_);  // most recently used first
  uint64_t next_key_ GUARDED_BY(mutex_) = 0;
};

}  // namespace sluice::io
