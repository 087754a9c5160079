// How fast a disk reads: about a second of large reads, by each way of reading it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace sluice::io {

// kRing: past the page cache, many under way in a ring of the kernel's (io_uring). kDirect: past it
// by threads that wait. kCached: through it, dropped from it before and afterwards.
enum class DiskPath : uint8_t { kRing, kDirect, kCached };
inline constexpr DiskPath kDiskPaths[] = {DiskPath::kRing, DiskPath::kDirect, DiskPath::kCached};
std::string_view disk_path_name(DiskPath path);  // "io_uring", "direct", "cached"

struct DiskProbe {
  DiskPath path = DiskPath::kDirect;
  std::string file;               // what was read
  bool written = false;           // made for the purpose, and removed again
  uint64_t bytes = 0;             // read, not counting repeats
  double seconds = 0, cpu_s = 0;  // cpu_s: of all threads, the kernel's work for them included
  bool past_cache() const { return path != DiskPath::kCached; }
  double bytes_per_s() const { return seconds > 0 ? static_cast<double>(bytes) / seconds : 0; }
  double cpu_s_per_gb() const { return bytes > 0 ? cpu_s * 1e9 / static_cast<double>(bytes) : 0; }
};

// target: a file; or a folder, of which the largest file is read, or one of 64 MB that is written
// there for the purpose. Of the ways asked for, those that this system and file system offer, in
// that order. seconds_max: for each. Errors: nothing there can be read or written.
Result<std::vector<DiskProbe>> probe_disk(const std::string& target,
                                          const std::vector<DiskPath>& paths, double seconds_max);

}  // namespace sluice::io
