#include "runtime/expert_slots.h"

#include <algorithm>

#include "base/checked.h"
#include "io/aligned_buffer.h"

namespace sluice::runtime {
namespace {

// An expert's matrices one behind the other.
std::vector<PlacedRows> place_expert(std::span<const WeightEntry> entries,
                                     const ExpertSlots::Group& group, uint32_t expert) {
  std::vector<PlacedRows> placed;
  uint64_t at = 0;
  for (const uint32_t index : group) {
    const WeightEntry& entry = entries[index];
    const uint64_t rows = entry.rows / entry.experts;
    placed.push_back(place_rows(entry, expert * rows, rows, at));
    at = placed.back().end;
  }
  return placed;
}

}  // namespace

uint64_t ExpertSlots::slot_bytes(std::span<const WeightEntry> entries,
                                 std::span<const Group> groups) {
  uint64_t bytes = 0;
  for (const Group& group : groups)
    for (uint32_t expert = 0; expert < entries[group[0]].experts; ++expert)
      bytes = std::max(bytes, place_expert(entries, group, expert).back().end);
  return align_up(bytes, io::kDirectAlignment);
}

ExpertSlots::ExpertSlots(std::span<const WeightEntry> entries, std::span<const Group> groups,
                         size_t slots, SlotPolicy policy, WeightReader& reader)
    : entries_(entries),
      groups_(groups.begin(), groups.end()),
      slot_bytes_(slot_bytes(entries, groups)),
      policy_(policy),
      reader_(reader) {
  for (size_t i = 0; i < slots; ++i) slots_.push_back(std::make_unique<Slot>());
  for (uint32_t layer = 0; layer < groups_.size(); ++layer) {
    for (const uint32_t entry : groups_[layer]) layer_of_[entry] = layer;
    place_.emplace_back(entries[groups_[layer][0]].experts, kNowhere);
    uses_.emplace_back(entries[groups_[layer][0]].experts, 0);
  }
}

Result<std::unique_ptr<ExpertSlots>> ExpertSlots::make(std::span<const WeightEntry> entries,
                                                       std::span<const Group> groups, size_t slots,
                                                       SlotPolicy policy, WeightReader& reader) {
  SLUICE_CHECK(!groups.empty() && slots >= 1);
  std::unique_ptr<ExpertSlots> made(new ExpertSlots(entries, groups, slots, policy, reader));
  SLUICE_ASSIGN(made->memory_,
                PageMemory::reserve(static_cast<size_t>(made->slot_bytes_ * slots), "the experts"));
  return made;
}

ExpertSlots::~ExpertSlots() {
  for (const auto& slot : slots_) (void)reader_.wait(slot->ticket);
}

std::byte* ExpertSlots::memory_of(uint32_t slot) const {
  return memory_.data() + slot * slot_bytes_;
}

uint32_t& ExpertSlots::place_of(uint32_t layer, uint32_t expert) { return place_[layer][expert]; }

bool ExpertSlots::leaves_before(const Slot& a, const Slot& b) const {
  const bool a_empty = a.used_at == 0, b_empty = b.used_at == 0;
  if (a_empty || b_empty || policy_ == SlotPolicy::kRecency) return a.used_at < b.used_at;
  const uint32_t a_uses = uses_[a.layer][a.expert], b_uses = uses_[b.layer][b.expert];
  return a_uses != b_uses ? a_uses < b_uses : a.used_at > b.used_at;
}

// What was used in earlier text counts less and less.
void ExpertSlots::grow_older() {
  constexpr uint64_t kStepsBetween = 128;
  if (clock_ % (kStepsBetween * groups_.size()) != 0) return;
  for (auto& layer : uses_)
    for (uint32_t& uses : layer) uses /= 2;
}

// The slot whose expert is to leave first, of those that are not held.
uint32_t ExpertSlots::find_room() const {
  uint32_t found = kNowhere;
  for (uint32_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = *slots_[i];
    if (slot.held) continue;
    if (found == kNowhere || leaves_before(slot, *slots_[found])) found = i;
  }
  return found;
}

void ExpertSlots::read_expert(uint32_t index, const model::ExpertGroup& expert) {
  Slot& slot = *slots_[index];
  (void)reader_.wait(slot.ticket);  // an earlier request's, dropped before it arrived
  if (slot.layer != kNowhere) place_of(slot.layer, slot.expert) = kNowhere;
  slot.layer = layer_;
  slot.expert = expert.expert;
  slot.held = true;
  slot.used_at = keeps_ ? clock_ : 0;
  slot.placed = place_expert(entries_, groups_[layer_], expert.expert);
  place_of(layer_, expert.expert) = index;
  transfers_.clear();
  for (size_t i = 0; i < slot.placed.size(); ++i)
    append_transfers(entries_[groups_[layer_][i]], slot.placed[i], memory_of(index), transfers_);
  reader_.submit(transfers_, slot.ticket);
}

void ExpertSlots::read_waiting() {
  size_t begun = 0;
  for (; begun < waiting_.size(); ++begun) {
    const uint32_t slot = find_room();
    if (slot == kNowhere) break;
    read_expert(slot, waiting_[begun]);
    under_way_.push_back(waiting_[begun]);
  }
  waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<ptrdiff_t>(begun));
}

