// How output modules are cut into blocks of rows. The cut depends on shapes alone, never on threads
// or memory, because digests and error sums are defined block by block.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "families/recipe.h"

namespace sluice::stream {

// Elements per block, a power of two: about half a megabyte of 16-bit source, one of f32.
inline constexpr uint64_t kBlockElements = 256 * 1024;
// A longer row (in f32) is refused: a block holds at least one row, and blocks bound the memory.
inline constexpr uint64_t kRowElementsMax = 4 * 1024 * 1024;

// Rows [first_row, first_row + rows) of one module, all in the same expert.
struct Block {
  uint32_t module = 0;  // index into ModelMap::modules
  uint32_t index = 0;   // within the module, in row order
  uint64_t first_row = 0;
  uint64_t rows = 0;
};

// The cut of one module: every expert is divided alike, so that no block spans two.
struct BlockGrid {
  uint64_t expert_rows = 0;
  uint64_t rows_per_block = 0;
  uint32_t blocks_per_expert = 0;
  uint32_t experts = 0;

  uint32_t block_count() const { return blocks_per_expert * experts; }
  uint32_t expert_of(uint32_t block) const { return block / blocks_per_expert; }
  Block block(uint32_t module, uint32_t index) const;
};

// Errors: kUnsupported for a row above kRowElementsMax.
Result<BlockGrid> make_grid(const families::OutputModule& module);

}  // namespace sluice::stream
