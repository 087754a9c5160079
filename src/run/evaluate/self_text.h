// Text that a model writes by itself, as windows to measure it on where nobody gave a text: drawn
// from its own distribution, so that what is measured is weighted as the model weighs it, and no
// data is needed.
#pragma once

#include <vector>

#include "base/cpu.h"
#include "base/error.h"
#include "base/log.h"
#include "evaluate/windows.h"
#include "runtime/engine.h"

namespace sluice::evaluate {

struct SelfTextOptions {
  size_t tokens = 4096;        // drawn, of all sequences together
  size_t window_tokens = 256;  // the most of a sequence, with the token that it begins with
  size_t sessions = 8;         // sequences that are written together; the result is the same
  uint64_t seed = 1;
  SimdLevel simd = SimdLevel::kScalar;  // one that the processor offers
};

// A sequence that ended before so many drawn tokens would be little to measure on: ends are not
// drawn earlier.
inline constexpr size_t kSelfTextTokensMin = 16;

// Sequences drawn at temperature 1, each from the token that begins a text: bos where the model has
// one, else what ends its texts (and stands between them in training), else one at random. A
// sequence ends where the model ends it or its window is full; the last one is cut so that
// `tokens` were drawn in all. All but the first token of a window are scored. The same model,
// options and seed give the same text on every machine, however many sessions there are.
// Requires: engine opened for `sessions` sessions of window_tokens; tokens and sessions > 0;
// window_tokens > kSelfTextTokensMin. progress counts tokens. Errors: the engine's.
Result<std::vector<Window>> generate_self_text(runtime::Engine& engine,
                                               const SelfTextOptions& options, Progress& progress,
                                               const CancelToken* cancel);

}  // namespace sluice::evaluate