// Of all that the last next() handed out.
void ExpertSlots::let_go() {
  for (const model::ExpertGroup& group : out_) slots_[place_of(layer_, group.expert)]->held = false;
  out_.clear();
}

void ExpertSlots::request(uint32_t first_entry, std::span<const model::ExpertGroup> experts) {
  for (const auto& slot : slots_) slot->held = false;
  there_.clear();
  under_way_.clear();
  waiting_.clear();
  out_.clear();
  layer_ = layer_of_.at(first_entry);
  ++clock_;
  grow_older();
  // A prompt uses nearly all experts of a layer once; they would push out those that the text goes
  // on with.
  keeps_ = experts.size() * 2 <= slots_.size();
  statistics_.requests += experts.size();
  // All that are there are touched before any makes room.
  for (const model::ExpertGroup& group : experts) {
    if (keeps_) ++uses_[layer_][group.expert];
    const uint32_t place = place_of(layer_, group.expert);
    if (place == kNowhere) {
      waiting_.push_back(group);
      continue;
    }
    Slot& slot = *slots_[place];
    slot.held = true;
    slot.used_at = clock_;
    if (reader_.ended(slot.ticket) && reader_.wait(slot.ticket)) {
      there_.push_back(group);
      ++statistics_.hits;
    } else {
      under_way_.push_back(group);
    }
  }
  read_waiting();
}

Result<std::span<const model::ExpertGroup>> ExpertSlots::next() {
  let_go();
  read_waiting();
  if (!there_.empty()) {
    out_.swap(there_);
    return std::span<const model::ExpertGroup>(out_);
  }
  if (under_way_.empty()) return std::span<const model::ExpertGroup>();
  tickets_.clear();
  for (const model::ExpertGroup& group : under_way_)
    tickets_.push_back(&slots_[place_of(layer_, group.expert)]->ticket);
  reader_.wait_any(tickets_);
  std::vector<model::ExpertGroup> rest;
  Status status;
  for (const model::ExpertGroup& group : under_way_) {
    Slot& slot = *slots_[place_of(layer_, group.expert)];
    if (!reader_.ended(slot.ticket)) {
      rest.push_back(group);
      continue;
    }
    Status read = reader_.wait(slot.ticket);
    if (read) {
      out_.push_back(group);
      continue;
    }
    place_of(layer_, group.expert) = kNowhere;  // what is there is not the expert
    slot.layer = kNowhere;
    slot.held = false;
    slot.used_at = 0;
    if (status) status = std::move(read);
  }
  under_way_.swap(rest);
  if (!status) {
    out_.clear();
    return std::unexpected(std::move(status).error());
  }
  return std::span<const model::ExpertGroup>(out_);
}

numerics::WeightView ExpertSlots::view(uint32_t entry, uint32_t expert) const {
  const uint32_t layer = layer_of_.at(entry);
  const uint32_t index = place_[layer][expert];
  SLUICE_DCHECK(index != kNowhere && slots_[index]->held);
  const auto& group = groups_[layer];
  const auto which = static_cast<size_t>(std::ranges::find(group, entry) - group.begin());
  return view_rows(entries_[entry], slots_[index]->placed[which], memory_of(index));
}

}  // namespace sluice::runtime
