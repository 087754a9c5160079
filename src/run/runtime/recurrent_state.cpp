#include "runtime/recurrent_state.h"

#include <algorithm>

#include "base/checked.h"
#include "kernels/layer_types.h"

namespace sluice::runtime {
namespace {

// States begin at cache lines.
constexpr uint64_t kAlignment = 64;

}  // namespace

size_t StateShape::tiles() const {
  return (sizes.value_dim + kernels::kDeltaColumns - 1) / kernels::kDeltaColumns;
}
size_t StateShape::tile_floats() const { return sizes.key_dim * kernels::kDeltaColumns; }
size_t StateShape::layer_floats() const {
  return past_floats() + sizes.heads * tiles() * tile_floats();
}
uint64_t StateShape::bytes() const {
  return uint64_t{sizes.layers} * layer_floats() * sizeof(float);
}

Result<std::shared_ptr<StatePool>> StatePool::make(const StateShape& shape, size_t slots) {
  std::shared_ptr<StatePool> pool(new StatePool);
  pool->shape_ = shape;
  pool->slot_bytes_ = static_cast<size_t>(align_up(shape.bytes(), kAlignment));
  SLUICE_ASSIGN(pool->memory_, PageMemory::reserve(slots * pool->slot_bytes_, "recurrent states"));
  pool->references_.assign(slots, 0);
  for (size_t i = slots; i > 0; --i) pool->free_.push_back(static_cast<uint32_t>(i - 1));
  return pool;
}

StateRef::StateRef(const StateRef& other) : pool_(other.pool_), slot_(other.slot_) {
  if (pool_ != nullptr) ++pool_->references_[slot_];
}

StateRef::~StateRef() {
  if (pool_ != nullptr && --pool_->references_[slot_] == 0) pool_->free_.push_back(slot_);
}

std::optional<StateRef> StateRef::take(const std::shared_ptr<StatePool>& pool) {
  if (pool->free_.empty()) return std::nullopt;
  StateRef ref;
  ref.slot_ = pool->free_.back();
  pool->free_.pop_back();
  pool->references_[ref.slot_] = 1;
  ref.pool_ = pool;
  return ref;
}

float* StateRef::data() const { return reinterpret_cast<float*>(bytes().data()); }

std::span<std::byte> StateRef::bytes() const {
  if (pool_ == nullptr) return {};
  return {pool_->memory_.data() + slot_ * pool_->slot_bytes_,
          static_cast<size_t>(pool_->shape_.bytes())};
}

// What is kept for convenience makes room for what is needed.
std::optional<StateRef> StateSequence::take() {
  auto ref = StateRef::take(pool_);
  for (std::optional<Kept>* kept : {&boundary_, &prompt_}) {
    if (ref) break;
    kept->reset();
    ref = StateRef::take(pool_);
  }
  return ref;
}

Status StateSequence::begin(size_t count, size_t certain, bool prompt) {
  if (!recurrent()) return {};
  abandon();
  previous_.reset();
  const size_t first = current_.position, end = first + count;
  certain_ = certain > 0 ? first + certain : 0;
  prompting_ = prompt && certain > 0;
  if (prompting_) prompt_.reset();
  next_boundary_ = end / kStateInterval * kStateInterval;
  if (next_boundary_ <= first) next_boundary_ = 0;
  if (next_boundary_ > 0) boundary_.reset();
  size_t places[] = {std::max(first, std::min(certain_, next_boundary_)),
                     std::max(certain_, next_boundary_), end};
  step_.from = current_.state.data();
  size_t at = first;
  for (const size_t place : places) {
    if (place <= at) continue;
    auto state = take();
    if (!state && place < end) continue;
    if (!state) {
      abandon();
      return fail(ErrorCode::kExhausted,
                  "all recurrent states are in use; end a session, or open the model for more of "
                  "them");
    }
    step_.pieces.push_back({place - at, state->data()});
    coming_.push_back({place, *std::move(state)});
    at = place;
  }
  return {};
}

void StateSequence::commit() {
  if (!recurrent()) return;
  previous_ = std::exchange(current_, coming_.back());
  for (const Kept& state : coming_) {
    if (state.position == certain_ && prompting_) prompt_ = state;
    if (state.position == certain_ && certain_ < current_.position) previous_ = state;
    if (state.position == next_boundary_) boundary_ = state;
  }
  if (previous_->position == 0) previous_.reset();
  abandon();
}

void StateSequence::abandon() {
  step_.from = nullptr;
  step_.pieces.clear();
  coming_.clear();
}

size_t StateSequence::rewind(size_t count) {
  if (!recurrent()) return count;
  Kept best;
  if (current_.position <= count) best = std::move(current_);
  for (std::optional<Kept>* kept : {&previous_, &prompt_, &boundary_}) {
    if (*kept && (*kept)->position > count) kept->reset();
    if (*kept && (*kept)->position > best.position) best = **kept;
  }
  current_ = std::move(best);
  return current_.position;
}

StateSequence StateSequence::fork() const {
  StateSequence copy(pool_);
  copy.current_ = current_;
  copy.previous_ = previous_;
  copy.prompt_ = prompt_;
  copy.boundary_ = boundary_;
  return copy;
}

Result<std::span<std::byte>> StateSequence::replace(size_t position) {
  rewind(0);
  if (position == 0 || !recurrent()) return std::span<std::byte>();
  auto state = take();
  if (!state)
    return fail(
        ErrorCode::kExhausted,
        "all recurrent states are in use; end a session, or open the model for more of them");
  current_ = {position, *std::move(state)};
  return current_.state.bytes();
}

std::vector<size_t> StateSequence::positions() const {
  std::vector<size_t> list = {current_.position};
  for (const std::optional<Kept>* kept : {&previous_, &prompt_, &boundary_})
    if (*kept) list.push_back((*kept)->position);
  std::ranges::sort(list);
  list.erase(std::ranges::unique(list).begin(), list.end());
  return list;
}

}  // namespace sluice::runtime
