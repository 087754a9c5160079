#include "io/descriptor_cache.h"

#include <algorithm>

namespace sluice::io {

Result<std::shared_ptr<const FileDescriptor>> DescriptorCache::get(uint64_t key, const Open& open) {
  MutexLock lock(mutex_);
  const auto found = std::ranges::find(entries_, key, &Entry::key);
  if (found != entries_.end()) {
    entries_.splice(entries_.begin(), entries_, found);
    return found->descriptor;
  }
  // Room first: at the limit of open files the new one would not open.
  while (entries_.size() >= capacity_) entries_.pop_back();
  SLUICE_ASSIGN(FileDescriptor opened, open());
  entries_.push_front({key, std::make_shared<const FileDescriptor>(std::move(opened))});
  return entries_.front().descriptor;
}

uint64_t DescriptorCache::new_key() {
  MutexLock lock(mutex_);
  return next_key_++;
}

void DescriptorCache::forget(uint64_t key) {
  MutexLock lock(mutex_);
  entries_.remove_if([key](const Entry& entry) { return entry.key == key; });
}

}  // namespace sluice::io
