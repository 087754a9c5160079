// The cut into blocks: every row once, no block over two experts, nothing but shapes decides.
#include "stream/blocks.h"

#include <gmock/gmock.h>

namespace sluice::stream {
namespace {

using families::OutputModule;
using ::testing::HasSubstr;

OutputModule module_of(numerics::Shape shape) {
  OutputModule module;
  module.path = "a.b";
  module.parameter = "weight";
  module.shape = std::move(shape);
  return module;
}

// Walks a grid as readers do and checks what every user of it relies on.
void check_cover(const OutputModule& module) {
  const auto grid = make_grid(module);
  ASSERT_TRUE(grid) << grid.error().message;
  uint64_t next_row = 0;
  for (uint32_t i = 0; i < grid->block_count(); ++i) {
    const Block block = grid->block(7, i);
    EXPECT_EQ(block.module, 7u);
    EXPECT_EQ(block.index, i);
    EXPECT_EQ(block.first_row, next_row);
    ASSERT_GT(block.rows, 0u);
    EXPECT_LE(block.rows, grid->rows_per_block);
    EXPECT_LE(block.rows * module.columns(), std::max(kBlockElements, module.columns()));
    EXPECT_EQ(block.first_row / grid->expert_rows, grid->expert_of(i));
    EXPECT_EQ((block.first_row + block.rows - 1) / grid->expert_rows, grid->expert_of(i));
    next_row += block.rows;
  }
  EXPECT_EQ(next_row, module.rows());
}

TEST(Blocks, CoverEveryRowOnce) {
  for (const numerics::Shape& shape : {numerics::Shape{1},
                                       {64},
                                       {kBlockElements},
                                       {kRowElementsMax},
                                       {1, 1},
                                       {7, 64},
                                       {4095, 64},
                                       {4096, 64},
                                       {4097, 64},
                                       {8192, 64},
                                       {3, kBlockElements},
                                       {3, kBlockElements - 1},
                                       {3, kBlockElements + 1},
                                       {2, kRowElementsMax},
                                       {300'000, 1},
                                       {1, 5, 64},
                                       {4, 5, 64},
                                       {128, 4097, 64},
                                       {3, 2, kBlockElements},
                                       {5, 1, 33}}) {
    SCOPED_TRACE(numerics::shape_text(shape));
    check_cover(module_of(shape));
  }
}

TEST(Blocks, RowsPerBlockFollowFromColumns) {
  EXPECT_EQ(make_grid(module_of({100'000, 64}))->rows_per_block, kBlockElements / 64);
  EXPECT_EQ(make_grid(module_of({100'000, 100}))->rows_per_block, kBlockElements / 100);
  EXPECT_EQ(make_grid(module_of({10, 64}))->rows_per_block, 10u);
  EXPECT_EQ(make_grid(module_of({10, kBlockElements * 2}))->rows_per_block, 1u);
}

TEST(Blocks, ElementwiseVectorsAreColumns) {
  OutputModule bias = module_of({300'000});
  bias.by_element = true;
  EXPECT_EQ(make_grid(bias)->block_count(), 2u);
  check_cover(bias);
}

TEST(Blocks, NothingToCutWithoutElements) {
  for (const numerics::Shape& shape :
       {numerics::Shape{0}, {0, 64}, {64, 0}, {0, 4, 64}, {4, 0, 64}, {4, 64, 0}}) {
    SCOPED_TRACE(numerics::shape_text(shape));
    const auto grid = make_grid(module_of(shape));
    ASSERT_TRUE(grid);
    EXPECT_EQ(grid->block_count(), 0u);
  }
}

TEST(Blocks, RefusesRowsThatNoBlockMayHold) {
  const auto grid = make_grid(module_of({2, kRowElementsMax + 1}));
  ASSERT_FALSE(grid);
  EXPECT_EQ(grid.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(grid.error().message, HasSubstr("a.b.weight"));
}

TEST(Blocks, RefusesMoreBlocksThanCanBeNumbered) {
  const auto rows = make_grid(module_of({1ull << 33, kRowElementsMax}));
  ASSERT_FALSE(rows);
  EXPECT_EQ(rows.error().code, ErrorCode::kUnsupported);
  EXPECT_FALSE(make_grid(module_of({1ull << 20, 1ull << 13, kRowElementsMax})));
  EXPECT_FALSE(make_grid(module_of({1ull << 33, 1, 1})));
}

}  // namespace
}  // namespace sluice::stream
