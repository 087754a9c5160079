#include "stream/block_reader.h"

#include <algorithm>
#include <cstring>
#include <tuple>

#include "numerics/dtype.h"

namespace sluice::stream {
namespace {

using families::OutputModule;
using families::RowRun;
using io::Checkpoint;
using io::PackedPart;
using io::Packing;
using io::PackingKind;
using io::PartOrder;
using io::StoredTensor;

constexpr uint64_t kNibblesOfWord = 8;

bool stored_alike(const StoredTensor& a, const StoredTensor& b) {
  if (a.info.dtype != b.info.dtype || (a.packing == nullptr) != (b.packing == nullptr))
    return false;
  if (a.packing == nullptr) return true;
  const Packing &p = *a.packing, &q = *b.packing;
  const auto settings = [](const Packing& packing) {
    return std::tuple(packing.kind, packing.format, packing.columns_spanned, packing.bits,
                      packing.zero, packing.has_zeros, packing.zeros_are_less_one,
                      packing.has_indices, packing.divides, packing.part_count);
  };
  if (settings(p) != settings(q)) return false;
  for (uint32_t i = 0; i < p.part_count; ++i)
    if (p.parts[i].dtype != q.parts[i].dtype ||
        p.parts[i].rows_spanned != q.parts[i].rows_spanned || p.parts[i].order != q.parts[i].order)
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

// Bytes that stand for one column of a part, and how many columns they hold.
struct Cell {
  uint64_t bytes = 1, columns = 1;
};

Cell cell_of(const PackedPart& part) {
  const bool words =
      part.order == PartOrder::kNibbleColumns || part.order == PartOrder::kAwqColumns;
  if (words) return {sizeof(uint32_t), kNibblesOfWord};
  return {dtype_info(part.dtype).block_bytes, 1};
}

// What of a part a run needs: a piece of each of some consecutive rows.
struct Window {
  uint64_t offset = 0;  // of the first piece, in the file
  uint64_t rows = 0, piece_bytes = 0;
  uint64_t first_row = 0, first_column = 0;  // where the first piece lies, in the part's own terms
  // Whether the pieces are whole rows, which follow each other.
  bool whole_rows = false;
};

// Columns [first, first + count) of the part's rows, each serving `span` of the tensor's.
Window columns_window(const PackedPart& from, uint64_t first_row, uint64_t rows, uint64_t first,
                      uint64_t count, uint64_t span) {
  const Cell cell = cell_of(from);
  const uint64_t first_cell = first / span / cell.columns;
  const uint64_t last_cell = (first + count - 1) / span / cell.columns;
  return {.offset = from.offset + first_row * from.row_bytes + first_cell * cell.bytes,
          .rows = rows,
          .piece_bytes = (last_cell - first_cell + 1) * cell.bytes,
          .first_row = first_row,
          .first_column = first_cell * cell.columns};
}

Window window_of(const StoredTensor& tensor, uint32_t part, const PackedPart& from,
                 const OutputModule& module, const RowRun& run) {
  Window window;
  if (from.order != PartOrder::kRows) {
    window = columns_window(from, 0, from.stored_rows, run.source_row, run.reach(), 1);
  } else {
    const uint64_t source_rows = run.transposed ? module.columns() : run.reach();
    const uint64_t first_row = run.source_row / from.rows_spanned;
    const uint64_t last_row = (run.source_row + source_rows - 1) / from.rows_spanned;
    const uint64_t rows = last_row - first_row + 1;
    if (run.transposed)
      window = columns_window(from, first_row, rows, run.source_column, run.reach(),
                              columns_spanned(tensor, part));
    else
      window = {.offset = from.offset + first_row * from.row_bytes,
                .rows = rows,
                .piece_bytes = from.row_bytes,
                .first_row = first_row};
  }
  window.whole_rows = window.piece_bytes == from.row_bytes;
  return window;
}

// The pieces of a window as they were read.
class Pieces {
 public:
  Pieces(const Window& window, std::span<const std::span<const std::byte>> ranges)
      : window_(window), ranges_(ranges) {}
  const std::byte* row(uint64_t row) const {
    return window_.whole_rows ? ranges_[0].data() + row * window_.piece_bytes : ranges_[row].data();
  }
  const Window& window() const { return window_; }

 private:
  const Window& window_;
  std::span<const std::span<const std::byte>> ranges_;
};

// Every row that is wanted gets its own of the part, which may serve several rows of the tensor.
void pick_rows(const PackedPart& from, const RowRun& run, const Pieces& pieces,
               std::span<std::byte> out) {
  for (uint64_t r = 0; r < run.rows; ++r) {
    const uint64_t row = (run.source_row + r * run.stride) / from.rows_spanned;
    std::memcpy(out.data() + r * from.row_bytes, pieces.row(row - pieces.window().first_row),
                from.row_bytes);
  }
}

// Columns [first, first + count·stride) of the part become rows; each is repeated for `span` of
// them, as its rows are for rows_spanned, from the first on.
struct Turn {
  uint64_t first_row = 0, rows = 0;  // of the tensor, and so elements of a row that comes out
  uint64_t first = 0, count = 0, stride = 1, span = 1;
};

// Elements of kBytes bytes. Some rows at a time, so that what is read stays in the cache until all
// columns have been taken from it.
template <size_t kBytes>
void turn_columns(const PackedPart& from, const Turn& turn, const Pieces& pieces,
                  std::span<std::byte> out) {
  constexpr uint64_t kTileRows = 64;
  const Window& window = pieces.window();
  for (uint64_t tile = 0; tile < turn.rows; tile += kTileRows) {
    const uint64_t rows = std::min(kTileRows, turn.rows - tile);
    const std::byte* places[kTileRows];
    for (uint64_t r = 0; r < rows; ++r)
      places[r] = pieces.row((turn.first_row + tile + r) / from.rows_spanned - window.first_row);
    for (uint64_t column = 0; column < turn.count; ++column) {
      const uint64_t at = (turn.first + column * turn.stride) / turn.span - window.first_column;
      std::byte* to = out.data() + (column * turn.rows + tile) * kBytes;
      for (uint64_t r = 0; r < rows; ++r)
        std::memcpy(to + r * kBytes, places[r] + at * kBytes, kBytes);
    }
  }
}

// Two rows of the part become the halves of a byte of every row that comes out, the lower one
// first.
void turn_nibbles(const PackedPart& from, const Turn& turn, const Pieces& pieces,
                  std::span<std::byte> out) {
  // Where the n-th column of a word lies in it.
  constexpr uint8_t kInOrder[kNibblesOfWord] = {0, 1, 2, 3, 4, 5, 6, 7};
  constexpr uint8_t kAwq[kNibblesOfWord] = {0, 4, 1, 5, 2, 6, 3, 7};
  const uint8_t* places = from.order == PartOrder::kAwqColumns ? kAwq : kInOrder;
  const auto nibble = [&](const std::byte* row, uint64_t column) {
    const uint64_t place = places[column % kNibblesOfWord];
    const auto pair =
        std::to_integer<uint8_t>(row[(column / kNibblesOfWord) * sizeof(uint32_t) + place / 2]);
    return static_cast<uint8_t>(place % 2 == 0 ? pair & 15 : pair >> 4);
  };
  const uint64_t row_bytes = (turn.rows + 1) / 2, before = pieces.window().first_column;
  for (uint64_t r = 0; r < turn.rows; r += 2) {
    const std::byte* low = pieces.row(r);
    const std::byte* high = r + 1 < turn.rows ? pieces.row(r + 1) : nullptr;
    for (uint64_t c = 0; c < turn.count; ++c) {
      const uint64_t column = turn.first + c * turn.stride - before;
      const unsigned upper = high != nullptr ? nibble(high, column) : 0u;
      out[c * row_bytes + r / 2] = static_cast<std::byte>(nibble(low, column) | upper << 4);
    }
  }
}

void turn(const PackedPart& from, const Turn& turn, const Pieces& pieces,
          std::span<std::byte> out) {
  if (cell_of(from).columns > 1) return turn_nibbles(from, turn, pieces, out);
  switch (dtype_info(from.dtype).block_bytes) {
    case 1: return turn_columns<1>(from, turn, pieces, out);
    case 2: return turn_columns<2>(from, turn, pieces, out);
    case 4: return turn_columns<4>(from, turn, pieces, out);
    case 8: return turn_columns<8>(from, turn, pieces, out);
    default: SLUICE_CHECK(false);
  }
}

// What a part gives each row of a block.
uint64_t row_bytes_of(const PackedPart& part) {
  if (part.order == PartOrder::kRows) return part.row_bytes;
  const Cell cell = cell_of(part);
  return cell.columns > 1 ? (part.stored_rows + 1) / 2 : part.stored_rows * cell.bytes;
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
                              ? first.packing->kind == PackingKind::kScaledElements
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

}  // namespace

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
    for (uint32_t i = 0; i < source.part_count; ++i) {
      const PackedPart& part = first.packing->parts[i];
      source.part_row_bytes[i] = row_bytes_of(part);
      source.by_columns = source.by_columns || part.order != PartOrder::kRows;
      source.repeats_rows = source.repeats_rows || part.rows_spanned > 1;
    }
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
      const uint64_t pieces = window.whole_rows ? 1 : window.rows;
      const uint64_t bytes = window.piece_bytes * (window.whole_rows ? window.rows : 1);
      for (uint64_t i = 0; i < pieces; ++i)
        out.push_back({file, window.offset + i * from.row_bytes, bytes, tensor.info.name});
    }
  }
}

