// Where the rows of an output module lie in the checkpoint, and reading a block of them: the one
// place that knows how stored source bytes become a block. Used by the engine's threads.
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

// The stored bytes of a block in output row order: [rows × row_bytes]. runs is scratch memory.
// Threads: reentrant. Errors: of reading, naming the tensor.
Status read_block(const io::Checkpoint& checkpoint, const families::OutputModule& module,
                  const ModuleSource& source, const Block& block,
                  std::vector<families::RowRun>& runs, std::vector<std::byte>& out);

}  // namespace sluice::stream
