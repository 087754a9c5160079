// Where the rows of an output module lie in the checkpoint, and what they decode to: the one place
// that knows how stored source bytes become a block. Used by the engine's threads, which do the
// reading.
//
// A block's source bytes are its parts one after another, each [rows × part row bytes] in output
// row order: one part for plain tensors; codes, scales and biases for MLX's formats; weights and
// scales for 8-bit floats in blocks, where every row brings its own copy of the scales, one for
// each block of columns, or one for each column where the module is transposed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/error.h"
#include "families/recipe.h"
#include "io/checkpoint.h"
#include "numerics/affine.h"
#include "stream/blocks.h"
#include "stream/ranges.h"

namespace sluice::stream {

// numerics::decode_elements, or a kernel equal to it.
using DecodeFunction =
    std::function<void(numerics::DType, std::span<const std::byte>, std::span<float>)>;
// numerics::decode_affine, or a kernel equal to it.
using DecodeAffineFunction =
    std::function<void(const numerics::ConstAffineRow&, const numerics::QuantFormat&,
                       numerics::DType, std::span<float>)>;

struct SourceDecoders {
  DecodeFunction elements;
  DecodeAffineFunction affine = numerics::decode_affine;
};

// How one output module is stored in the source. All its sources are stored alike, so that a block
// is a plain run of equal rows.
struct ModuleSource {
  BlockGrid grid;
  numerics::DType dtype = numerics::DType::kF32;  // of the values: F32 for packed tensors
  const io::Packing* packing = nullptr;           // of the first source; null for plain ones
  std::array<uint64_t, 4> part_row_bytes{};       // of the block's rows
  uint32_t part_count = 1;
  uint64_t columns_per_scale = 1;  // of a block's row, for elements with scales
  bool transposed = false;
  bool by_columns = false;                                // some part is stored by columns
  bool repeats_rows = false;                              // a row of some part serves several
  bool has_gaps = false;                                  // rows of others lie between the module's
  numerics::ValueStep step = numerics::ValueStep::kNone;  // what is done to the stored values
  families::ColumnOrder columns{};

  // Whether values are what is stored, column by column.
  bool as_stored() const { return step == numerics::ValueStep::kNone && columns.in_order(); }

  uint64_t row_bytes() const {
    return part_row_bytes[0] + part_row_bytes[1] + part_row_bytes[2] + part_row_bytes[3];
  }
  // Whether a block's bytes are short pieces of many stored rows.
  bool is_scattered() const { return transposed || by_columns; }
  // Row r of a part of a block of that many rows.
  std::span<const std::byte> part_row(std::span<const std::byte> block, uint64_t rows,
                                      uint32_t part, uint64_t r) const;
};

// Errors: kUnsupported for sources stored differently or rows too long; kCorrupt for a row that is
// no whole number of the dtype's blocks.
Result<ModuleSource> describe_source(const io::Checkpoint& checkpoint,
                                     const families::OutputModule& module);

// Appends the ranges of files that hold a block's parts, part after part. Their bytes one after
// another are the block's, unless needs_arranging(). runs is scratch memory. The labels live as
// long as the checkpoint. Threads: reentrant.
void append_block_ranges(const io::Checkpoint& checkpoint, const families::OutputModule& module,
                         const ModuleSource& source, const Block& block,
                         std::vector<families::RowRun>& runs, std::vector<ByteRange>& out);

// Whether rows have to be repeated, left out or turned to make a block of what was read.
bool needs_arranging(const ModuleSource& source);
// read: the rows, of one expert, whose ranges were appended and read; block: some of them. ranges:
// the bytes of each range; out: the block's. runs is scratch memory.
void arrange_block(const io::Checkpoint& checkpoint, const families::OutputModule& module,
                   const ModuleSource& source, const Block& read, const Block& block,
                   std::span<const std::span<const std::byte>> ranges,
                   std::vector<families::RowRun>& runs, std::vector<std::byte>& out);

// Whether the module's blocks are short pieces of many stored rows: ModuleSource::is_scattered().
bool reads_columns(const io::Checkpoint& checkpoint, const families::OutputModule& module);

// Whether a module's values can be had at all: integers are only ever copied.
bool is_decodable(const ModuleSource& source);

// values: rows · columns, as the recipe wants them. Packed values are computed in f32 as
// io::Packing says. Of integers whose group does not exist, they are NaN.
void decode_block(const ModuleSource& source, std::span<const std::byte> block, uint64_t rows,
                  const SourceDecoders& decoders, std::span<float> values);

// The formats into which the stored rows move without any change of their values, for a model of
// that float type: the one that they are stored in, or nearest to, first.
std::vector<numerics::QuantFormat> lossless_formats(const ModuleSource& source,
                                                    numerics::DType model_dtype);
// Whether every row moves into all of them, but for numbers that no model has and configurations
// that say otherwise than the tensors; else only the rows themselves tell.
bool always_lossless(const ModuleSource& source, numerics::DType model_dtype);
// Moves row r of a block into one of those formats; fp modes have no biases. False when it cannot
// be moved; out is then unspecified.
bool move_row(const ModuleSource& source, std::span<const std::byte> block, uint64_t rows,
              uint64_t r, const numerics::QuantFormat& format, numerics::DType model_dtype,
              const numerics::AffineRow& out);

}  // namespace sluice::stream
