// Where each parameter goes in memory, in which type, and from where it is read.
#include <algorithm>
#include <map>

#include "base/checked.h"
#include "runtime/weight_store.h"

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
    case DType::kQ4_K:
    case DType::kQ5_K:
    case DType::kQ6_K: return stored;
    case DType::kF64: return DType::kF32;
    case DType::kF8E4M3:
    case DType::kF8E5M2:
    case DType::kF8E8M0:
    case DType::kMXFP4:
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

// Cuts a transfer into pieces, at heads where rows are permuted within heads.
void append_pieces(const WeightTransfer& whole, std::vector<WeightTransfer>& out) {
  const bool staged = whole.head_rows > 0 || whole.from != whole.into;
  uint64_t rows_max =
      std::max<uint64_t>(1, (staged ? kStagedTransferBytes : kTransferBytes) / whole.row_bytes);
  if (whole.head_rows > 0) rows_max = align_up(rows_max, whole.head_rows);
  for (uint64_t row = 0; row < whole.rows; row += rows_max) {
    WeightTransfer piece = whole;
    piece.rows = std::min(rows_max, whole.rows - row);
    piece.offset += row * whole.row_bytes;
    piece.to += row * whole.to_row_bytes;
    out.push_back(piece);
  }
}

}  // namespace

uint64_t WeightEntry::bytes() const {
  return rows * numerics::row_bytes(format, static_cast<size_t>(columns)).total();
}

// Offset 0 is never given out: it marks parts that are not there.
uint64_t WeightStore::place(uint64_t bytes) {
  const uint64_t at = memory_bytes_;
  memory_bytes_ = align_up(at + bytes + kReadableBehind, kReadableBehind);
  return at;
}

Status WeightStore::add(const OutputModule& module) {
  const auto& tensors = checkpoint_->tensors;
  const StoredTensor& first = tensors[module.recipe.sources.front().tensor];
  SLUICE_ASSIGN(WeightFormat format, stored_format(first, checkpoint_->path));
  for (const RowSource& source : module.recipe.sources) {
    SLUICE_ASSIGN(const WeightFormat other,
                  stored_format(tensors[source.tensor], checkpoint_->path));
    if (other.quant != format.quant || other.dtype != format.dtype)
      return fail(ErrorCode::kUnsupported,
                  "{}: {} is stored as {} and {} as {}; parts of one "
                  "module must be stored alike",
                  checkpoint_->path, first.info.name, storage_text(first),
                  tensors[source.tensor].info.name, storage_text(tensors[source.tensor]));
    if (source.order == RowOrder::kTransposed)
      return fail(ErrorCode::kUnsupported, "{}: {} would have to be transposed while it is loaded",
                  checkpoint_->path, tensors[source.tensor].info.name);
  }
  const bool plain = format.quant.mode == numerics::QuantMode::kFloat;
  const bool vector = module.shape.size() == 1;
  const DType stored = format.dtype;
  if (plain) format.dtype = vector ? DType::kF32 : resident_type(stored);

  WeightEntry entry{
      .name = module.tensor_name(),
      .role = module.role,
      .format = format,
      .experts = module.experts(),
      .rows = vector ? 1 : module.rows(),
      .columns = vector ? module.shape[0] : module.columns(),
      .storage = plain ? std::string(dtype_info(format.dtype).name) : storage_text(first)};
  const auto part_row_bytes = [&](const StoredTensor& tensor, uint32_t part) {
    return plain ? row_bytes_of(stored, module.columns()) : tensor.packing->parts[part].row_bytes;
  };
  uint64_t* const places[] = {&entry.weight_at, &entry.scales_at, &entry.biases_at};
  const uint32_t parts = plain ? 1 : first.packing->part_count;
  for (uint32_t part = 0; part < parts; ++part) {
    WeightTransfer t{.row_bytes = part_row_bytes(first, part), .columns = module.columns()};
    t.to_row_bytes = plain ? row_bytes_of(format.dtype, t.columns) : t.row_bytes;
    *places[part] = place(module.rows() * t.to_row_bytes);
    t.to = *places[part];
    t.from = plain ? stored : DType::kU8;
    t.into = plain ? format.dtype : DType::kU8;
    for (const RowSource& source : module.recipe.sources) {
      const StoredTensor& tensor = tensors[source.tensor];
      t.file = plain ? tensor.file : tensor.packing->parts[part].file;
      t.offset = (plain ? tensor.offset : tensor.packing->parts[part].offset) +
                 source.first_row * t.row_bytes;
      t.rows = source.rows;
      t.head_rows = source.order == RowOrder::kUninterleaveHeads ? source.head_rows : 0;
      append_pieces(t, transfers_);
      t.to += t.rows * t.to_row_bytes;
    }
  }
  by_name_.emplace(entry.name, static_cast<uint32_t>(entries_.size()));
  entries_.push_back(std::move(entry));
  return {};
}

Result<std::unique_ptr<WeightStore>> WeightStore::plan(
    std::shared_ptr<const io::Checkpoint> checkpoint, const families::ModelMap& map) {
  std::unique_ptr<WeightStore> store(new WeightStore);
  store->checkpoint_ = std::move(checkpoint);
  store->memory_bytes_ = kReadableBehind;
  std::map<std::pair<DType, DType>, size_t> decoded;
  for (const OutputModule& module : map.modules) {
    SLUICE_TRY(store->add(module));
    const StoredTensor& source = store->checkpoint_->tensors[module.recipe.sources.front().tensor];
    const DType resident = store->entries_.back().format.dtype;
    if (source.packing == nullptr && module.shape.size() > 1 && resident != source.info.dtype)
      ++decoded[{source.info.dtype, resident}];
  }
  for (const auto& [types, count] : decoded)
    store->notes_.push_back(
        fmt::format("{} {} of type {}, for which there is no product, {} decoded to {} at load",
                    count, count == 1 ? "tensor" : "tensors", dtype_info(types.first).name,
                    count == 1 ? "is" : "are", dtype_info(types.second).name));
  // Neighbours on disk are read one after another.
  std::ranges::sort(store->transfers_, {},
                    [](const WeightTransfer& t) { return std::pair(t.file, t.offset); });
  return store;
}

}  // namespace sluice::runtime
