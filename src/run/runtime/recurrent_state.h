// The recurrent state of sessions, beside their keys and values: of each layer of linear attention,
// what its convolution looks back on and one matrix for each head. It does not grow with the
// context, and no token can be taken out of it again; so states that have been passed are kept.
//
// A state that is complete is never written again: a step reads the one before and writes others.
// So keeping one costs no copy, forks share them, and a step that fails has spoilt nothing.
//
// Kept are, of each session: the state before the first uncertain token of the last step, which is
// where a rejected guess returns to; the same of its last prompt; and the last one at a multiple of
// kStateInterval tokens. Going back to any other place means the nearest of these before it, or the
// beginning, and the tokens from there on are run again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/error.h"
#include "model/config.h"
#include "runtime/page_memory.h"

namespace sluice::runtime {

inline constexpr size_t kStateInterval = 64;
// Of one session at most: those three, the current one and the next.
inline constexpr size_t kStatesOfSession = 5;

// Where a layer's parts lie in a state. Floats.
struct StateShape {
  model::RecurrentSizes sizes;

  bool empty() const { return sizes.layers == 0; }
  size_t tiles() const;  // of a head: kernels::kDeltaColumns columns each
  size_t tile_floats() const;
  size_t past_floats() const { return sizes.past * sizes.columns; }
  size_t layer_floats() const;
  uint64_t bytes() const;  // of a state
};

// Slots for states, with reference counts. One thread.
class StatePool {
 public:
  // Address space for that many states; memory is taken as they are first written.
  static Result<std::shared_ptr<StatePool>> make(const StateShape& shape, size_t slots);
  const StateShape& shape() const { return shape_; }
  size_t free_slots() const { return free_.size(); }

 private:
  friend class StateRef;
  StatePool() = default;
  StateShape shape_;
  size_t slot_bytes_ = 0;
  PageMemory memory_;
  std::vector<uint32_t> references_, free_;
};

// A share of a slot. Empty: the state before the first token, which is zero.
class StateRef {
 public:
  StateRef() = default;
  StateRef(const StateRef& other);
  StateRef(StateRef&& other) noexcept { swap(other); }
  StateRef& operator=(StateRef other) noexcept {
    swap(other);
    return *this;
  }
  ~StateRef();
  // Nothing when all slots are taken.
  static std::optional<StateRef> take(const std::shared_ptr<StatePool>& pool);

  // Null when empty.
  float* data() const;
  std::span<std::byte> bytes() const;

 private:
  void swap(StateRef& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(slot_, other.slot_);
  }
  std::shared_ptr<StatePool> pool_;
  uint32_t slot_ = 0;
};

// The states of one step: rows of the sequence until one is complete, and where it goes.
struct StatePiece {
  size_t rows = 0;
  float* to = nullptr;
};
struct StateStep {
  const float* from = nullptr;  // null: zeros
  std::vector<StatePiece> pieces;
};

// One session's. Move-only; fork() shares. One thread. Without a pool, which models have that are
// not recurrent, it does nothing.
class StateSequence {
 public:
  explicit StateSequence(std::shared_ptr<StatePool> pool) : pool_(std::move(pool)) {}
  StateSequence(StateSequence&&) noexcept = default;
  StateSequence& operator=(StateSequence&&) noexcept = default;

  bool recurrent() const { return pool_ != nullptr; }
  // Tokens that the current state has seen.
  size_t position() const { return current_.position; }

  // The next count tokens are going to be run. The first certain of them are there to stay: what
  // may be taken back is what comes behind. prompt: they are some that were given, not generated.
  // kExhausted: no slots left.
  Status begin(size_t count, size_t certain, bool prompt);
  const StateStep& step() const { return step_; }
  void commit();
  void abandon();

  // Goes back to the last state at or before count; returns where that is. Later ones are let go.
  size_t rewind(size_t count);
  StateSequence fork() const;

  // ---- for files ----
  std::span<const std::byte> current_bytes() const { return current_.state.bytes(); }
  // A state of that position, all of whose bytes the caller fills; others are let go.
  Result<std::span<std::byte>> replace(size_t position);

  // Positions of states that rewind() could reach, ascending.
  std::vector<size_t> positions() const;

 private:
  struct Kept {
    size_t position = 0;
    StateRef state;
  };
  std::optional<StateRef> take();

  std::shared_ptr<StatePool> pool_;
  Kept current_;
  std::optional<Kept> previous_, prompt_, boundary_;
  // Of the step that has begun.
  StateStep step_;
  std::vector<Kept> coming_;                // as step_.pieces
  size_t certain_ = 0, next_boundary_ = 0;  // positions; 0: none
  bool prompting_ = false;
};

}  // namespace sluice::runtime
