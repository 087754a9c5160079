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

std::vector<uint32_t> experts_of(std::span<const WeightEntry> entries,
                                 std::span<const ExpertSlots::Group> groups) {
  std::vector<uint32_t> experts;
  for (const ExpertSlots::Group& group : groups)
    experts.push_back(static_cast<uint32_t>(entries[group[0]].experts));
  return experts;
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
                         const Sizes& sizes, SlotPolicy policy, WeightReader& reader)
    : entries_(entries),
      groups_(groups.begin(), groups.end()),
      slot_bytes_(slot_bytes(entries, groups)),
      experts_per_token_(sizes.experts_per_token),
      slots_max_(sizes.slots_max),
      reader_(reader),
      table_(experts_of(entries, groups), sizes.experts_per_token, sizes.slots, policy) {
  for (size_t i = 0; i < sizes.slots; ++i) slots_.push_back(std::make_unique<Slot>());
  for (uint32_t layer = 0; layer < groups_.size(); ++layer)
    for (const uint32_t entry : groups_[layer]) layer_of_[entry] = layer;
}

Result<std::unique_ptr<ExpertSlots>> ExpertSlots::make(std::span<const WeightEntry> entries,
                                                       std::span<const Group> groups,
                                                       const Sizes& sizes, SlotPolicy policy,
                                                       WeightReader& reader,
                                                       const MemorySource* memory) {
  SLUICE_CHECK(!groups.empty() && sizes.slots >= 1 && sizes.slots <= sizes.slots_max);
  std::unique_ptr<ExpertSlots> made(new ExpertSlots(entries, groups, sizes, policy, reader));
  SLUICE_ASSIGN(made->memory_,
                reserve_from(memory, static_cast<size_t>(made->slot_bytes_ * sizes.slots_max),
                             "the experts"));
  return made;
}

ExpertSlots::~ExpertSlots() {
  for (const auto& slot : slots_) (void)reader_.wait(slot->ticket);
}

std::byte* ExpertSlots::memory_of(uint32_t slot) const {
  return memory_.data() + slot * slot_bytes_;
}

void ExpertSlots::touch(ThreadPool& pool) {
  pool.run(slots_.size(), [this](size_t slot, size_t /*worker*/) {
    std::byte* memory = memory_of(static_cast<uint32_t>(slot));
    for (uint64_t at = 0; at < slot_bytes_; at += io::kDirectAlignment) memory[at] = std::byte{0};
  });
}

void ExpertSlots::resize(size_t slots) {
  SLUICE_CHECK(slots >= 1 && slots <= slots_max_);
  for (const auto& slot : slots_) (void)reader_.wait(slot->ticket);
  for (const uint32_t slot : guessed_) table_.settle(slot);
  guessed_.clear();
  table_.begin(layer_, 0);  // whatever the last request held is done with
  table_.resize(slots);
  if (slots < slots_.size())
    memory_.give_back(static_cast<size_t>(slots * slot_bytes_),
                      static_cast<size_t>((slots_.size() - slots) * slot_bytes_));
  slots_.resize(slots);
  for (auto& slot : slots_)
    if (slot == nullptr) slot = std::make_unique<Slot>();
}

Status ExpertSlots::fill() {
  struct Wanted {
    double share;
    uint32_t layer, expert;
  };
  std::vector<Wanted> wanted;
  for (uint32_t layer = 0; layer < groups_.size(); ++layer)
    for (uint32_t expert = 0; expert < entries_[groups_[layer][0]].experts; ++expert)
      wanted.push_back({table_.share(layer, expert), layer, expert});
  std::ranges::stable_sort(wanted, std::ranges::greater{}, &Wanted::share);
  wanted.resize(std::min(wanted.size(), slots_.size()));
  std::ranges::stable_sort(wanted, {}, &Wanted::layer);
  Status status;
  for (auto first = wanted.begin(); first != wanted.end() && status;) {
    const auto end =
        std::find_if(first, wanted.end(), [&](const Wanted& w) { return w.layer != first->layer; });
    std::vector<model::ExpertGroup> experts;
    for (auto it = first; it != end; ++it) experts.push_back({it->expert, 0, 0});
    request(groups_[first->layer][0], experts);
    for (;;) {
      const auto read = next();
      if (!read) status = std::unexpected(read.error());
      if (!read || read->empty()) break;
    }
    first = end;
  }
  statistics_ = {};
  return status;
}

void ExpertSlots::read_expert(uint32_t index, uint32_t layer, uint32_t expert) {
  Slot& slot = *slots_[index];
  (void)reader_.wait(slot.ticket);  // an earlier request's, dropped before it arrived
  slot.placed = place_expert(entries_, groups_[layer], expert);
  transfers_.clear();
  for (size_t i = 0; i < slot.placed.size(); ++i)
    append_transfers(entries_[groups_[layer][i]], slot.placed[i], memory_of(index), transfers_);
  reader_.submit(transfers_, slot.ticket);
}

void ExpertSlots::read_waiting() {
  size_t begun = 0;
  for (; begun < waiting_.size(); ++begun) {
    const uint32_t slot = table_.admit(waiting_[begun].expert);
    if (slot == kNowhere) break;
    read_expert(slot, layer_, waiting_[begun].expert);
    under_way_.push_back(waiting_[begun]);
  }
  waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<ptrdiff_t>(begun));
}

