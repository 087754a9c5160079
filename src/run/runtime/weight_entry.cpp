// In which type each parameter stays in memory, where its rows lie, and how they get there.
#include "runtime/weight_entry.h"

#include <algorithm>
#include <numeric>
#include <unordered_set>

#include "base/checked.h"
#include "io/aligned_buffer.h"
#include "numerics/block_codec.h"

namespace sluice::runtime {
namespace {

using families::OutputModule;
using families::RowOrder;
using families::RowSource;
using io::PackingKind;
using io::StoredTensor;
using numerics::DType;
using numerics::QuantFormat;
using numerics::WeightFormat;

// Large enough for the disk's rate, small enough to be shared out among threads.
constexpr uint64_t kTransferBytes = 4 << 20;
// The same where every thread holds the piece in memory of its own, to rearrange or decode it.
constexpr uint64_t kStagedTransferBytes = 512 << 10;
// Kernels may read this far behind the last byte of a part.
constexpr uint64_t kReadableBehind = 64;
// Parts from this size on are placed for direct reads.
constexpr uint64_t kDirectBytesMin = 32 << 10;

// The type in which a matrix stays in memory: its own where products can read it, else the nearest.
// Values of 8-bit floats and of fp blocks are exact in bf16, those of integer blocks nearly so in
// f16, far more closely than they stand for the weights they were made from.
DType resident_type(DType stored) {
  switch (stored) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ5_0:
    case DType::kQ5_1:
    case DType::kQ8_0:
    case DType::kQ2_K:
    case DType::kQ3_K:
    case DType::kQ4_K:
    case DType::kQ5_K:
    case DType::kQ6_K:
    case DType::kIQ4_NL:
    case DType::kIQ4_XS:
    case DType::kMXFP4: return stored;
    case DType::kF64: return DType::kF32;
    case DType::kF8E4M3:
    case DType::kF8E5M2:
    case DType::kF8E8M0:
    case DType::kNVFP4: return DType::kBF16;
    default: return DType::kF16;
  }
}

uint64_t row_bytes_of(DType dtype, uint64_t columns) {
  const numerics::DTypeInfo& info = dtype_info(dtype);
  return columns / info.block_elements * info.block_bytes;
}

// As stored: MLX packing, or elements of one type.
Result<WeightFormat> stored_format(const StoredTensor& tensor, const std::string& path) {
  if (tensor.packing == nullptr) return WeightFormat{QuantFormat{}, tensor.info.dtype};
  if (tensor.packing->kind == PackingKind::kMlx)
    return WeightFormat{tensor.packing->format, tensor.packing->parts[1].dtype};
  return fail(ErrorCode::kUnsupported,
              "{}: {} is stored as {}, which cannot be run as it is; `sluice fit` makes a model of "
              "it that can",
              path, tensor.info.name, storage_text(tensor));
}

// Plain elements can be transposed while they are brought, all columns of a source's rows at once.
bool can_transpose(const StoredTensor& tensor, const RowSource& source) {
  return tensor.packing == nullptr && dtype_info(tensor.info.dtype).block_elements == 1 &&
         tensor.info.shape.size() == 2 && tensor.info.shape[1] == source.rows;
}

bool placed_for_pages(const WeightPart& part, uint64_t bytes) {
  return bytes >= kDirectBytesMin && part.from == part.into &&
         part.step == numerics::ValueStep::kNone;
}

// Cuts a transfer into pieces, at heads where rows are rearranged within heads.
void append_pieces(const WeightTransfer& whole, std::vector<WeightTransfer>& out) {
  uint64_t rows_max =
      std::max<uint64_t>(1, (whole.staged() ? kStagedTransferBytes : kTransferBytes) /
                                (whole.row_bytes * whole.stride));
  if (whole.head_rows > 0) rows_max = align_up(rows_max, whole.head_rows);
  if (whole.transposed_rows > 0) rows_max = align_up(rows_max, whole.transposed_rows);
  for (uint64_t row = 0; row < whole.rows; row += rows_max) {
    WeightTransfer piece = whole;
    piece.rows = std::min(rows_max, whole.rows - row);
    piece.offset += row * whole.row_bytes * whole.stride;
    piece.to += row * whole.to_row_bytes;
    out.push_back(piece);
  }
}

}  // namespace

uint64_t WeightEntry::bytes_per_row() const {
  return numerics::row_bytes(format, static_cast<size_t>(columns)).total();
}

uint64_t WeightEntry::row_unit() const {
  uint64_t unit = 1;
  for (const WeightPart& part : parts)
    for (const FileRows& source : part.sources)
      if (source.head_rows > 0 || source.transposed)
        unit = std::lcm(unit, source.transposed ? source.rows : source.head_rows);
  return unit;
}

