// Many byte ranges in few large reads. Rows of permuted heads, experts and packed parts lie in
// pieces that the disk would serve one by one at a fraction of its rate; pieces that lie near each
// other are read together, and whoever wants them gets views.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "io/aligned_buffer.h"
#include "io/byte_source.h"

namespace sluice::stream {

// A run of bytes of one file. Both pointers outlive the reading; the label says what the bytes are
// part of, for messages.
struct ByteRange {
  const io::ByteSource* file = nullptr;
  uint64_t offset = 0;
  uint64_t bytes = 0;
  std::string_view label;
};

// Ranges no further apart than this are read with what lies between: at a gigabyte per second it
// takes no longer than another request.
inline constexpr uint64_t kGapBytesMax = 64 << 10;
// The same for short pieces with regular gaps, which would add up: a page that comes along anyway.
inline constexpr uint64_t kTransposedGapBytesMax = 2 << 10;
// The most that is joined into one read. A single range may be larger.
inline constexpr uint64_t kJoinedBytesMax = 4 << 20;

// Its memory grows to the largest set it has read and is kept. Thread-compatible.
class RangeReader {
 public:
  // Ranges may repeat and overlap. What earlier calls read is gone. Errors: of reading, naming the
  // label of one of the ranges concerned.
  Status read(std::span<const ByteRange> ranges, uint64_t gap_bytes_max = kGapBytesMax);
  // One range of the last read. Valid until the next.
  std::span<const std::byte> bytes(size_t range) const { return pieces_[range]; }
  // Ranges [first, first + count) of the last read, each for itself. Valid until the next.
  std::span<const std::span<const std::byte>> pieces(size_t first, size_t count) const {
    return std::span(pieces_).subspan(first, count);
  }
  // Ranges [first, first + count) of the last read one after another: a view where they lie so in
  // the file, otherwise a copy in buffer. Valid until the next read or use of the buffer.
  std::span<const std::byte> bytes(size_t first, size_t count,
                                   std::vector<std::byte>& buffer) const;

 private:
  // Ranges order_[first, last), all in [offset, end) of one file.
  struct Window {
    size_t first = 0, last = 0;
    uint64_t offset = 0, end = 0;
  };
  void plan_windows(std::span<const ByteRange> ranges, uint64_t gap_bytes_max);
  Window window_from(std::span<const ByteRange> ranges, size_t first, uint64_t gap_bytes_max) const;

  std::vector<std::span<const std::byte>> pieces_;  // one per range
  io::AlignedBuffer memory_;
  std::vector<size_t> order_;    // of the ranges, by place
  std::vector<Window> windows_;  // one per read
};

}  // namespace sluice::stream
