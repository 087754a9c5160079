// Runs windows of text through an engine and scores the tokens that count: perplexity, and against
// a reference KL divergence and agreement on the most likely token.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "evaluate/comparison.h"
#include "evaluate/statistics.h"
#include "evaluate/windows.h"
#include "runtime/engine.h"

namespace sluice::evaluate {

// The rows of a window's scored tokens: log-probabilities of what comes at that place.
// row: 0 … scored − 1. The view is valid during the call.
using OnRow = std::function<Status(size_t row, uint32_t token, std::span<const float> log_probs)>;

// Runs one window from an empty session. Errors: the engine's, and on_row's first.
Status run_window(runtime::Engine& engine, runtime::Session& session, const Window& window,
                  const OnRow& on_row, const CancelToken* cancel);

struct PerplexityRun {
  std::vector<WindowScore> windows;
  Perplexity summary;
};

// progress counts tokens.
Result<PerplexityRun> measure_perplexity(runtime::Engine& engine, std::span<const Window> windows,
                                         Progress& progress, const CancelToken* cancel);

// Where a window's reference rows come from: another engine or a file.
class ReferenceRows {
 public:
  virtual ~ReferenceRows() = default;
  // All scored rows of window `index`, one after another, each `vocabulary` log-probabilities.
  virtual Result<std::vector<float>> rows(size_t index, const CancelToken* cancel) = 0;
  virtual size_t vocabulary() const = 0;
};

// Errors: kInvalidArgument when the two have vocabularies of different size.
Result<Comparison> compare(runtime::Engine& engine, std::span<const Window> windows,
                           ReferenceRows& reference, Progress& progress, const CancelToken* cancel);

}  // namespace sluice::evaluate
