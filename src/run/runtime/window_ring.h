// Weights that do not stay: ranges of rows that come in the order in which a forward pass uses
// them, again and again, into a ring of frames of equal size. While one is used the next are being
// read, also those of the next token.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "runtime/page_memory.h"
#include "runtime/weight_reader.h"

namespace sluice::runtime {

// What is read and used at a time.
struct Window {
  uint32_t entry = 0;
  uint64_t first_row = 0, rows = 0;
};

// Bytes that a frame needs for any of the windows.
uint64_t frame_bytes(std::span<const WeightEntry> entries, std::span<const Window> windows);

// One thread. entries and reader must outlive it.
class WindowRing {
 public:
  // windows in order of use, at least one; frames ≥ 2. memory: null for the system's. kExhausted:
  // it refuses.
  static Result<std::unique_ptr<WindowRing>> make(std::span<const WeightEntry> entries,
                                                  std::vector<Window> windows, size_t frames,
                                                  WeightReader& reader,
                                                  const MemorySource* memory = nullptr);
  ~WindowRing();

  std::span<const Window> windows() const { return windows_; }
  // The rows of that window, until the next call. Any order works; that of use is what is read
  // ahead. Errors: the source's; the next call begins anew.
  Result<numerics::WeightView> take(size_t window);

 private:
  struct Frame {
    PlacedRows placed;
    ReadTicket ticket;
  };
  WindowRing(std::span<const WeightEntry> entries, std::vector<Window> windows, size_t frames,
             WeightReader& reader);
  Frame& frame(uint64_t turn) { return frames_[turn % frame_count_]; }
  void seek(size_t window);
  void read_ahead();

  const std::span<const WeightEntry> entries_;
  const std::vector<Window> windows_;
  const size_t frame_count_;
  const uint64_t frame_bytes_;
  WeightReader& reader_;
  PageMemory memory_;
  std::unique_ptr<Frame[]> frames_;
  std::vector<WeightTransfer> transfers_;
  // Turn t is for window t mod n, in frame t mod f. Turns [used_, read_) are read or being read.
  uint64_t used_ = 0, read_ = 0;
  bool holds_ = false;  // turn used_ was handed out
};

}  // namespace sluice::runtime
