// A model's windows held against a reference's: sums of each window, what they come to, and how two
// models differ on the same windows. Also as JSON, so that scores outlive the models. Numbers only;
// score.h runs the models.
#pragma once

#include <span>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "evaluate/statistics.h"

namespace sluice::evaluate {

// Sums over a window's scored tokens, at least one. Nats.
struct ComparedWindow {
  size_t tokens = 0;
  size_t agreed = 0;  // the same most likely token
  double model_nll = 0, reference_nll = 0;
  double kl = 0;  // KL(reference ‖ model)
  bool operator==(const ComparedWindow&) const = default;
};

// Of single tokens' KL divergence, which sums of windows do not tell. Nats.
struct KlSpread {
  double median = 0, p99 = 0, max = 0;
  bool operator==(const KlSpread&) const = default;
};

// Intervals of kl, as of perplexities, come from the spread of windows: tokens of one window are
// not independent.
struct Comparison {
  std::vector<ComparedWindow> windows;
  KlSpread spread;
  Perplexity model, reference;
  Estimate kl;         // nats, mean over tokens
  Estimate agreement;  // share of tokens
};
// windows: at least one.
Comparison summarize_comparison(std::vector<ComparedWindow> windows, const KlSpread& spread);

// First less second, mean over tokens, with the interval of the differences window by window: what
// both find hard does not widen it. Nats.
struct PairedDifference {
  Estimate kl;
  Estimate nll;
};
// Of the same windows, at least one.
PairedDifference paired_difference(std::span<const ComparedWindow> first,
                                   std::span<const ComparedWindow> second);

// docs/formats.md#scores-of-a-comparison: windows and spread, to the last bit.
Json comparison_json(const Comparison& comparison);
// Errors: kCorrupt, naming label, for anything that comparison_json() does not write.
Result<Comparison> parse_comparison(const Json& json, std::string_view label);

}  // namespace sluice::evaluate
