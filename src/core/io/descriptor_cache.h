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

  // From now on whatever is read of these files goes through the page cache and stays there,
  // whatever DirectReads say: for a model that is soon read again, where there is room for it.
  void keep_pages() { keeps_pages_.store(true, std::memory_order_relaxed); }
  bool keeps_pages() const { return keeps_pages_.load(std::memory_order_relaxed); }

 private:
  struct Entry {
    uint64_t key;
    std::shared_ptr<const FileDescriptor> descriptor;
  };
  const size_t capacity_;
  std::atomic<bool> keeps_pages_{false};
  Mutex mutex_;
  std::list<Entry> entries_ GUARDED_BY(mutex_);  // most recently used first
  uint64_t next_key_ GUARDED_BY(mutex_) = 0;
};

}  // namespace sluice::io