bool needs_arranging(const ModuleSource& source) {
  return source.is_scattered() || source.has_gaps || source.repeats_rows;
}

void arrange_block(const Checkpoint& checkpoint, const OutputModule& module,
                   const ModuleSource& source, const Block& read, const Block& block,
                   std::span<const std::span<const std::byte>> ranges, std::vector<RowRun>& runs,
                   std::vector<std::byte>& out) {
  out.resize(block.rows * source.row_bytes());
  runs.clear();
  families::append_row_runs(module.recipe, read.first_row, read.rows, runs);
  const uint64_t first = block.first_row - read.first_row, end = first + block.rows;
  std::span<std::byte> left(out);
  for (uint32_t part = 0; part < source.part_count; ++part) {
    uint64_t at = 0;  // rows of the runs before
    for (const RowRun& whole : runs) {
      const StoredTensor& tensor = checkpoint.tensors[whole.tensor];
      const PackedPart from = part_at(tensor, part, whole, source.part_row_bytes[part]);
      const Window window = window_of(tensor, part, from, module, whole);
      const Pieces pieces(window, ranges);
      ranges = ranges.subspan(window.whole_rows ? 1 : window.rows);
      const uint64_t begin = std::max(at, first), stop = std::min(at + whole.rows, end);
      const uint64_t skipped = begin - std::min(begin, at);
      at += whole.rows;
      if (begin >= stop) continue;
      RowRun run = whole;
      run.rows = stop - begin;
      (run.transposed ? run.source_column : run.source_row) += skipped * run.stride;
      const std::span<std::byte> to = left.first(run.rows * source.part_row_bytes[part]);
      left = left.subspan(to.size());
      if (run.transposed)
        turn(from,
             {run.source_row, module.columns(), run.source_column, run.rows, run.stride,
              columns_spanned(tensor, part)},
             pieces, to);
      else if (from.order != PartOrder::kRows)
        turn(from, {0, from.stored_rows, run.source_row, run.rows, run.stride, 1}, pieces, to);
      else
        pick_rows(from, run, pieces, to);
    }
  }
  SLUICE_CHECK(left.empty() && ranges.empty());
}

bool reads_columns(const Checkpoint& checkpoint, const OutputModule& module) {
  if (module.recipe.sources.empty()) return false;
  const Packing* packing = checkpoint.tensors[module.recipe.sources[0].tensor].packing.get();
  return is_transposed(module) ||
         (packing != nullptr && std::ranges::any_of(packing->parts, [](const PackedPart& part) {
            return part.order != PartOrder::kRows;
          }));
}

}  // namespace sluice::stream
