// Which experts are in memory, and which makes room for another: bookkeeping alone, without a byte
// of any of them, so that a recorded run can be played again under every rule and size.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace sluice::runtime {

// Who leaves. kRecency (LRU): whoever was used longest ago. kFrequency (LFU): whoever was used by
// the smallest part of recent tokens. kNextUse: whoever is expected to be needed last: the share of
// recent tokens that used an expert says how many tokens will pass, and its layer how far ahead in
// the pass the next chance is. What recency throws out first is the layer that comes up next.
enum class SlotPolicy : uint8_t { kRecency, kFrequency, kNextUse };
inline constexpr SlotPolicy kSlotPolicies[] = {SlotPolicy::kRecency, SlotPolicy::kFrequency,
                                               SlotPolicy::kNextUse};
std::string_view slot_policy_name(SlotPolicy policy);  // "lru", "lfu", "next-use"

// One thread. A step names a layer, then the experts that it uses, then asks for room for those
// that are nowhere; what a step has used or admitted stays until it lets go of it.
class SlotTable {
 public:
  static constexpr uint32_t kNowhere = UINT32_MAX;
  // experts: of each layer. At least one slot.
  SlotTable(std::span<const uint32_t> experts, uint32_t experts_per_token, size_t slots,
            SlotPolicy policy);

  size_t slots() const { return slots_.size(); }
  size_t empty_slots() const;
  // The slot of an expert, or kNowhere.
  uint32_t find(uint32_t layer, uint32_t expert) const { return entry(layer, expert).slot; }

  // A step of that many tokens; nothing is held any more. 0: what follows is not counted.
  void begin(uint32_t layer, uint32_t tokens);
  // An expert of the step's layer is used by some of its tokens. Held from now on if it is there.
  void use(uint32_t expert, uint32_t tokens);
  // Gives an expert of the step's layer a slot and holds it; who was there is gone. kNowhere: all
  // slots are held.
  uint32_t admit(uint32_t expert);
  void let_go(uint32_t expert);
  // The same for another layer's expert, ahead of its step and uncounted. It cannot leave before
  // settle(), which whoever fills the slot calls when that has ended.
  uint32_t admit_ahead(uint32_t layer, uint32_t expert);
  void settle(uint32_t slot);
  // The slot is empty then.
  void clear(uint32_t slot);
  // Adds empty slots, or drops the last ones, none of which may be held.
  void resize(size_t slots);

  // Share of recent tokens that used an expert; before any, the same for all.
  double share(uint32_t layer, uint32_t expert) const;
  // Starts from what an earlier run found, as though it had been seen here. Shares in [0, 1].
  void learn(uint32_t layer, std::span<const double> shares);

 private:
  struct Slot {
    uint32_t layer = kNowhere, expert = 0;  // kNowhere: empty
    uint64_t used_at = 0;
    bool held = false, filling = false;
  };
  struct Entry {
    uint32_t slot = kNowhere;
    double uses = 0;  // with those of a token ago counted kDecay, of two tokens kDecay², …
  };
  struct Layer {
    std::vector<Entry> experts;
    double tokens = 0;  // seen, counted likewise
    double unit = 1;    // what one use counts now; grows, so that older ones need no touching
  };
  struct Candidate {
    double rank;  // the largest leaves first
    uint32_t slot;
    bool operator<(const Candidate& other) const {
      return rank != other.rank ? rank < other.rank : slot > other.slot;
    }
  };

  const Entry& entry(uint32_t layer, uint32_t expert) const {
    return layers_[layer].experts[expert];
  }
  Entry& entry(uint32_t layer, uint32_t expert) { return layers_[layer].experts[expert]; }
  double rank(const Slot& slot) const;
  void forget(const Slot& slot);
  uint32_t take_room(uint32_t layer, uint32_t expert);
  void find_candidates();

  const uint32_t experts_per_token_;
  const SlotPolicy policy_;
  std::vector<Slot> slots_;
  std::vector<Layer> layers_;
  uint32_t layer_ = 0;  // of the step
  uint32_t step_tokens_ = 1;
  uint64_t clock_ = 0;                 // steps
  std::vector<Candidate> candidates_;  // a heap of what may leave
  bool candidates_known_ = false;
};

}  // namespace sluice::runtime
