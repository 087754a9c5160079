// What the engine asks of whatever computes its steps, beyond the operations that models name
// (model/backend.h); and a device, which makes such back-ends and the memory that weights lie in.
// The processor needs no device: CpuBackend is what an engine has without one.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "model/backend.h"
#include "model/config.h"
#include "runtime/engine.h"
#include "runtime/kv_pool.h"
#include "runtime/page_memory.h"
#include "runtime/recurrent_state.h"
#include "runtime/weight_store.h"

namespace sluice::runtime {

// The most that a step may bring.
struct StepLimits {
  size_t rows = 0;
  size_t logits_rows = 0;   // whose logits are computed together
  size_t context = 0;       // tokens of a sequence
  size_t heads = 0;         // query heads of a layer
  size_t selected_max = 0;  // keys that an indexer chooses for a token
  KvShape kv;
  StateShape state = {};
};

// One thread at a time. First weights and tensors are asked for, which costs nothing; then
// allocate(); then steps, each begun by begin().
class StepBackend : public model::Backend {
 public:
  // What allocate() and a step will take, and the most that it should be: chunks are cut for it.
  virtual uint64_t scratch_bytes(const StepLimits& limits) const = 0;
  virtual uint64_t scratch_bytes_max() const { return kScratchBytes; }
  virtual void allocate(const StepLimits& limits) = 0;
  // Sequence i of the batch is *sequences[i], with room for its rows, and, where the model is
  // recurrent, its states are those of *states[i]. All stay until the step ends.
  virtual void begin(const model::Batch& batch, std::span<KvSequence* const> sequences,
                     std::span<const StateStep* const> states = {}) = 0;
  // What reading weights or computing ran into since begin(); what was computed then means nothing.
  virtual const Status& status() const = 0;
};

// Thread-safe. Outlives what it made.
class Device {
 public:
  virtual ~Device() = default;
  // "Apple M2 Max", for tables and messages.
  virtual std::string name() const = 0;
  // The most that it can use of memory for itself; 0: as much as the machine has.
  virtual uint64_t memory_bytes_max() const = 0;
  // Memory that both sides read: for weights, whether they stay or take turns.
  virtual const MemorySource& memory() const = 0;
  // Whether it can run this; kUnsupported names what it cannot.
  virtual Status check(const model::ModelConfig& config, const WeightStore& weights,
                       const EngineOptions& options) const = 0;
  // weights must outlive it.
  virtual std::unique_ptr<StepBackend> make(const WeightStore& weights,
                                            const EngineOptions& options) const = 0;
};

}  // namespace sluice::runtime
