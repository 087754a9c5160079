// One parameter of an opened model: how it lies in memory, and from which places of which files its
// rows come. Rows can be brought one range at a time, so that whoever holds a model decides how
// much of it is there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "families/recipe.h"
#include "io/checkpoint.h"
#include "numerics/weight_view.h"

namespace sluice::runtime {

// Rows [first_row, first_row + rows) of a parameter, one after another in a file.
struct FileRows {
  uint32_t file = 0;
  uint64_t offset = 0, first_row = 0, rows = 0;
  uint64_t head_rows = 0;  // > 0: rows of each head come interleaved (RowOrder::kUninterleaveHeads)
  bool transposed = false;  // the file has them as columns, all of them together or none
  uint64_t stride = 1;      // > 1: they are every stride-th row there
};

// Codes, scales or biases; or the values of what is not quantized by MLX's rules. from and into
// equal: bytes are moved.
struct WeightPart {
  uint64_t file_row_bytes = 0, row_bytes = 0;
  uint64_t columns = 0;  // of a row of the file
  uint64_t pieces = 1;   // rows of the file that make one: a permuted vector's elements
  numerics::DType from{}, into{};
  numerics::ValueStep step{};     // what is done to the values, in the source's type
  std::vector<FileRows> sources;  // all rows in order, counted as in the file
};

// Stacked experts are one after another: expert e is rows [e·R, (e+1)·R), R = rows / experts. So
// are the matrices of heads, which are one matrix here: all of them are used together. Vectors
// (norms, biases) are one row of f32; the biases of experts a row for each, filters of
// convolutions one for each channel.
struct WeightEntry {
  std::string name;  // of the tensor in the model's own terms: "model.norm.weight"
  families::Role role = families::Role::kOther;
  int layer = -1;  // −1 outside layers
  numerics::WeightFormat format;
  uint64_t experts = 1, rows = 0, columns = 0;
  std::string storage;  // as it lies in memory: "MLX 4/64", "Q4_K"
  std::vector<WeightPart> parts;

  bool vector() const { return rows == 1; }
  uint64_t elements() const { return rows * columns; }
  uint64_t bytes_per_row() const;
  uint64_t bytes() const { return rows * bytes_per_row(); }  // of all parts
  // Ranges of rows that are brought apart must begin and end at multiples of it.
  uint64_t row_unit() const;
};

// The modules as products take them. A head's keys whose rows are columns of a packed tensor, or of
// one of blocks, cannot be brought as such: the tensor is kept as it is, under its own name, and
// whoever multiplies by it does so transposed. What else is made of it alone is not kept twice.
std::vector<families::OutputModule> modules_to_keep(const io::Checkpoint& checkpoint,
                                                    const families::ModelMap& map);

// kUnsupported for storage that products cannot read.
Result<WeightEntry> make_entry(const io::Checkpoint& checkpoint,
                               const families::OutputModule& module);

// Where the parts of some rows lie in a buffer that begins at a page, and where the last one ends.
struct PlacedRows {
  uint64_t first_row = 0, rows = 0;
  uint64_t begin[3] = {}, end = 0;
};
// From `at` on. Large parts lie as their place in the file does within a page, and have their pages
// for themselves, so that direct reads need no copy; behind every part are the bytes that kernels
// may read beyond it.
PlacedRows place_rows(const WeightEntry& entry, uint64_t first_row, uint64_t rows, uint64_t at);
numerics::WeightView view_rows(const WeightEntry& entry, const PlacedRows& placed,
                               const std::byte* base);

// Some rows of a file, and where they go.
struct WeightTransfer {
  uint32_t file = 0;
  uint64_t offset = 0, row_bytes = 0, rows = 0;
  std::byte* to = nullptr;
  uint64_t to_row_bytes = 0, columns = 0, head_rows = 0, stride = 1;
  uint64_t transposed_rows = 0;  // > 0: so many rows at a time come as columns
  numerics::DType from{}, into{};
  numerics::ValueStep step{};
  bool whole_pages = false;  // the pages around it in memory may be overwritten with the file's
  uint64_t bytes() const { return ((rows - 1) * stride + 1) * row_bytes; }  // of the file
  bool staged() const {
    return head_rows > 0 || stride > 1 || transposed_rows > 0 || from != into ||
           step != numerics::ValueStep::kNone;
  }
};
// All that brings placed rows to the buffer at base, in pieces.
void append_transfers(const WeightEntry& entry, const PlacedRows& placed, std::byte* base,
                      std::vector<WeightTransfer>& out);

// Memory of one thread that runs transfers.
struct TransferBuffers {
  std::vector<std::byte> staging;
  std::vector<float> values;
};
// Errors: the source's.
Status run_transfer(const io::Checkpoint& checkpoint, const WeightTransfer& transfer,
                    TransferBuffers& buffers);

}  // namespace sluice::runtime
