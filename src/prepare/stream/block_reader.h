// Where the rows of an output module lie in the checkpoint: the one place that knows how stored
// source bytes become a block. Used by the engine's threads, which do the reading.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/error.h"
#include "families/recipe.h"
#include "io/checkpoint.h"
#include "stream/blocks.h"
#include "stream/ranges.h"

namespace sluice::stream {

// numerics::decode_elements, or a kernel equal to it.
using DecodeFunction =
    std::function<void(numerics::DType, std::span<const std::byte>, std::span<float>)>;

// How one output module is stored in the source. All its sources share one dtype, so that a block
// is a plain run of equal rows.
struct ModuleSource {
  BlockGrid grid;
  numerics::DType dtype = numerics::DType::kF32;
  uint64_t row_bytes = 0;
};

// Errors: kUnsupported for sources of different dtypes or rows too long; kCorrupt for a row that is
// no whole number of the dtype's blocks.
Result<ModuleSource> describe_source(const io::Checkpoint& checkpoint,
                                     const families::OutputModule& module);

// Appends the ranges of files whose concatenation is the block's stored bytes in output row order:
// [rows × row_bytes]. runs is scratch memory. The labels live as long as the checkpoint.
// Threads: reentrant.
void append_block_ranges(const io::Checkpoint& checkpoint, const families::OutputModule& module,
                         const ModuleSource& source, const Block& block,
                         std::vector<families::RowRun>& runs, std::vector<ByteRange>& out);

}  // namespace sluice::stream