// Of all that the last next() handed out.
void ExpertSlots::let_go() {
  for (const model::ExpertGroup& group : out_) table_.let_go(group.expert);
  out_.clear();
}

void ExpertSlots::guess(uint32_t first_entry, std::span<const model::Choice> choices) {
  const uint32_t layer = layer_of_.at(first_entry);
  SLUICE_DCHECK(layer != layer_);
  // The last quarter of a guess is wrong as often as right.
  const auto likely = choices.first(choices.size() - choices.size() / 4);
  for (const model::Choice& choice : likely) {
    if (table_.find(layer, choice.expert) != kNowhere) continue;
    if (guessed_.size() >= experts_per_token_) return;  // the rest of the slots is the request's
    const uint32_t slot = table_.admit_ahead(layer, choice.expert);
    if (slot == kNowhere) return;
    read_expert(slot, layer, choice.expert);
    guessed_.push_back(slot);
    ++statistics_.guesses;
  }
}

// Those that have arrived may leave like any other. A right one is asked for now.
void ExpertSlots::settle_guesses(std::span<const model::ExpertGroup> experts) {
  for (const model::ExpertGroup& group : experts) {
    const uint32_t slot = table_.find(layer_, group.expert);
    const auto found = std::ranges::find(guessed_, slot);
    if (slot == kNowhere || found == guessed_.end()) continue;
    ++statistics_.guesses_right;
    table_.settle(slot);
    guessed_.erase(found);
  }
  std::erase_if(guessed_, [this](uint32_t slot) {
    if (!reader_.ended(slots_[slot]->ticket)) return false;
    if (reader_.wait(slots_[slot]->ticket))
      table_.settle(slot);
    else
      table_.clear(slot);  // whoever needs it reads it again, and hears of it
    return true;
  });
}

void ExpertSlots::request(uint32_t first_entry, std::span<const model::ExpertGroup> experts) {
  there_.clear();
  under_way_.clear();
  waiting_.clear();
  earlier_.clear();
  out_.clear();
  layer_ = layer_of_.at(first_entry);
  uint32_t chosen = 0;
  for (const model::ExpertGroup& group : experts) chosen += group.slots;
  table_.begin(layer_, chosen / experts_per_token_);
  statistics_.requests += experts.size();
  settle_guesses(experts);
  // All that are there are touched before any makes room.
  for (const model::ExpertGroup& group : experts) {
    table_.use(group.expert, group.slots);
    const uint32_t place = table_.find(layer_, group.expert);
    if (place == kNowhere) {
      waiting_.push_back(group);
    } else if (!reader_.ended(slots_[place]->ticket)) {
      under_way_.push_back(group);
      earlier_.push_back(group.expert);
    } else if (reader_.wait(slots_[place]->ticket)) {
      there_.push_back(group);
      ++statistics_.hits;
    } else {
      read_again(group);
    }
  }
  read_waiting();
}

// What is in its slot is not the expert.
void ExpertSlots::read_again(const model::ExpertGroup& group) {
  table_.clear(table_.find(layer_, group.expert));
  waiting_.push_back(group);
}

Result<std::span<const model::ExpertGroup>> ExpertSlots::next() {
  let_go();
  if (!there_.empty()) {
    read_waiting();
    out_.swap(there_);
    return std::span<const model::ExpertGroup>(out_);
  }
  while (out_.empty()) {
    read_waiting();
    if (under_way_.empty()) break;
    SLUICE_TRY(take_arrived());
  }
  return std::span<const model::ExpertGroup>(out_);
}

// Waits for one of those under way, and moves all that have arrived to out_. A read that an earlier
// request began and nobody waited for, because something else failed first, is begun anew: its
// error was that step's.
Status ExpertSlots::take_arrived() {
  tickets_.clear();
  for (const model::ExpertGroup& group : under_way_)
    tickets_.push_back(&slot_of(group.expert).ticket);
  reader_.wait_any(tickets_);
  std::vector<model::ExpertGroup> rest;
  Status status;
  for (const model::ExpertGroup& group : under_way_) {
    Slot& slot = slot_of(group.expert);
    if (!reader_.ended(slot.ticket)) {
      rest.push_back(group);
      continue;
    }
    Status read = reader_.wait(slot.ticket);
    if (read) {
      out_.push_back(group);
      continue;
    }
    if (std::erase(earlier_, group.expert) > 0) {
      read_again(group);
      continue;
    }
    table_.clear(table_.find(layer_, group.expert));  // what is there is not the expert
    if (status) status = std::move(read);
  }
  under_way_.swap(rest);
  if (!status) out_.clear();
  return status;
}

numerics::WeightView ExpertSlots::view(uint32_t entry, uint32_t expert) const {
  const uint32_t layer = layer_of_.at(entry);
  const uint32_t index = table_.find(layer, expert);
  SLUICE_DCHECK(index != kNowhere);
  const auto& group = groups_[layer];
  const auto which = static_cast<size_t>(std::ranges::find(group, entry) - group.begin());
  return view_rows(entries_[entry], slots_[index]->placed[which], memory_of(index));
}

}  // namespace sluice::runtime
