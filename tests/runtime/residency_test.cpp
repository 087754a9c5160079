// What stays and what is read again: within the budget, nothing left out, nothing twice.
#include "runtime/residency.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <climits>

#include "support/models.h"

namespace sluice::runtime {
namespace {

using families::Role;
using numerics::DType;

WeightEntry matrix(Role role, int layer, uint64_t rows, uint64_t columns, uint64_t experts = 1,
                   uint64_t offset = 0) {
  WeightEntry entry{.name = fmt::format("{}.{}", layer, static_cast<int>(role)),
                    .role = role,
                    .layer = layer,
                    .format = {{}, DType::kBF16},
                    .experts = experts,
                    .rows = rows * experts,
                    .columns = columns,
                    .storage = "BF16",
                    .parts = {}};
  entry.parts.push_back({.file_row_bytes = columns * 2,
                         .row_bytes = columns * 2,
                         .columns = columns,
                         .from = DType::kBF16,
                         .into = DType::kBF16,
                         .sources = {{.offset = offset, .rows = rows * experts}}});
  return entry;
}

struct Shape {
  int layers = 1;
  uint64_t hidden = 64, wide = 128, vocabulary = 500, experts = 0;
};

std::vector<WeightEntry> make_model(const Shape& s, test::Random& random) {
  std::vector<WeightEntry> entries;
  const auto add = [&](Role role, int layer, uint64_t rows, uint64_t columns,
                       uint64_t experts = 1) {
    entries.push_back(matrix(role, layer, rows, columns, experts, random.below(1 << 20)));
  };
  add(Role::kEmbedding, -1, s.vocabulary, s.hidden);
  for (int layer = 0; layer < s.layers; ++layer) {
    for (const Role role :
         {Role::kAttentionV, Role::kAttentionQ, Role::kAttentionK, Role::kAttentionO})
      add(role, layer, s.hidden, s.hidden);
    add(Role::kNorm, layer, 1, s.hidden);
    if (s.experts > 0) {
      add(Role::kRouter, layer, s.experts, s.hidden);
      add(Role::kExpertGate, layer, s.wide, s.hidden, s.experts);
      add(Role::kExpertUp, layer, s.wide, s.hidden, s.experts);
      add(Role::kExpertDown, layer, s.hidden, s.wide, s.experts);
    } else {
      add(Role::kMlpDown, layer, s.hidden, s.wide);
      add(Role::kMlpGate, layer, s.wide, s.hidden);
      add(Role::kMlpUp, layer, s.wide, s.hidden);
    }
  }
  add(Role::kHead, -1, s.vocabulary, s.hidden);
  return entries;
}

// Every row of every matrix is somewhere, once.
void check(const std::vector<WeightEntry>& entries, const Residency& r, uint64_t bytes_max) {
  EXPECT_LE(r.bytes(), bytes_max);
  std::vector<uint64_t> windowed(entries.size());
  for (const Window& w : r.windows) {
    EXPECT_EQ(w.first_row, windowed[w.entry]);
    EXPECT_GT(w.rows, 0u);
    windowed[w.entry] += w.rows;
  }
  std::vector<int> grouped(entries.size());
  for (const auto& group : r.groups)
    for (const uint32_t entry : group) ++grouped[entry];
  for (size_t i = 0; i < entries.size(); ++i) {
    const bool by_row = entries[i].role == Role::kEmbedding && !r.pinned[i];
    EXPECT_EQ(r.pinned[i] + (windowed[i] > 0) + grouped[i] + by_row, 1) << entries[i].name;
    if (windowed[i] > 0) {
      EXPECT_EQ(windowed[i], entries[i].rows);
    }
    if (entries[i].rows == 1 || entries[i].role == Role::kRouter) {
      EXPECT_TRUE(r.pinned[i]);
    }
  }
  const auto layer = [&](const Window& w) {
    const int l = entries[w.entry].layer;
    return l < 0 ? INT_MAX : l;
  };
  EXPECT_TRUE(std::ranges::is_sorted(r.windows, {}, layer));
}

TEST(Residency, EveryBudget) {
  test::Random random(1);
  for (int round = 0; round < 60; ++round) {
    const Shape shape{.layers = static_cast<int>(1 + random.below(6)),
                      .hidden = 16 * (1 + random.below(40)),
                      .wide = 16 * (1 + random.below(60)),
                      .vocabulary = 1 + random.below(3000),
                      .experts = random.below(2) == 0 ? 0 : 4 + random.below(20)};
    const std::vector<WeightEntry> entries = make_model(shape, random);
    ResidencyNeeds needs{.experts_per_token = 2};
    const auto whole = choose_residency(entries, needs);
    ASSERT_TRUE(whole.has_value());
    EXPECT_TRUE(whole->all_stay());
    check(entries, *whole, UINT64_MAX);
    uint64_t largest = 0;
    for (const WeightEntry& e : entries)
      largest = std::max(largest, place_rows(e, 0, e.rows, 0).end + 4096);
    bool fits = false;
    for (uint64_t percent = 1; percent <= 100; ++percent) {
      needs.bytes_max = whole->bytes() * percent / 100;
      const auto found = choose_residency(entries, needs);
      EXPECT_EQ(found.has_value(), needs.bytes_max >= least_residency(entries, needs));
      EXPECT_FALSE(fits && !found.has_value()) << percent;
      if (!found) {
        EXPECT_EQ(found.error().code, ErrorCode::kExhausted);
        continue;
      }
      fits = true;
      check(entries, *found, needs.bytes_max);
      // What is read is what does not stay, and no room is left in which one more would fit.
      uint64_t windowed = 0;
      for (const Window& w : found->windows) windowed += w.rows * entries[w.entry].bytes_per_row();
      EXPECT_GE(found->disk_bytes_token, windowed);
      EXPECT_EQ(found->disk_bytes_token > windowed, found->experts_there < 1);
      if (!found->all_stay()) {
        EXPECT_LT(needs.bytes_max - found->bytes(), largest + found->ring_bytes);
      }
    }
    EXPECT_TRUE(fits);
  }
}

// What stays is spread over the layers, so that the disk never has to wait for long.
TEST(Residency, StaysEvenly) {
  test::Random random(2);
  const std::vector<WeightEntry> entries =
      make_model({.layers = 32, .hidden = 512, .wide = 2048, .vocabulary = 512}, random);
  ResidencyNeeds needs;
  needs.bytes_max = choose_residency(entries, needs)->bytes() / 2;
  const auto found = choose_residency(entries, needs);
  ASSERT_TRUE(found.has_value());
  std::vector<uint64_t> read(32);
  for (const Window& w : found->windows)
    if (entries[w.entry].layer >= 0)
      read[static_cast<size_t>(entries[w.entry].layer)] +=
          w.rows * entries[w.entry].bytes_per_row();
  uint64_t all = 0;
  for (size_t l = 0; l + 4 <= 32; l += 4) {
    const uint64_t four = read[l] + read[l + 1] + read[l + 2] + read[l + 3];
    EXPECT_GT(four, 0u);
    all += four;
  }
  for (size_t l = 0; l + 4 <= 32; l += 4)
    EXPECT_LT((read[l] + read[l + 1] + read[l + 2] + read[l + 3]) * 8, all * 2);
}

// A tied head is read whole for every token; an embedding alone gives single rows.
TEST(Residency, Embeddings) {
  test::Random random(3);
  std::vector<WeightEntry> entries =
      make_model({.layers = 2, .hidden = 64, .wide = 128, .vocabulary = 20000}, random);
  entries.pop_back();  // the head
  for (const bool tied : {false, true}) {
    ResidencyNeeds needs{.bytes_max = 2'000'000, .tied = tied};
    const auto found = choose_residency(entries, needs);
    ASSERT_TRUE(found.has_value());
    EXPECT_FALSE(found->pinned[0]);
    EXPECT_EQ(std::ranges::any_of(found->windows, [](const Window& w) { return w.entry == 0; }),
              tied);
  }
}

}  // namespace
}  // namespace sluice::runtime
