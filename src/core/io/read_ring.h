// Many large reads past the page cache under way at once without a thread for each: io_uring where
// the system has it. Whoever waits for bytes collects what has ended.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "base/error.h"
#include "io/byte_source.h"

namespace sluice::io {

// One thread. Destroying it waits for what is under way.
class ReadRing {
 public:
  struct Ended {
    uint64_t tag = 0;
    int64_t bytes = 0;  // that came from the start; negative: −errno
  };
  virtual ~ReadRing() = default;

  // Reads whole pages of a source into memory: offset, to and bytes are multiples of
  // kDirectAlignment, bytes fewer than 2 GiB; the last page may lie beyond the end, and fewer bytes
  // come then. False when the source cannot be read so, or as many as the ring holds are under way:
  // read it another way, or collect first. Begins with the next call of start().
  virtual bool add(const ByteSource& source, uint64_t offset, std::byte* to, size_t bytes,
                   uint64_t tag) = 0;
  virtual void start() = 0;
  // One that has ended, in any order. wait: until there is one; something must be under way.
  virtual std::optional<Ended> next(bool wait) = 0;
  virtual size_t under_way() const = 0;
};

// depth: the most reads under way. kUnsupported: this system has none, or forbids it, as containers
// often do.
Result<std::unique_ptr<ReadRing>> make_read_ring(unsigned depth);

}  // namespace sluice::io