std::vector<OutputModule> modules_to_keep(const io::Checkpoint& checkpoint,
                                          const families::ModelMap& map) {
  std::vector<OutputModule> kept;
  std::unordered_set<uint32_t> whole;  // tensors
  const auto made_of_whole = [&](const OutputModule& module) {
    return !whole.empty() && std::ranges::all_of(module.recipe.sources, [&](const RowSource& s) {
      return whole.contains(s.tensor);
    });
  };
  for (const OutputModule& module : map.modules) {
    if (made_of_whole(module)) continue;
    const RowSource& source = module.recipe.sources.front();
    const StoredTensor& tensor = checkpoint.tensors[source.tensor];
    if (module.role != families::Role::kAttentionK || source.order != RowOrder::kTransposed ||
        can_transpose(tensor, source)) {
      kept.push_back(module);
      continue;
    }
    const numerics::Shape& shape = tensor.info.shape;
    whole.insert(source.tensor);
    kept.push_back({.path = tensor.info.name,
                    .parameter = "",
                    .role = module.role,
                    .layer = module.layer,
                    .shape = shape,
                    .quantizable = true,
                    .recipe = {.sources = {{.tensor = source.tensor, .rows = shape[0]}}}});
  }
  return kept;
}

Result<WeightEntry> make_entry(const io::Checkpoint& checkpoint, const OutputModule& module) {
  const auto& tensors = checkpoint.tensors;
  const StoredTensor& first = tensors[module.recipe.sources.front().tensor];
  SLUICE_CHECK(module.recipe.columns.in_order());  // of Arrangement::kAsStored
  SLUICE_ASSIGN(WeightFormat format, stored_format(first, checkpoint.path));
  for (const RowSource& source : module.recipe.sources) {
    SLUICE_ASSIGN(const WeightFormat other, stored_format(tensors[source.tensor], checkpoint.path));
    if (other.quant != format.quant || other.dtype != format.dtype)
      return fail(ErrorCode::kUnsupported,
                  "{}: {} is stored as {} and {} as {}; parts of one "
                  "module must be stored alike",
                  checkpoint.path, first.info.name, storage_text(first),
                  tensors[source.tensor].info.name, storage_text(tensors[source.tensor]));
    if (source.order == RowOrder::kTransposed && !can_transpose(tensors[source.tensor], source))
      return fail(
          ErrorCode::kUnsupported,
          "{}: {} is stored as {} and would have to be transposed, which cannot be done while "
          "it is loaded; `sluice fit` makes a model of it that can be run",
          checkpoint.path, tensors[source.tensor].info.name, storage_text(tensors[source.tensor]));
  }
  const bool plain = format.quant.mode == numerics::QuantMode::kFloat;
  const bool bias = module.role == families::Role::kBias;
  const bool vector = module.shape.size() == 1;
  const DType stored = format.dtype;
  if (plain) format.dtype = vector || bias || module.filters ? DType::kF32 : resident_type(stored);

  WeightEntry entry{
      .name = module.tensor_name(),
      .role = module.role,
      .layer = module.layer,
      .format = format,
      .experts = families::is_expert(module.role) ? module.experts() : 1,
      .rows = vector ? 1 : (bias ? module.shape[0] : module.rows()),
      .columns = vector || bias ? module.shape.back() : module.columns(),
      .storage = plain ? std::string(dtype_info(format.dtype).name) : storage_text(first),
      .parts = {}};
  const uint32_t parts = plain ? 1 : first.packing->part_count;
  for (uint32_t index = 0; index < parts; ++index) {
    WeightPart part;
    part.file_row_bytes =
        plain ? row_bytes_of(stored, module.columns()) : first.packing->parts[index].row_bytes;
    part.row_bytes = plain ? row_bytes_of(format.dtype, module.columns()) : part.file_row_bytes;
    part.columns = module.columns();
    part.pieces = module.rows() / entry.rows;
    part.from = plain ? stored : DType::kU8;
    part.into = plain ? format.dtype : DType::kU8;
    part.step = module.recipe.step;
    uint64_t row = 0;
    for (const RowSource& source : module.recipe.sources) {
      const StoredTensor& tensor = tensors[source.tensor];
      const uint64_t begin = plain ? tensor.offset : tensor.packing->parts[index].offset;
      const bool transposed = source.order == RowOrder::kTransposed;
      const uint64_t source_row_bytes =
          transposed ? row_bytes_of(stored, source.rows) : part.file_row_bytes;
      part.sources.push_back(
          {.file = plain ? tensor.file : tensor.packing->parts[index].file,
           .offset = begin + source.first_row * source_row_bytes,
           .first_row = row,
           .rows = source.rows,
           .head_rows = source.order == RowOrder::kUninterleaveHeads ? source.head_rows : 0,
           .transposed = transposed,
           .stride = source.stride});
      row += source.rows;
    }
    entry.parts.push_back(std::move(part));
  }
  return entry;
}

PlacedRows place_rows(const WeightEntry& entry, uint64_t first_row, uint64_t rows, uint64_t at) {
  PlacedRows placed{.first_row = first_row, .rows = rows};
  for (size_t i = 0; i < entry.parts.size(); ++i) {
    const WeightPart& part = entry.parts[i];
    const uint64_t bytes = rows * part.pieces * part.row_bytes;
    at = align_up(at, kReadableBehind);
    if (placed_for_pages(part, bytes)) {
      const auto source = std::ranges::find_if(
          part.sources, [&](const FileRows& s) { return first_row < s.first_row + s.rows; });
      const uint64_t offset =
          source->offset + (first_row - source->first_row) * source->stride * part.file_row_bytes;
      at = align_up(at, io::kDirectAlignment) + offset % io::kDirectAlignment;
    }
    placed.begin[i] = at;
    at += bytes + kReadableBehind;
    if (placed_for_pages(part, bytes)) at = align_up(at, io::kDirectAlignment);
  }
  placed.end = at;
  return placed;
}

