// Holds a parser to memory in proportion to its input: a header of forty bytes that makes it ask
// for a gigabyte is a bug, though nothing crashes. Counts through the address sanitizer's hooks;
// without the sanitizer it checks nothing.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdio>
#include <cstdlib>

extern "C" {
using SluiceMallocHook = void (*)(const volatile void*, std::size_t);
using SluiceFreeHook = void (*)(const volatile void*);
__attribute__((weak)) int __sanitizer_install_malloc_and_free_hooks(SluiceMallocHook,
                                                                    SluiceFreeHook);
__attribute__((weak)) std::size_t __sanitizer_get_allocated_size(const volatile void*);
}

namespace sluice::fuzz {

// What any call may use, whatever its input, and what each byte of input may cost. JSON is the
// dearest: "[]," becomes 16 bytes in a vector that doubles, and a vector of its own.
inline constexpr std::size_t kAllocatedBase = 4u << 20;
inline constexpr std::size_t kAllocatedPerByte = 400;

struct Allocated {
  std::atomic<std::size_t> live{0}, peak{0};

  static Allocated& counters() {
    static Allocated counters;
    return counters;
  }
  static void on_malloc(const volatile void*, std::size_t bytes) {
    Allocated& counted = counters();
    const std::size_t now = counted.live += bytes;
    std::size_t peak = counted.peak;
    while (now > peak && !counted.peak.compare_exchange_weak(peak, now)) {
    }
  }
  static void on_free(const volatile void* pointer) {
    if (pointer != nullptr) counters().live -= __sanitizer_get_allocated_size(pointer);
  }
};

// One call of a target, from construction to destruction. One thread at a time; what other threads
// of the call allocate is counted too.
class AllocationBound {
 public:
  explicit AllocationBound(std::size_t input_bytes) : input_bytes_(input_bytes) {
    static const bool hooked =
        __sanitizer_install_malloc_and_free_hooks != nullptr &&
        __sanitizer_get_allocated_size != nullptr &&
        __sanitizer_install_malloc_and_free_hooks(Allocated::on_malloc, Allocated::on_free) != 0;
    static_cast<void>(hooked);
    before_ = Allocated::counters().live;
    Allocated::counters().peak = before_;
  }
  ~AllocationBound() {
    const std::size_t peak = Allocated::counters().peak;
    const std::size_t used = peak > before_ ? peak - before_ : 0;
    if (used <= kAllocatedBase + kAllocatedPerByte * input_bytes_) return;
    std::fprintf(stderr, "%zu bytes allocated for an input of %zu\n", used, input_bytes_);
    std::abort();
  }
  AllocationBound(const AllocationBound&) = delete;
  AllocationBound& operator=(const AllocationBound&) = delete;

 private:
  const std::size_t input_bytes_;
  std::size_t before_ = 0;
};

}  // namespace sluice::fuzz
