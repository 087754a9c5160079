// Row runs: concatenation, merging, permutation of heads, and what a module's rows are.
#include "families/recipe.h"

#include <gmock/gmock.h>

#include <random>

namespace sluice::families {
namespace {

std::vector<RowRun> runs_of(const Recipe& recipe, uint64_t first, uint64_t rows) {
  std::vector<RowRun> runs;
  append_row_runs(recipe, first, rows, runs);
  return runs;
}

// (tensor, row) of every output row.
std::vector<std::pair<uint32_t, uint64_t>> flatten(const std::vector<RowRun>& runs) {
  std::vector<std::pair<uint32_t, uint64_t>> rows;
  for (const RowRun& run : runs)
    for (uint64_t i = 0; i < run.rows; ++i) rows.emplace_back(run.tensor, run.source_row + i);
  return rows;
}

TEST(RowRuns, OneSourceIsOneRun) {
  const Recipe recipe{{{.tensor = 7, .first_row = 10, .rows = 20}}};
  EXPECT_EQ(runs_of(recipe, 5, 3), (std::vector<RowRun>{{7, 15, 3}}));
  EXPECT_EQ(runs_of(recipe, 0, 20), (std::vector<RowRun>{{7, 10, 20}}));
  EXPECT_TRUE(runs_of(recipe, 20, 0).empty());
}

TEST(RowRuns, SourcesFollowOneAnother) {
  const Recipe recipe{
      {{.tensor = 1, .rows = 4}, {.tensor = 2, .rows = 4}, {.tensor = 3, .rows = 4}}};
  EXPECT_EQ(runs_of(recipe, 2, 8), (std::vector<RowRun>{{1, 2, 2}, {2, 0, 4}, {3, 0, 2}}));
  EXPECT_EQ(runs_of(recipe, 8, 4), (std::vector<RowRun>{{3, 0, 4}}));
}

TEST(RowRuns, NeighboursInOneTensorMerge) {
  const Recipe recipe{{{.tensor = 1, .first_row = 0, .rows = 4},
                       {.tensor = 1, .first_row = 4, .rows = 4},
                       {.tensor = 1, .first_row = 12, .rows = 4}}};
  EXPECT_EQ(runs_of(recipe, 0, 12), (std::vector<RowRun>{{1, 0, 8}, {1, 12, 4}}));
}

TEST(RowRuns, WhatIsThereAlreadyStays) {
  const Recipe recipe{{{.tensor = 1, .rows = 8}}};
  std::vector<RowRun> runs{{1, 0, 4}};
  append_row_runs(recipe, 4, 4, runs);
  EXPECT_EQ(runs, (std::vector<RowRun>{{1, 0, 4}, {1, 4, 4}}));
}

TEST(RowRuns, HeadsAreUninterleaved) {
  const Recipe recipe{
      {{.tensor = 0, .rows = 12, .order = RowOrder::kUninterleaveHeads, .head_rows = 6}}};
  const auto rows = flatten(runs_of(recipe, 0, 12));
  std::vector<uint64_t> sources;
  for (const auto& [tensor, row] : rows) sources.push_back(row);
  EXPECT_THAT(sources, testing::ElementsAre(0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11));
}

TEST(RowRuns, EveryOtherRowIsOneRun) {
  const Recipe recipe{{{.tensor = 4, .first_row = 1, .rows = 6, .stride = 2},
                       {.tensor = 5, .first_row = 0, .rows = 2}}};
  EXPECT_EQ(runs_of(recipe, 0, 6), (std::vector<RowRun>{{4, 1, 6, false, 0, 2}}));
  EXPECT_EQ(runs_of(recipe, 2, 6), (std::vector<RowRun>{{4, 5, 4, false, 0, 2}, {5, 0, 2}}));
  EXPECT_EQ(runs_of(recipe, 2, 6)[0].reach(), 7u);
}

TEST(RowRuns, ARunWithGapsIsNotContinued) {
  const Recipe recipe{
      {{.tensor = 4, .rows = 1, .stride = 2}, {.tensor = 4, .first_row = 1, .rows = 2}}};
  EXPECT_EQ(runs_of(recipe, 0, 3), (std::vector<RowRun>{{4, 0, 1, false, 0, 2}, {4, 1, 2}}));
}

TEST(RowRuns, ColumnsBeginAndStepAnywhere) {
  const Recipe recipe{{{.tensor = 2,
                        .first_row = 30,
                        .rows = 4,
                        .order = RowOrder::kTransposed,
                        .stride = 2,
                        .first_column = 1},
                       {.tensor = 2,
                        .first_row = 40,
                        .rows = 4,
                        .order = RowOrder::kTransposed,
                        .first_column = 4}}};
  EXPECT_EQ(runs_of(recipe, 1, 5),
            (std::vector<RowRun>{{2, 30, 3, true, 3, 2}, {2, 40, 2, true, 4, 1}}));
}

// llama.cpp's permutation, as its definition has it: [heads, 2, d/2] → [heads, d/2, 2].
std::vector<uint64_t> interleave(uint64_t heads, uint64_t d) {
  std::vector<uint64_t> stored;
  for (uint64_t h = 0; h < heads; ++h)
    for (uint64_t i = 0; i < d / 2; ++i)
      for (uint64_t half = 0; half < 2; ++half) stored.push_back(h * d + half * d / 2 + i);
  return stored;
}

TEST(RowRuns, PermutationRoundTrip) {
  for (const uint64_t d : {2, 4, 8, 64, 128}) {
    const uint64_t heads = 5;
    const Recipe recipe{
        {{.tensor = 0, .rows = heads * d, .order = RowOrder::kUninterleaveHeads, .head_rows = d}}};
    const std::vector<uint64_t> stored = interleave(heads, d);
    const auto rows = flatten(runs_of(recipe, 0, heads * d));
    ASSERT_EQ(rows.size(), heads * d);
    for (uint64_t i = 0; i < rows.size(); ++i) EXPECT_EQ(stored[rows[i].second], i) << "d = " << d;
  }
}

TEST(RowRuns, AnyCutGivesTheSameRows) {
  std::mt19937 random(testing::UnitTest::GetInstance()->random_seed());
  const Recipe recipe{
      {{.tensor = 0, .first_row = 3, .rows = 17},
       {.tensor = 1, .rows = 32, .order = RowOrder::kUninterleaveHeads, .head_rows = 8},
       {.tensor = 2, .first_row = 1, .rows = 5}}};
  const auto whole = flatten(runs_of(recipe, 0, 54));
  for (int round = 0; round < 100; ++round) {
    std::vector<RowRun> runs;
    for (uint64_t row = 0; row < 54;) {
      const uint64_t rows = std::min<uint64_t>(1 + random() % 20, 54 - row);
      append_row_runs(recipe, row, rows, runs);
      row += rows;
    }
    EXPECT_EQ(flatten(runs), whole);
  }
}

TEST(OutputModule, RowsAndColumns) {
  OutputModule module{.path = "a", .parameter = "weight", .shape = {3, 32, 64}, .recipe = {}};
  EXPECT_EQ(module.rows(), 96u);
  EXPECT_EQ(module.columns(), 64u);
  EXPECT_EQ(module.experts(), 3u);
  EXPECT_EQ(module.tensor_name(), "a.weight");
  module.shape = {64};
  EXPECT_EQ(module.rows(), 1u);
  EXPECT_EQ(module.columns(), 64u);
  module.by_element = true;
  EXPECT_EQ(module.rows(), 64u);
  EXPECT_EQ(module.columns(), 1u);
  module.parameter = "";
  EXPECT_EQ(module.tensor_name(), "a");
}

TEST(Role, NamesAreDistinct) {
  std::vector<std::string_view> names;
  for (int role = 0; role <= static_cast<int>(Role::kOther); ++role)
    names.push_back(role_name(static_cast<Role>(role)));
  std::sort(names.begin(), names.end());
  EXPECT_EQ(std::adjacent_find(names.begin(), names.end()), names.end());
}

}  // namespace
}  // namespace sluice::families
