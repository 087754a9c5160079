// Records what enters a model's products with weights: second moments over windows of text, input
// by input, into a folder that conversion reads (io/activations.h). Moments are large, so that a
// pass over the text records as many inputs as memory allows, in the order of the forward pass.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "evaluate/windows.h"
#include "io/activations.h"
#include "io/storage.h"
#include "runtime/engine.h"

namespace sluice::evaluate {

// How many experts the weight of that name has (1: it is no stack); 0: its input is not wanted.
using WantedExperts = std::function<uint64_t(std::string_view tensor_name)>;

// What recording will take, known before it starts.
struct ActivationPlan {
  io::ActivationManifest manifest;
  std::vector<std::vector<size_t>>
      passes;                 // inputs by pass; those that are there already are in none
  uint64_t memory_bytes = 0;  // of the largest pass
  uint64_t disk_bytes = 0;    // of all inputs
};

// Runs one token to see which products share an input. Inputs whose columns no group divides are
// left out. memory_bytes_max: of the moments of one pass; a single input is recorded whatever it
// takes. Makes the folder, or goes on with it. Errors: the engine's, the storage's,
// kInvalidArgument for a folder of another record.
Result<ActivationPlan> plan_activations(runtime::Engine& engine, std::span<const Window> windows,
                                        const WantedExperts& wanted, uint64_t memory_bytes_max,
                                        const std::string& folder, io::Storage& storage,
                                        const CancelToken* cancel);

// Records what the folder lacks. The same bytes whatever the memory, the threads and the chunks.
// pool: the engine's. progress counts tokens of all passes. Errors: the engine's, the storage's.
Status record_activations(runtime::Engine& engine, std::span<const Window> windows,
                          const ActivationPlan& plan, const std::string& folder,
                          io::Storage& storage, ThreadPool& pool, Progress& progress,
                          const CancelToken* cancel);

// rows · columns values more; packed: room of its own, kept from call to call. Each element of the
// triangle takes the rows in order, in f32.
void add_moments(std::span<const float> values, size_t columns, io::Moments& moments,
                 std::vector<float>& packed, ThreadPool& pool);

}  // namespace sluice::evaluate
