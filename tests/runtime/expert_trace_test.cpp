// Which expert leaves: the table's promises, rules against each other, and traces as files.
#include "runtime/expert_trace.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <list>

#include "runtime/expert_profile.h"
#include "support/models.h"

namespace sluice::runtime {
namespace {

using testing::HasSubstr;

// Tokens one by one; some experts are liked far better, and which ones drifts.
ExpertTrace skewed_trace(uint32_t layers, uint32_t experts, uint32_t chosen, uint32_t tokens,
                         uint64_t seed) {
  test::Random random(seed);
  ExpertTrace trace;
  trace.experts.assign(layers, experts);
  trace.experts_per_token = chosen;
  for (uint32_t token = 0; token < tokens; ++token)
    for (uint32_t layer = 0; layer < layers; ++layer) {
      std::vector<uint32_t> picked;
      while (picked.size() < chosen) {
        const uint64_t spread = 1 + random.below(experts);
        const auto expert =
            static_cast<uint32_t>((random.below(spread) + token / 100 + layer * 7) % experts);
        if (std::ranges::find(picked, expert) == picked.end()) picked.push_back(expert);
      }
      std::ranges::sort(picked);
      trace.steps.push_back({layer, 1, static_cast<uint32_t>(trace.uses.size()), chosen});
      for (const uint32_t expert : picked) trace.uses.push_back({expert, 1});
    }
  return trace;
}

TEST(SlotTable, HoldsWhatAStepUses) {
  const std::vector<uint32_t> experts(3, 8);
  for (const SlotPolicy policy : kSlotPolicies) {
    SlotTable table(experts, 2, 5, policy);
    test::Random random(1);
    for (int step = 0; step < 500; ++step) {
      const auto layer = static_cast<uint32_t>(random.below(3));
      table.begin(layer, 1);
      std::vector<uint32_t> there, wanted;
      for (uint32_t expert = 0; expert < 8; ++expert)
        if (random.below(2) == 0) wanted.push_back(expert);
      for (const uint32_t expert : wanted) {
        table.use(expert, 1);
        if (table.find(layer, expert) != SlotTable::kNowhere) there.push_back(expert);
      }
      for (const uint32_t expert : wanted) {
        if (std::ranges::find(there, expert) != there.end()) continue;
        const uint32_t slot = table.admit(expert);
        EXPECT_EQ(slot == SlotTable::kNowhere, there.size() == 5) << "only when all are held";
        if (slot == SlotTable::kNowhere) break;
        EXPECT_EQ(table.find(layer, expert), slot);
        there.push_back(expert);
      }
      std::vector<uint32_t> slots;
      for (const uint32_t expert : there) slots.push_back(table.find(layer, expert));
      std::ranges::sort(slots);
      EXPECT_EQ(std::ranges::adjacent_find(slots), slots.end()) << "one slot, one expert";
      EXPECT_TRUE(slots.empty() || slots.back() < 5);
    }
  }
}

TEST(SlotTable, WhatIsFilledAheadStays) {
  const std::vector<uint32_t> experts(2, 8);
  SlotTable table(experts, 2, 4, SlotPolicy::kNextUse);
  table.begin(0, 1);
  const uint32_t ahead = table.admit_ahead(1, 7);
  ASSERT_NE(ahead, SlotTable::kNowhere);
  for (uint32_t step = 0; step < 6; ++step) {
    table.begin(0, 1);
    for (const uint32_t expert : {step, step + 1, step + 2}) {
      table.use(expert, 1);
      if (table.find(0, expert) == SlotTable::kNowhere) {
        EXPECT_NE(table.admit(expert), SlotTable::kNowhere);
      }
    }
    EXPECT_EQ(table.find(1, 7), ahead);
    EXPECT_EQ(table.admit(7), SlotTable::kNowhere) << "three are held, one is being filled";
  }
  table.settle(ahead);
  EXPECT_EQ(table.admit(7), ahead);
  EXPECT_EQ(table.find(1, 7), SlotTable::kNowhere);
}

// Against the plainest model of it: a list in order of use.
TEST(SlotTable, RecencyIsLru) {
  const ExpertTrace trace = skewed_trace(4, 16, 1, 400, 3);
  for (const size_t slots : {2, 7, 20, 64}) {
    std::list<std::pair<uint32_t, uint32_t>> order;
    uint64_t hits = 0;
    for (const ExpertTrace::Step& step : trace.steps) {
      std::vector<std::pair<uint32_t, uint32_t>> missing;
      for (const ExpertTrace::Use& use : trace.uses_of(step)) {
        const std::pair key(step.layer, use.expert);
        const auto found = std::ranges::find(order, key);
        if (found == order.end()) {
          missing.push_back(key);
          continue;
        }
        ++hits;
        order.erase(found);
        order.push_back(key);
      }
      for (const auto& key : missing) {
        if (order.size() == slots) order.pop_front();
        order.push_back(key);
      }
    }
    EXPECT_EQ(replay_experts(trace, slots, SlotPolicy::kRecency).hits, hits) << slots;
  }
}

TEST(ExpertTrace, RulesAgainstEachOther) {
  const ExpertTrace trace = skewed_trace(6, 32, 4, 1500, 5);
  const size_t skip = trace.steps.size() / 5;
  for (const double share : {0.125, 0.25, 0.5}) {
    const auto slots = static_cast<size_t>(share * static_cast<double>(trace.experts_all()));
    const double best = replay_experts(trace, slots, std::nullopt, skip).share();
    const double recency = replay_experts(trace, slots, SlotPolicy::kRecency, skip).share();
    const double next = replay_experts(trace, slots, SlotPolicy::kNextUse, skip).share();
    EXPECT_GE(next, recency) << share;
    for (const SlotPolicy policy : kSlotPolicies)
      EXPECT_LE(replay_experts(trace, slots, policy, skip).share(), best) << share;
  }
  // With room for all, each is read once.
  const TraceHits all = replay_experts(trace, trace.experts_all(), SlotPolicy::kNextUse);
  EXPECT_GE(all.hits + trace.experts_all(), all.requests);
}

// The same choice again and again, with room for two thirds of it: recency finds nothing.
TEST(ExpertTrace, ACycleIsNoTrap) {
  ExpertTrace trace;
  trace.experts.assign(6, 8);
  trace.experts_per_token = 2;
  for (int token = 0; token < 50; ++token)
    for (uint32_t layer = 0; layer < 6; ++layer) {
      trace.steps.push_back({layer, 1, static_cast<uint32_t>(trace.uses.size()), 2});
      trace.uses.push_back({1, 1});
      trace.uses.push_back({5, 1});
    }
  EXPECT_EQ(replay_experts(trace, 8, SlotPolicy::kRecency).hits, 0u);
  EXPECT_GT(replay_experts(trace, 8, SlotPolicy::kNextUse, 60).share(), 0.45);
}

TEST(ExpertTrace, AsText) {
  const ExpertTrace trace = skewed_trace(3, 8, 2, 20, 9);
  const std::string text = trace_text(trace);
  const auto read = parse_trace(text, "t");
  ASSERT_TRUE(read.has_value()) << read.error().message;
  EXPECT_EQ(trace_text(*read), text);
  EXPECT_EQ(replay_experts(*read, 6, SlotPolicy::kNextUse).hits,
            replay_experts(trace, 6, SlotPolicy::kNextUse).hits);
  const std::string header = text.substr(0, text.find('\n') + 1);
  for (const auto& [bad, what] : std::initializer_list<std::pair<std::string, const char*>>{
           {"", "without steps"},
           {header, "without steps"},
           {"{}\n", "no header"},
           {header + "[0,1]\n", "line 2"},
           {header + "[3,1,0,1]\n", "line 2: the layer"},
           {header + "[0,0,0,1]\n", "line 2: the layer"},
           {header + "[0,1,8,1]\n", "line 2: an expert"},
           {header + "[0,1,4,1,4,1]\n", "rising"},
           {header + "[0,1,4,2]\n", "line 2: an expert"},
           {header + "[0,1,-4,2]\n", "whole numbers"},
           {header + "[0,1,4,1", "line 2"}}) {
    const auto found = parse_trace(bad, "t");
    ASSERT_FALSE(found.has_value()) << bad;
    EXPECT_THAT(found.error().message, HasSubstr(what));
  }
}

TEST(ExpertProfile, AsText) {
  const Digest model{1, 2};
  const ExpertShares shares = {{0, 0.25, 1}, {0.1234, 0.5, 0.75}};
  const std::string text = expert_profile_text(shares, model);
  const auto read = parse_expert_profile(text, "p", model);
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(*read, shares);
  EXPECT_FALSE(parse_expert_profile(text, "p", Digest{1, 3}).has_value());
  for (const std::string& bad :
       {std::string("{}"), std::string("["), text.substr(0, text.size() / 2),
        std::string(text).replace(text.find("5000"), 4, "50000")})
    EXPECT_FALSE(parse_expert_profile(bad, "p", model).has_value()) << bad;
}

}  // namespace
}  // namespace sluice::runtime
