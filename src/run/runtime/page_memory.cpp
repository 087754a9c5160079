#include "runtime/page_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/checked.h"
#include "base/units.h"

namespace sluice::runtime {

PageMemory::~PageMemory() {
  if (release_)
    release_();
  else if (data_ != nullptr)
    munmap(data_, size_);
}

Result<PageMemory> PageMemory::reserve(size_t bytes, std::string_view what) {
  // What is set aside for growth may exceed what the system could deliver at once.
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED)
    return fail(ErrorCode::kExhausted, "no memory for {}: {} were refused by the system ({})", what,
                bytes_text(bytes), std::strerror(errno));
#if defined(__linux__)
  madvise(data, bytes, MADV_HUGEPAGE);  // a hint: systems without huge pages refuse it
#endif
  PageMemory memory;
  memory.data_ = static_cast<std::byte*>(data);
  memory.size_ = bytes;
  return memory;
}

PageMemory PageMemory::borrow(std::byte* data, size_t bytes, std::function<void()> release) {
  PageMemory memory;
  memory.data_ = data;
  memory.size_ = bytes;
  memory.release_ = std::move(release);
  return memory;
}

Result<PageMemory> reserve_from(const MemorySource* source, size_t bytes, std::string_view what) {
  return source == nullptr ? PageMemory::reserve(bytes, what) : source->reserve(bytes, what);
}

void PageMemory::give_back(size_t offset, size_t bytes) {
  if (release_) return;
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t begin = align_up(offset, page), end = (offset + bytes) / page * page;
  if (begin >= end) return;
#if defined(__APPLE__)
  madvise(data_ + begin, end - begin, MADV_FREE);
#else
  madvise(data_ + begin, end - begin, MADV_DONTNEED);
#endif
}

}  // namespace sluice::runtime
