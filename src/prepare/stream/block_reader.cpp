#include "stream/block_reader.h"

#include "numerics/dtype.h"

namespace sluice::stream {

using families::OutputModule;
using families::RowRun;
using io::Checkpoint;
using io::StoredTensor;

Result<ModuleSource> describe_source(const Checkpoint& checkpoint, const OutputModule& module) {
  SLUICE_ASSIGN(const BlockGrid grid, make_grid(module));
  SLUICE_CHECK(!module.recipe.sources.empty());
  const StoredTensor& first = checkpoint.tensors[module.recipe.sources[0].tensor];
  for (const families::RowSource& source : module.recipe.sources) {
    const StoredTensor& tensor = checkpoint.tensors[source.tensor];
    if (tensor.info.dtype != first.info.dtype)
      return fail(ErrorCode::kUnsupported, "{}: tensor {} is {} but {} is {}; both belong to {}",
                  checkpoint.path, tensor.info.name, dtype_info(tensor.info.dtype).name,
                  first.info.name, dtype_info(first.info.dtype).name, module.tensor_name());
  }
  const uint64_t columns[] = {module.columns()};
  const auto row_bytes = numerics::tensor_bytes(first.info.dtype, columns);
  if (!row_bytes)
    return fail(ErrorCode::kCorrupt, "{}: tensor {}: {} columns are no whole number of {} blocks",
                checkpoint.path, first.info.name, module.columns(),
                dtype_info(first.info.dtype).name);
  return ModuleSource{grid, first.info.dtype, *row_bytes};
}

void append_block_ranges(const Checkpoint& checkpoint, const OutputModule& module,
                         const ModuleSource& source, const Block& block, std::vector<RowRun>& runs,
                         std::vector<ByteRange>& out) {
  runs.clear();
  families::append_row_runs(module.recipe, block.first_row, block.rows, runs);
  for (const RowRun& run : runs) {
    const StoredTensor& tensor = checkpoint.tensors[run.tensor];
    const uint64_t bytes = run.rows * source.row_bytes;
    const uint64_t offset = run.source_row * source.row_bytes;
    SLUICE_CHECK(offset + bytes <= tensor.bytes);
    out.push_back(
        {checkpoint.files[tensor.file].get(), tensor.offset + offset, bytes, tensor.info.name});
  }
}

}  // namespace sluice::stream
