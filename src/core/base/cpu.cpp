#include "base/cpu.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <thread>
#if defined(__linux__)
#include <sched.h>
#endif

namespace sluice {
namespace {

SimdLevel detect_simd() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    return SimdLevel::kAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return SimdLevel::kAvx2;
  return SimdLevel::kScalar;
#elif defined(__aarch64__)
  return SimdLevel::kNeon;
#else
  return SimdLevel::kScalar;
#endif
}

#if defined(__linux__)
// Cores granted by a cgroup's CPU quota, rounded up; 0 when there is none.
unsigned cgroup_cores() {
  double quota = -1, period = 0;
  if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2) {
    std::string word;
    v2 >> word >> period;
    if (word != "max") quota = std::strtod(word.c_str(), nullptr);
  } else {
    std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") >> quota;
    std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_period_us") >> period;
  }
  if (quota <= 0 || period <= 0) return 0;
  return static_cast<unsigned>((quota + period - 1) / period);
}
#endif

unsigned usable_cores() {
  unsigned cores = std::max(1u, std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) cores = std::max(1, CPU_COUNT(&set));
  if (const unsigned granted = cgroup_cores(); granted > 0) cores = std::min(cores, granted);
#endif
  return cores;
}

size_t inner_cache_bytes() {
#if defined(_SC_LEVEL1_DCACHE_SIZE)
  return static_cast<size_t>(std::max(0L, sysconf(_SC_LEVEL1_DCACHE_SIZE)));
#else
  return 0;
#endif
}

}  // namespace

std::string_view simd_level_name(SimdLevel level) {
  switch (level) {
    case SimdLevel::kScalar: return "scalar";
    case SimdLevel::kNeon: return "neon";
    case SimdLevel::kAvx2: return "avx2";
    case SimdLevel::kAvx512: return "avx512";
  }
  return "unknown";
}

CpuInfo detect_cpu() { return {detect_simd(), usable_cores(), inner_cache_bytes()}; }

std::vector<SimdLevel> offered_simd_levels(const CpuInfo& cpu) {
  std::vector<SimdLevel> levels = {SimdLevel::kScalar};
  if (cpu.simd == SimdLevel::kAvx512) levels.push_back(SimdLevel::kAvx2);
  if (cpu.simd != SimdLevel::kScalar) levels.push_back(cpu.simd);
  return levels;
}

Result<SimdLevel> parse_simd_level(std::string_view name, const CpuInfo& cpu) {
  std::string offered;
  for (const SimdLevel level : offered_simd_levels(cpu)) {
    if (name == simd_level_name(level)) return level;
    offered += fmt::format("{}{}", offered.empty() ? "" : ", ", simd_level_name(level));
  }
  for (const SimdLevel level : {SimdLevel::kNeon, SimdLevel::kAvx2, SimdLevel::kAvx512})
    if (name == simd_level_name(level))
      return fail(ErrorCode::kUnsupported, "this processor does not offer {}; it offers {}", name,
                  offered);
  return fail(ErrorCode::kInvalidArgument,
              "unknown instruction set \"{}\"; this processor offers {}", name, offered);
}

uint64_t peak_resident_bytes() {
#if defined(__linux__)
  // getrusage would count what the parent held before it became this program.
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    if (word != "VmHWM:") continue;
    uint64_t kibibytes = 0;
    status >> kibibytes;
    return kibibytes * 1024;
  }
#endif
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
#if defined(__APPLE__)
  return static_cast<uint64_t>(usage.ru_maxrss);
#else
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
#endif
}

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace sluice
