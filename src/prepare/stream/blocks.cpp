#include "stream/blocks.h"

#include <algorithm>

#include "base/checked.h"

namespace sluice::stream {

Block BlockGrid::block(uint32_t module, uint32_t index) const {
  const uint64_t expert = index / blocks_per_expert;
  const uint64_t start = uint64_t{index % blocks_per_expert} * rows_per_block;
  return {module, index, expert * expert_rows + start,
          std::min(rows_per_block, expert_rows - start)};
}

Result<BlockGrid> make_grid(const families::OutputModule& module) {
  const uint64_t columns = module.columns();
  if (columns > kRowElementsMax)
    return fail(ErrorCode::kUnsupported, "tensor {}: a row of {} elements is longer than {}",
                module.tensor_name(), columns, kRowElementsMax);
  BlockGrid grid;
  if (module.elements() == 0) return grid;
  grid.expert_rows = module.rows() / module.experts();
  grid.rows_per_block = std::clamp<uint64_t>(kBlockElements / columns, 1, grid.expert_rows);
  const uint64_t blocks = (grid.expert_rows + grid.rows_per_block - 1) / grid.rows_per_block;
  const auto total = checked_mul(blocks, module.experts());
  if (!total || *total > UINT32_MAX)
    return fail(ErrorCode::kUnsupported, "tensor {}: shape {} has too many rows",
                module.tensor_name(), numerics::shape_text(module.shape));
  grid.experts = static_cast<uint32_t>(module.experts());
  grid.blocks_per_expert = static_cast<uint32_t>(blocks);
  return grid;
}

}  // namespace sluice::stream
