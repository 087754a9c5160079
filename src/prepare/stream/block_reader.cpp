#include "stream/block_reader.h"

#include <algorithm>
#include <cstring>

#include "numerics/block_codec.h"
#include "numerics/dtype.h"
#include "numerics/fp.h"

namespace sluice::stream {
namespace {

using families::OutputModule;
using families::RowRun;
using io::Checkpoint;
using io::PackedPart;
using io::Packing;
using io::PackingKind;
using io::StoredTensor;

uint64_t blocks_of(uint64_t size, uint64_t side) { return size / side + (size % side != 0); }

bool stored_alike(const StoredTensor& a, const StoredTensor& b) {
  if (a.info.dtype != b.info.dtype || (a.packing == nullptr) != (b.packing == nullptr))
    return false;
  if (a.packing == nullptr) return true;
  const Packing &p = *a.packing, &q = *b.packing;
  if (p.kind != q.kind || p.format != q.format || p.columns_spanned != q.columns_spanned ||
      p.part_count != q.part_count)
    return false;
  for (uint32_t i = 0; i < p.part_count; ++i)
    if (p.parts[i].dtype != q.parts[i].dtype || p.parts[i].rows_spanned != q.parts[i].rows_spanned)
      return false;
  return true;
}

// A plain tensor is its own only part.
PackedPart part_at(const StoredTensor& tensor, uint32_t index, const RowRun& run,
                   uint64_t plain_row_bytes) {
  if (tensor.packing != nullptr) return tensor.packing->parts[index];
  if (run.transposed)
    plain_row_bytes = tensor.info.shape.back() * dtype_info(tensor.info.dtype).block_bytes;
  return {tensor.info.dtype, tensor.file, tensor.offset, plain_row_bytes, 1};
}

uint32_t columns_spanned(const StoredTensor& tensor, uint32_t part) {
  return part > 0 && tensor.packing != nullptr ? tensor.packing->columns_spanned : 1;
}

// What of a part a run needs: a piece of each of some consecutive rows.
struct Window {
  uint64_t offset = 0;  // of the first piece, in the file
  uint64_t rows = 0, piece_bytes = 0;
};

Window window_of(const StoredTensor& tensor, uint32_t part, const PackedPart& from,
                 const OutputModule& module, const RowRun& run) {
  const uint64_t source_rows = run.transposed ? module.columns() : run.reach();
  const uint64_t first_row = run.source_row / from.rows_spanned;
  const uint64_t last_row = (run.source_row + source_rows - 1) / from.rows_spanned;
  Window window{from.offset + first_row * from.row_bytes, last_row - first_row + 1, from.row_bytes};
  if (run.transposed) {
    const uint64_t span = columns_spanned(tensor, part);
    const uint64_t bytes = dtype_info(from.dtype).block_bytes;
    const uint64_t first_column = run.source_column / span;
    const uint64_t last_column = (run.source_column + run.reach() - 1) / span;
    window.offset += first_column * bytes;
    window.piece_bytes = (last_column - first_column + 1) * bytes;
  }
  return window;
}

// Every row that is wanted gets its own of the part, which may serve several rows of the tensor.
void pick_rows(const PackedPart& from, const RowRun& run, std::span<const std::byte> stored,
               std::span<std::byte> out) {
  const uint64_t first = run.source_row / from.rows_spanned;
  for (uint64_t r = 0; r < run.rows; ++r) {
    const uint64_t row = (run.source_row + r * run.stride) / from.rows_spanned - first;
    std::memcpy(out.data() + r * from.row_bytes, stored.data() + row * from.row_bytes,
                from.row_bytes);
  }
}

// Turns columns into rows. The part's elements, of kBytes bytes, stand for blocks of rows and
// columns; each is repeated. Some rows at a time, so that what is read stays in the cache until all
// columns have been taken from it.
template <size_t kBytes>
void turn_columns(const PackedPart& from, uint64_t span, const Window& window, const RowRun& run,
                  uint64_t source_rows, std::span<const std::byte> stored,
                  std::span<std::byte> out) {
  constexpr uint64_t kTileRows = 64;
  const uint64_t first_row = run.source_row / from.rows_spanned;
  const uint64_t first_column = run.source_column / span;
  for (uint64_t tile = 0; tile < source_rows; tile += kTileRows) {
    const uint64_t rows = std::min(kTileRows, source_rows - tile);
    const std::byte* places[kTileRows];
    for (uint64_t r = 0; r < rows; ++r)
      places[r] = stored.data() + ((run.source_row + tile + r) / from.rows_spanned - first_row) *
                                      window.piece_bytes;
    for (uint64_t column = 0; column < run.rows; ++column) {
      const uint64_t block_column = (run.source_column + column * run.stride) / span - first_column;
      std::byte* to = out.data() + (column * source_rows + tile) * kBytes;
      for (uint64_t r = 0; r < rows; ++r)
        std::memcpy(to + r * kBytes, places[r] + block_column * kBytes, kBytes);
    }
  }
}

void turn_columns(const PackedPart& from, uint64_t span, const Window& window, const RowRun& run,
                  uint64_t source_rows, std::span<const std::byte> stored,
                  std::span<std::byte> out) {
  switch (dtype_info(from.dtype).block_bytes) {
    case 1: return turn_columns<1>(from, span, window, run, source_rows, stored, out);
    case 2: return turn_columns<2>(from, span, window, run, source_rows, stored, out);
    case 4: return turn_columns<4>(from, span, window, run, source_rows, stored, out);
    case 8: return turn_columns<8>(from, span, window, run, source_rows, stored, out);
    default: SLUICE_CHECK(false);
  }
}

bool is_transposed(const OutputModule& module) {
  return module.recipe.sources[0].order == families::RowOrder::kTransposed;
}

bool has_gaps(const OutputModule& module) {
  return std::ranges::any_of(module.recipe.sources,
                             [](const families::RowSource& source) { return source.stride > 1; });
}

// One element of each part for every column, or for the weights of every column their block's.
Status describe_transposed(const Checkpoint& checkpoint, const OutputModule& module,
                           const StoredTensor& first, ModuleSource& source) {
  const bool by_element = first.packing != nullptr
                              ? first.packing->kind == PackingKind::kFp8Blocks
                              : dtype_info(first.info.dtype).block_elements == 1;
  if (!by_element)
    return fail(ErrorCode::kUnsupported, "{}: tensor {} is {}, which cannot be transposed for {}",
                checkpoint.path, first.info.name, storage_text(first), module.tensor_name());
  source.transposed = true;
  source.part_count = first.packing != nullptr ? first.packing->part_count : 1;
  for (uint32_t i = 0; i < source.part_count; ++i) {
    const numerics::DType dtype =
        first.packing != nullptr ? first.packing->parts[i].dtype : first.info.dtype;
    source.part_row_bytes[i] = module.columns() * dtype_info(dtype).block_bytes;
  }
  return {};
}

numerics::ConstAffineRow affine_row(const ModuleSource& source, std::span<const std::byte> block,
                                    uint64_t rows, uint64_t r) {
  return {source.part_row(block, rows, 0, r), source.part_row(block, rows, 1, r),
          source.part_row(block, rows, 2, r)};
}

void reorder_columns(const families::ColumnOrder& order, uint64_t rows, std::span<float> values) {
  const uint64_t columns = values.size() / rows;
  SLUICE_CHECK(columns == order.outer * order.inner * order.width);
  std::vector<float> stored(columns);
  for (uint64_t r = 0; r < rows; ++r) {
    const std::span<float> row = values.subspan(r * columns, columns);
    std::ranges::copy(row, stored.begin());
    for (uint64_t i = 0; i < order.outer; ++i)
      for (uint64_t j = 0; j < order.inner; ++j)
        std::copy_n(stored.begin() + static_cast<ptrdiff_t>((j * order.outer + i) * order.width),
                    order.width,
                    row.begin() + static_cast<ptrdiff_t>((i * order.inner + j) * order.width));
  }
}

// The weights of all rows at once, then every row's by its scales.
void decode_fp8_blocks(const ModuleSource& source, std::span<const std::byte> block, uint64_t rows,
                       const SourceDecoders& decoders, std::span<float> values) {
  const Packing& packing = *source.packing;
  const uint64_t columns = values.size() / rows, span = source.columns_per_scale;
  const std::span<const std::byte> weights = block.first(rows * source.part_row_bytes[0]);
  decoders.elements(packing.parts[0].dtype, weights, values);
  std::vector<float> scales(blocks_of(columns, span));
  for (uint64_t r = 0; r < rows; ++r) {
    decoders.elements(packing.parts[1].dtype, source.part_row(block, rows, 1, r), scales);
    const std::span<float> row = values.subspan(r * columns, columns);
    for (size_t begin = 0; begin < columns; begin += span)
      for (float& value : row.subspan(begin, std::min<size_t>(span, columns - begin)))
        value *= scales[begin / span];
  }
}

}  // namespace

std::span<const std::byte> ModuleSource::part_row(std::span<const std::byte> block, uint64_t rows,
                                                  uint32_t part, uint64_t r) const {
  uint64_t start = 0;
  for (uint32_t before = 0; before < part; ++before) start += rows * part_row_bytes[before];
  return block.subspan(start + r * part_row_bytes[part], part_row_bytes[part]);
}

Result<ModuleSource> describe_source(const Checkpoint& checkpoint, const OutputModule& module) {
  SLUICE_ASSIGN(const BlockGrid grid, make_grid(module));
  SLUICE_CHECK(!module.recipe.sources.empty());
  const StoredTensor& first = checkpoint.tensors[module.recipe.sources[0].tensor];
  for (const families::RowSource& source : module.recipe.sources) {
    const StoredTensor& tensor = checkpoint.tensors[source.tensor];
    if (!stored_alike(tensor, first))
      return fail(ErrorCode::kUnsupported, "{}: tensor {} is {} but {} is {}; both belong to {}",
                  checkpoint.path, tensor.info.name, storage_text(tensor), first.info.name,
                  storage_text(first), module.tensor_name());
  }
  ModuleSource source{.grid = grid,
                      .dtype = first.info.dtype,
                      .packing = first.packing.get(),
                      .has_gaps = has_gaps(module),
                      .step = module.recipe.step,
                      .columns = module.recipe.columns};
  if (is_transposed(module)) {
    SLUICE_TRY(describe_transposed(checkpoint, module, first, source));
    return source;
  }
  if (first.packing != nullptr) {
    source.part_count = first.packing->part_count;
    source.columns_per_scale = first.packing->columns_spanned;
    for (uint32_t i = 0; i < source.part_count; ++i)
      source.part_row_bytes[i] = first.packing->parts[i].row_bytes;
    return source;
  }
  const uint64_t columns[] = {module.columns()};
  const auto row_bytes = numerics::tensor_bytes(first.info.dtype, columns);
  if (!row_bytes)
    return fail(ErrorCode::kCorrupt, "{}: tensor {}: {} columns are no whole number of {} blocks",
                checkpoint.path, first.info.name, module.columns(),
                dtype_info(first.info.dtype).name);
  source.part_row_bytes[0] = *row_bytes;
  return source;
}

void append_block_ranges(const Checkpoint& checkpoint, const OutputModule& module,
                         const ModuleSource& source, const Block& block, std::vector<RowRun>& runs,
                         std::vector<ByteRange>& out) {
  runs.clear();
  families::append_row_runs(module.recipe, block.first_row, block.rows, runs);
  for (uint32_t part = 0; part < source.part_count; ++part) {
    for (const RowRun& run : runs) {
      const StoredTensor& tensor = checkpoint.tensors[run.tensor];
      const PackedPart from = part_at(tensor, part, run, source.part_row_bytes[part]);
      const Window window = window_of(tensor, part, from, module, run);
      const io::ByteSource* file = checkpoint.files[from.file].get();
      const bool whole_rows = window.piece_bytes == from.row_bytes;
      const uint64_t pieces = whole_rows ? 1 : window.rows;
      const uint64_t bytes = whole_rows ? window.rows * window.piece_bytes : window.piece_bytes;
      for (uint64_t i = 0; i < pieces; ++i)
        out.push_back({file, window.offset + i * from.row_bytes, bytes, tensor.info.name});
    }
  }
}

bool needs_arranging(const ModuleSource& source) {
  return source.transposed || source.has_gaps ||
         (source.packing != nullptr && source.packing->kind == PackingKind::kFp8Blocks);
}

void arrange_block(const Checkpoint& checkpoint, const OutputModule& module,
                   const ModuleSource& source, const Block& block,
                   std::span<const std::byte> ranges, std::vector<RowRun>& runs,
                   std::vector<std::byte>& out) {
  out.resize(block.rows * source.row_bytes());
  runs.clear();
  families::append_row_runs(module.recipe, block.first_row, block.rows, runs);
  std::span<std::byte> left(out);
  for (uint32_t part = 0; part < source.part_count; ++part) {
    for (const RowRun& run : runs) {
      const StoredTensor& tensor = checkpoint.tensors[run.tensor];
      const PackedPart from = part_at(tensor, part, run, source.part_row_bytes[part]);
      const Window window = window_of(tensor, part, from, module, run);
      const std::span<std::byte> to = left.first(run.rows * source.part_row_bytes[part]);
      const std::span<const std::byte> stored = ranges.first(window.rows * window.piece_bytes);
      if (run.transposed)
        turn_columns(from, columns_spanned(tensor, part), window, run, module.columns(), stored,
                     to);
      else
        pick_rows(from, run, stored, to);
      ranges = ranges.subspan(stored.size());
      left = left.subspan(to.size());
    }
  }
  SLUICE_CHECK(left.empty() && ranges.empty());
}

bool is_decodable(const ModuleSource& source) { return dtype_info(source.dtype).is_float; }

void decode_block(const ModuleSource& source, std::span<const std::byte> block, uint64_t rows,
                  const SourceDecoders& decoders, std::span<float> values) {
  if (source.packing == nullptr) {
    decoders.elements(source.dtype, block, values);
    numerics::apply(source.step, source.dtype, values);
    if (!source.columns.in_order()) reorder_columns(source.columns, rows, values);
    return;
  }
  if (source.packing->kind == PackingKind::kFp8Blocks)
    return decode_fp8_blocks(source, block, rows, decoders, values);
  const uint64_t columns = values.size() / rows;
  for (uint64_t r = 0; r < rows; ++r) {
    const std::span<float> row = values.subspan(r * columns, columns);
    if (numerics::is_fp(source.packing->format))
      numerics::decode_fp({source.part_row(block, rows, 0, r), source.part_row(block, rows, 1, r)},
                          source.packing->format, row);
    else
      decoders.affine(affine_row(source, block, rows, r), source.packing->format,
                      source.packing->parts[1].dtype, row);
  }
}

std::vector<numerics::QuantFormat> lossless_formats(const ModuleSource& source,
                                                    numerics::DType model_dtype) {
  if (!source.as_stored()) return {};
  if (source.packing != nullptr) {
    const Packing& packing = *source.packing;
    if (packing.kind != PackingKind::kMlx) return {};
    if (packing.format.mode == numerics::QuantMode::kMxfp4)
      return {packing.format, numerics::kMxfp4AsAffine};
    if (is_fp(packing.format) || packing.parts[1].dtype == model_dtype) return {packing.format};
    return {};
  }
  auto format = numerics::lossless_fp(source.dtype);
  if (!format && model_dtype == numerics::DType::kF16)
    format = numerics::lossless_affine(source.dtype);
  return format ? std::vector{*format} : std::vector<numerics::QuantFormat>();
}

bool always_lossless(const ModuleSource& source, const numerics::QuantFormat& format) {
  return source.packing != nullptr && source.packing->kind == PackingKind::kMlx &&
         source.packing->format == format;
}

bool move_row(const ModuleSource& source, std::span<const std::byte> block, uint64_t rows,
              uint64_t r, const numerics::QuantFormat& format, numerics::DType model_dtype,
              const numerics::AffineRow& out) {
  if (source.packing == nullptr) {
    const std::span<const std::byte> in = source.part_row(block, rows, 0, r);
    return numerics::lossless_fp(source.dtype)
               ? numerics::move_lossless_fp(source.dtype, in, {out.weight, out.scales})
               : numerics::move_lossless(source.dtype, in, out);
  }
  const numerics::ConstAffineRow in = affine_row(source, block, rows, r);
  if (format != source.packing->format)
    return numerics::mxfp4_to_affine({in.weight, in.scales}, model_dtype, out);
  std::ranges::copy(in.weight, out.weight.begin());
  std::ranges::copy(in.scales, out.scales.begin());
  std::ranges::copy(in.biases, out.biases.begin());
  return true;
}

}  // namespace sluice::stream
