// How fast an engine reads a prompt and writes tokens at several context lengths and batch sizes,
// as medians over repetitions, beside what the machine's memory could deliver.
#pragma once

#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "runtime/engine.h"

namespace sluice::evaluate {

struct ThroughputOptions {
  std::vector<size_t> prompts = {512};  // prefill lengths, from an empty session
  std::vector<size_t> depths = {0};     // tokens in the session before decoding starts
  std::vector<size_t> batches = {1};    // sequences that decode together
  size_t decode_tokens = 128;
  size_t repetitions = 5;
};

struct Throughput {
  enum class Kind : uint8_t { kPrefill, kDecode };
  Kind kind = Kind::kPrefill;
  size_t tokens = 0;  // of the prompt, or decoded
  size_t depth = 0, batch = 1;
  std::vector<double> seconds;    // of each repetition
  double tokens_per_s = 0;        // of the median, all sequences together
  uint64_t read_bytes_token = 0;  // decode: weights read for one step, and the sequence's own keys
  // Decode with all weights in memory; 0 otherwise. Medians: after each repetition as many threads
  // read the weights where they lie, twice, without computing; the faster time is what the memory
  // would have allowed then.
  double memory_bytes_s = 0;
  double share_of_memory = 0;  // what a step reads, at that rate, over the time of the step
  // Prefill on a processor with all weights in memory; 0 otherwise. Median; what multiplying alone
  // would have taken, measured after each repetition, over the time that it took.
  double share_of_peak = 0;
  // Where weights come from disk. Medians; after each repetition the same reads are done once more
  // without computing, which is what the disk would have allowed.
  double disk_bytes_step = 0;
  double hit_rate = 0;  // of experts asked for; 0 where there are none
  double limit_s = 0;   // of those reads; 0: none
  double share_of_limit = 0;
  double cpu_s_step = 0;  // of all threads
};

// Besides what the engine holds, a repetition's reads are noted where weights come from disk: some
// hundred bytes for each. progress counts tokens. A first unmeasured token loads what is lazy.
// Tokens are arbitrary but fixed. Errors: the engine's, kExhausted when a length exceeds the
// context.
Result<std::vector<Throughput>> measure_throughput(runtime::Engine& engine,
                                                   const ThroughputOptions& options,
                                                   Progress& progress, const CancelToken* cancel);

}  // namespace sluice::evaluate