numerics::WeightView view_rows(const WeightEntry& entry, const PlacedRows& placed,
                               const std::byte* base) {
  const auto part = [&](size_t i) {
    return i < entry.parts.size() ? base + placed.begin[i] : nullptr;
  };
  return {entry.format,
          static_cast<size_t>(placed.rows),
          static_cast<size_t>(entry.columns),
          part(0),
          part(1),
          part(2)};
}

void append_transfers(const WeightEntry& entry, const PlacedRows& placed, std::byte* base,
                      std::vector<WeightTransfer>& out) {
  for (size_t i = 0; i < entry.parts.size(); ++i) {
    const WeightPart& part = entry.parts[i];
    const uint64_t first = placed.first_row * part.pieces, end = first + placed.rows * part.pieces;
    const bool pages = placed_for_pages(part, (end - first) * part.row_bytes);
    for (const FileRows& source : part.sources) {
      const uint64_t from = std::max(first, source.first_row);
      const uint64_t to = std::min(end, source.first_row + source.rows);
      if (from >= to) continue;
      append_pieces({.file = source.file,
                     .offset = source.offset +
                               (from - source.first_row) * source.stride * part.file_row_bytes,
                     .row_bytes = part.file_row_bytes,
                     .rows = to - from,
                     .to = base + placed.begin[i] + (from - first) * part.row_bytes,
                     .to_row_bytes = part.row_bytes,
                     .columns = part.columns,
                     .head_rows = source.head_rows,
                     .stride = source.stride,
                     .transposed_rows = source.transposed ? source.rows : 0,
                     .from = part.from,
                     .into = part.into,
                     .step = part.step,
                     // Else another source's rows lie in them.
                     .whole_pages = pages && from == first && to == end && source.head_rows == 0 &&
                                    !source.transposed && source.stride == 1},
                    out);
    }
  }
}

namespace {

// staging holds, block after block, columns rows of transposed_rows elements; out gets
// transposed_rows rows of columns elements for each.
void transpose(const WeightTransfer& t, TransferBuffers& buffers) {
  const auto rows = static_cast<size_t>(t.transposed_rows),
             columns = static_cast<size_t>(t.columns);
  const size_t block_bytes = rows * static_cast<size_t>(t.row_bytes);
  std::vector<float>& values = buffers.values;
  values.resize(rows * columns + columns);
  const std::span<float> whole(values.data(), rows * columns),
      row(values.data() + whole.size(), columns);
  std::byte* to = t.to;
  for (size_t at = 0; at < buffers.staging.size(); at += block_bytes) {
    numerics::decode_elements(t.from, std::span(buffers.staging).subspan(at, block_bytes), whole);
    for (size_t r = 0; r < rows; ++r, to += t.to_row_bytes) {
      for (size_t c = 0; c < columns; ++c) row[c] = whole[c * rows + r];
      numerics::encode_elements(t.into, row, {to, static_cast<size_t>(t.to_row_bytes)});
    }
  }
}

}  // namespace

Status run_transfer(const io::Checkpoint& checkpoint, const WeightTransfer& t,
                    TransferBuffers& buffers) {
  const io::ByteSource& source = *checkpoint.files[t.file];
  const auto bytes = static_cast<size_t>(t.bytes());
  if (!t.staged()) return source.read_at(t.offset, {t.to, bytes});
  buffers.staging.resize(bytes);
  SLUICE_TRY(source.read_at(t.offset, buffers.staging));
  if (t.transposed_rows > 0) {
    transpose(t, buffers);
    return {};
  }
  buffers.values.resize(static_cast<size_t>(t.columns));
  for (uint64_t row = 0; row < t.rows; ++row) {
    uint64_t target = row;
    if (t.head_rows > 0) {  // source row 2i + half of a head is its row i + half · d/2
      const uint64_t in_head = row % t.head_rows;
      target = row - in_head + in_head / 2 + in_head % 2 * (t.head_rows / 2);
    }
    const std::span<const std::byte> in(buffers.staging.data() + row * t.stride * t.row_bytes,
                                        static_cast<size_t>(t.row_bytes));
    const std::span<std::byte> out(t.to + target * t.to_row_bytes,
                                   static_cast<size_t>(t.to_row_bytes));
    if (t.from == t.into && t.step == numerics::ValueStep::kNone) {
      std::ranges::copy(in, out.begin());
      continue;
    }
    numerics::decode_elements(t.from, in, buffers.values);
    numerics::apply(t.step, t.from, buffers.values);
    numerics::encode_elements(t.into, buffers.values, out);
  }
  return {};
}

}  // namespace sluice::runtime
