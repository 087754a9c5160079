// How fast a disk reads: about a second of large reads past the page cache.
#pragma once

#include <cstdint>
#include <string>

#include "base/error.h"

namespace sluice::io {

struct DiskProbe {
  std::string file;      // what was read
  bool written = false;  // made for the purpose, and removed again
  bool direct = false;   // reads bypassed the page cache (O_DIRECT, F_NOCACHE)
  uint64_t bytes = 0;    // read, not counting repeats
  double seconds = 0;
  double bytes_per_s() const { return seconds > 0 ? static_cast<double>(bytes) / seconds : 0; }
};

// path: a file; or a folder, of which the largest file is read, or one of 64 MB that is written
// there for the purpose. Several reads are kept in flight, as the stages of preparation do.
// Errors: nothing there can be read or written.
Result<DiskProbe> probe_disk(const std::string& path, double seconds_max);

}  // namespace sluice::io
