#include "runtime/window_ring.h"

#include <algorithm>

#include "base/checked.h"
#include "io/aligned_buffer.h"

namespace sluice::runtime {

uint64_t frame_bytes(std::span<const WeightEntry> entries, std::span<const Window> windows) {
  uint64_t bytes = 0;
  for (const Window& w : windows)
    bytes = std::max(bytes, place_rows(entries[w.entry], w.first_row, w.rows, 0).end);
  return align_up(bytes, io::kDirectAlignment);
}

WindowRing::WindowRing(std::span<const WeightEntry> entries, std::vector<Window> windows,
                       size_t frames, WeightReader& reader)
    : entries_(entries),
      windows_(std::move(windows)),
      frame_count_(frames),
      frame_bytes_(frame_bytes(entries, windows_)),
      reader_(reader),
      frames_(std::make_unique<Frame[]>(frames)) {}

Result<std::unique_ptr<WindowRing>> WindowRing::make(std::span<const WeightEntry> entries,
                                                     std::vector<Window> windows, size_t frames,
                                                     WeightReader& reader,
                                                     const MemorySource* memory) {
  SLUICE_CHECK(!windows.empty() && frames >= 2);
  std::unique_ptr<WindowRing> ring(new WindowRing(entries, std::move(windows), frames, reader));
  SLUICE_ASSIGN(ring->memory_,
                reserve_from(memory, static_cast<size_t>(ring->frame_bytes_ * frames),
                             "the windows through which weights are read"));
  return ring;
}

WindowRing::~WindowRing() {
  for (size_t i = 0; i < frame_count_; ++i) (void)reader_.wait(frames_[i].ticket);
}

// Makes used_ the turn of that window: the next one as a rule; a later one that is under way when
// some were left out, as the head's are while a prompt is read; else reading begins anew there.
void WindowRing::seek(size_t window) {
  for (uint64_t turn = used_; turn < read_; ++turn)
    if (turn % windows_.size() == window) {
      used_ = turn;
      return;
    }
  const uint64_t behind = read_ % windows_.size();
  read_ += (window + windows_.size() - behind) % windows_.size();
  used_ = read_;
}

void WindowRing::read_ahead() {
  for (; read_ < used_ + frame_count_; ++read_) {
    const auto index = static_cast<size_t>(read_ % windows_.size());
    const Window& window = windows_[index];
    Frame& f = frame(read_);
    (void)reader_.wait(f.ticket);  // under way still when its window was left out
    const WeightEntry& entry = entries_[window.entry];
    f.placed = place_rows(entry, window.first_row, window.rows, 0);
    transfers_.clear();
    append_transfers(entry, f.placed, memory_.data() + read_ % frame_count_ * frame_bytes_,
                     transfers_);
    reader_.submit(transfers_, f.ticket);
  }
}

Result<numerics::WeightView> WindowRing::take(size_t window) {
  if (holds_) ++used_;
  holds_ = false;
  seek(window);
  read_ahead();
  Frame& f = frame(used_);
  if (Status status = reader_.wait(f.ticket); !status) {
    used_ = read_;  // whatever else is under way is not to be trusted for order
    return std::unexpected(std::move(status).error());
  }
  holds_ = true;
  return view_rows(entries_[windows_[window].entry], f.placed,
                   memory_.data() + used_ % frame_count_ * frame_bytes_);
}

}  // namespace sluice::runtime
