// What the processor offers, found once at start and passed down; and how much memory this process
// has used at most.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace sluice {

enum class SimdLevel { kScalar, kNeon, kAvx2, kAvx512 };

std::string_view simd_level_name(SimdLevel level);

struct CpuInfo {
  SimdLevel simd = SimdLevel::kScalar;  // the widest set that kernels exist for
  unsigned cores = 1;                   // what this process may use: affinity and cgroup counted
  size_t inner_cache_bytes = 0;         // of a core, for data; 0: unknown
};

CpuInfo detect_cpu();

// Narrowest first; what the processor offers and kernels exist for.
std::vector<SimdLevel> offered_simd_levels(const CpuInfo& cpu);

// name: scalar, neon, avx2, avx512. Refuses a set that the processor lacks, listing what it has.
Result<SimdLevel> parse_simd_level(std::string_view name, const CpuInfo& cpu);

// Largest resident set so far, as the kernel counts it.
uint64_t peak_resident_bytes();
// Processor time of all threads of this process so far, the kernel's work for them included.
double cpu_seconds();

}  // namespace sluice
