// The one engine under analyze, convert and verify. It reads the rows of output modules in bounded
// blocks, decodes them to f32, and shows every block once to a visitor, on all threads and in any
// order. It owns the reading memory, cancellation and progress; what is done with a block, and what
// is kept, is the visitor's business.
//
//   reader threads: some blocks at a time → bounded queue → worker threads: decode, Visitor::visit
//   → finish_module
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/thread.h"
#include "families/recipe.h"
#include "io/checkpoint.h"
#include "stream/block_reader.h"
#include "stream/blocks.h"

namespace sluice::stream {

// Valid during visit() only.
struct RowBlock {
  const families::OutputModule& module;
  const BlockGrid& grid;
  Block block;
  const ModuleSource& stored;         // how source and values hang together
  std::span<const std::byte> source;  // as stored, in output row order: see block_reader.h
  std::span<const float> values;      // [rows × columns]; empty if !Visitor::wants_values
  // What Visitor::list_companions asked for, range by range.
  std::span<const std::span<const std::byte>> companions = {};

  std::span<const float> row(uint64_t i) const {
    return values.subspan(i * module.columns(), module.columns());
  }
  // Whether source is rows of plain elements of that type, and these are the values.
  bool is_plain(numerics::DType dtype) const {
    return stored.packing == nullptr && stored.dtype == dtype && stored.as_stored();
  }
};

class Visitor {
 public:
  virtual ~Visitor() = default;
  // Whether visit() needs this module's values decoded. Non-float sources are never decoded.
  virtual bool wants_values(const families::OutputModule&) const { return true; }
  // Appends ranges of other files that visit() needs with a block; they are read ahead with it. The
  // files and labels outlive the job. Called concurrently, before the block is visited.
  virtual void list_companions(const families::OutputModule&, const Block&,
                               std::vector<ByteRange>&) const {}
  // Called concurrently; worker < StreamOptions::workers identifies the calling thread.
  virtual Status visit(const RowBlock& block, unsigned worker) = 0;
  // Called once per module, in the order of the list given to stream_modules, never concurrently,
  // after all its blocks have been visited; never again once it has failed. Modules without
  // elements are finished unvisited.
  virtual Status finish_module(uint32_t module) = 0;
};

struct StreamOptions {
  unsigned workers = 1;
  SourceDecoders decode;
  // Reading threads; 0: reader_count(workers), or kRemoteReaders. One reader and one worker see
  // blocks in order.
  unsigned readers = 0;
  const CancelToken* cancel = nullptr;
  Progress* progress = nullptr;  // advanced by source bytes; begin and end are the caller's
};

// Blocks are read in units of several that lie together, this many bytes with their companions, or
// one block, at a time.
inline constexpr uint64_t kUnitBytes = 1 << 20;
// Of a transposed module, or one that is stored by columns, a block is a few columns, which lie as
// short pieces all over its source: more blocks together make longer pieces, and fewer requests. Of
// all units together, of which there are fewer then, because what describes so many pieces takes
// memory too.
inline constexpr uint64_t kTransposedBytesMax = 16 << 20;
inline constexpr size_t kTransposedUnitsMax = 4;
inline constexpr unsigned kTransposedWorkersMax = 24;
// However many workers there are: a unit is blocks enough for several of them.
inline constexpr size_t kUnitsMax = 64;
// Reading threads: enough large requests at a time for the fastest drives.
unsigned reader_count(unsigned workers);
// Over a network most of a request's time is waiting for it to come back.
inline constexpr unsigned kRemoteReaders = 16;

// modules: indices into map.modules. Memory: about (workers + 2·readers) units, at most kUnitsMax
// of them, and workers blocks of f32. Errors: the first one met; kCancelled after a cancellation.
Status stream_modules(const io::Checkpoint& checkpoint, const families::ModelMap& map,
                      std::span<const uint32_t> modules, Visitor& visitor,
                      const StreamOptions& options);

// Source bytes behind the given modules, for progress totals.
uint64_t source_bytes(const io::Checkpoint& checkpoint, const families::ModelMap& map,
                      std::span<const uint32_t> modules);

}  // namespace sluice::stream
