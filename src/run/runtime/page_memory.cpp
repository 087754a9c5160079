#include "runtime/page_memory.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "base/units.h"

namespace sluice::runtime {

PageMemory::~PageMemory() {
  if (data_ != nullptr) munmap(data_, size_);
}

Result<PageMemory> PageMemory::reserve(size_t bytes, std::string_view what) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
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

}  // namespace sluice::runtime
