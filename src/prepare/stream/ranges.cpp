#include "stream/ranges.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <utility>

namespace sluice::stream {
// The longest run of ranges from the first that one read should serve.
RangeReader::Window RangeReader::window_from(std::span<const ByteRange> ranges, size_t first,
                                             uint64_t gap_bytes_max) const {
  const ByteRange& head = ranges[order_[first]];
  Window window{first, first + 1, head.offset, head.offset + head.bytes};
  for (; window.last < order_.size(); ++window.last) {
    const ByteRange& next = ranges[order_[window.last]];
    const uint64_t end = std::max(window.end, next.offset + next.bytes);
    const bool inside = end == window.end;
    const bool near =
        next.offset <= window.end + gap_bytes_max && end - window.offset <= kJoinedBytesMax;
    if (next.file != head.file || !(inside || near)) break;
    window.end = end;
  }
  return window;
}

void RangeReader::plan_windows(std::span<const ByteRange> ranges, uint64_t gap_bytes_max) {
  order_.resize(ranges.size());
  std::iota(order_.begin(), order_.end(), size_t{0});
  std::ranges::sort(order_, [&](size_t a, size_t b) {
    if (ranges[a].file != ranges[b].file)
      return std::less<const io::ByteSource*>()(ranges[a].file, ranges[b].file);
    return ranges[a].offset < ranges[b].offset;
  });
  windows_.clear();
  for (size_t first = 0; first < order_.size(); first = windows_.back().last)
    windows_.push_back(window_from(ranges, first, gap_bytes_max));
}

Status RangeReader::read(std::span<const ByteRange> ranges, uint64_t gap_bytes_max) {
  plan_windows(ranges, gap_bytes_max);
  // Reads of whole pages can go straight from the disk into pages of their own. Small ones would
  // waste most of such a page: they lie behind, close together.
  const auto is_small = [](const Window& window) {
    return window.end - window.offset < io::kDirectAlignment;
  };
  uint64_t pages = 0, small = 0;
  for (const Window& window : windows_) {
    if (is_small(window))
      small += window.end - window.offset;
    else
      pages += io::bytes_of_pages(window.offset, window.end);
  }
  pieces_.assign(ranges.size(), {});
  const std::span<std::byte> all = memory_.place(pages + small, 0);
  uint64_t next_page = 0, next_small = pages;
  for (const Window& window : windows_) {
    uint64_t at = next_page + window.offset % io::kDirectAlignment;
    if (is_small(window))
      at = std::exchange(next_small, next_small + (window.end - window.offset));
    else
      next_page += io::bytes_of_pages(window.offset, window.end);
    const std::span<std::byte> memory = all.subspan(at, window.end - window.offset);
    const ByteRange& head = ranges[order_[window.first]];
    if (auto status = head.file->read_at(window.offset, memory); !status)
      return in_context(fmt::format("tensor {}", head.label), std::move(status).error());
    for (size_t i = window.first; i < window.last; ++i) {
      const ByteRange& range = ranges[order_[i]];
      pieces_[order_[i]] = memory.subspan(range.offset - window.offset, range.bytes);
    }
  }
  return {};
}

std::span<const std::byte> RangeReader::bytes(size_t first, size_t count,
                                              std::vector<std::byte>& buffer) const {
  const auto pieces = std::span(pieces_).subspan(first, count);
  if (pieces.empty()) return {};
  size_t total = 0;
  bool together = true;
  for (const std::span<const std::byte> piece : pieces) {
    together = together && piece.data() == pieces[0].data() + total;
    total += piece.size();
  }
  if (together) return {pieces[0].data(), total};
  buffer.resize(total);
  std::byte* out = buffer.data();
  for (const std::span<const std::byte> piece : pieces) out = std::ranges::copy(piece, out).out;
  return buffer;
}

}  // namespace sluice::stream
