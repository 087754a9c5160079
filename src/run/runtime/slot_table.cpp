#include "runtime/slot_table.h"

#include <algorithm>
#include <cmath>

namespace sluice::runtime {
namespace {

// Of a use, for each token since. Half is forgotten after 69 tokens; over traces of a trained
// mixture 0.95 and 0.998 found one to two of a hundred less, and a second, faster one no more.
constexpr double kDecay = 0.99;
// Counted as though so many tokens had chosen evenly before the first: one use is no certainty.
constexpr double kPriorTokens = 1;
// Counts are scaled back long before they overflow.
constexpr double kUnitMax = 1e200;

// What n tokens, each choosing, count together.
double decayed_sum(double tokens) { return (1 - std::pow(kDecay, tokens)) / (1 - kDecay); }

}  // namespace

std::string_view slot_policy_name(SlotPolicy policy) {
  switch (policy) {
    case SlotPolicy::kRecency: return "lru";
    case SlotPolicy::kFrequency: return "lfu";
    case SlotPolicy::kNextUse: break;
  }
  return "next-use";
}

SlotTable::SlotTable(std::span<const uint32_t> experts, uint32_t experts_per_token, size_t slots,
                     SlotPolicy policy)
    : experts_per_token_(experts_per_token), policy_(policy), slots_(slots) {
  SLUICE_CHECK(slots > 0);
  for (const uint32_t count : experts) layers_.push_back({std::vector<Entry>(count)});
}

size_t SlotTable::empty_slots() const {
  return static_cast<size_t>(std::ranges::count(slots_, kNowhere, &Slot::layer));
}

double SlotTable::share(uint32_t layer, uint32_t expert) const {
  const Layer& l = layers_[layer];
  const double even = std::min(
      1.0, static_cast<double>(experts_per_token_) / static_cast<double>(l.experts.size()));
  return (l.experts[expert].uses / l.unit + kPriorTokens * even) / (l.tokens + kPriorTokens);
}

void SlotTable::learn(uint32_t layer, std::span<const double> shares) {
  Layer& l = layers_[layer];
  SLUICE_CHECK(shares.size() == l.experts.size());
  l.tokens = decayed_sum(HUGE_VAL);
  for (size_t e = 0; e < shares.size(); ++e) l.experts[e].uses = shares[e] * l.tokens * l.unit;
  candidates_known_ = false;
}

void SlotTable::begin(uint32_t layer, uint32_t tokens) {
  for (Slot& slot : slots_) slot.held = false;
  layer_ = layer;
  step_tokens_ = tokens;
  ++clock_;
  candidates_known_ = false;
  Layer& l = layers_[layer];
  const double kept = std::pow(kDecay, tokens);
  l.tokens = l.tokens * kept + decayed_sum(tokens);
  l.unit /= kept;
  if (l.unit < kUnitMax) return;
  for (Entry& e : l.experts) e.uses /= l.unit;
  l.unit = 1;
}

void SlotTable::use(uint32_t expert, uint32_t tokens) {
  Entry& e = entry(layer_, expert);
  if (tokens > 0)
    e.uses += layers_[layer_].unit * decayed_sum(step_tokens_) * tokens / step_tokens_;
  candidates_known_ = false;
  if (e.slot == kNowhere) return;
  slots_[e.slot].used_at = clock_;
  slots_[e.slot].held = true;
}

double SlotTable::rank(const Slot& slot) const {
  if (slot.layer == kNowhere) return HUGE_VAL;
  if (policy_ == SlotPolicy::kRecency) return static_cast<double>(clock_ - slot.used_at);
  const double used = share(slot.layer, slot.expert);
  if (policy_ == SlotPolicy::kFrequency) return -used;
  const size_t layers = layers_.size();
  const size_t ahead = (slot.layer + layers - layer_ + layers - 1) % layers + 1;
  return static_cast<double>(ahead) / static_cast<double>(layers) + 1 / used;
}

void SlotTable::find_candidates() {
  candidates_.clear();
  for (uint32_t i = 0; i < slots_.size(); ++i)
    if (!slots_[i].held && !slots_[i].filling) candidates_.push_back({rank(slots_[i]), i});
  std::make_heap(candidates_.begin(), candidates_.end());
  candidates_known_ = true;
}

void SlotTable::forget(const Slot& slot) {
  if (slot.layer != kNowhere) entry(slot.layer, slot.expert).slot = kNowhere;
}

uint32_t SlotTable::take_room(uint32_t layer, uint32_t expert) {
  if (!candidates_known_) find_candidates();
  if (candidates_.empty()) return kNowhere;
  std::pop_heap(candidates_.begin(), candidates_.end());
  const uint32_t index = candidates_.back().slot;
  candidates_.pop_back();
  Slot& slot = slots_[index];
  forget(slot);
  slot = {layer, expert, clock_};
  entry(layer, expert).slot = index;
  return index;
}

uint32_t SlotTable::admit(uint32_t expert) {
  const uint32_t slot = take_room(layer_, expert);
  if (slot != kNowhere) slots_[slot].held = true;
  return slot;
}

uint32_t SlotTable::admit_ahead(uint32_t layer, uint32_t expert) {
  const uint32_t slot = take_room(layer, expert);
  if (slot != kNowhere) slots_[slot].filling = true;
  return slot;
}

void SlotTable::settle(uint32_t slot) {
  slots_[slot].filling = false;
  candidates_known_ = false;
}

void SlotTable::let_go(uint32_t expert) {
  const uint32_t slot = find(layer_, expert);
  if (slot == kNowhere || !slots_[slot].held) return;
  slots_[slot].held = false;
  if (!candidates_known_ || slots_[slot].filling) return;
  candidates_.push_back({rank(slots_[slot]), slot});
  std::push_heap(candidates_.begin(), candidates_.end());
}

void SlotTable::clear(uint32_t index) {
  Slot& slot = slots_[index];
  forget(slot);
  slot = {};
  candidates_known_ = false;
}

void SlotTable::resize(size_t slots) {
  SLUICE_CHECK(slots > 0);
  for (size_t i = slots; i < slots_.size(); ++i) {
    SLUICE_CHECK(!slots_[i].held);
    clear(static_cast<uint32_t>(i));
  }
  slots_.resize(slots);
  candidates_known_ = false;
}

}  // namespace sluice::runtime
