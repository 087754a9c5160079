// Several outputs of one model side by side: size against KL divergence and perplexity, as one
// self-contained page or a drawing. From plain figures that the caller measured.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "report/input.h"

namespace sluice::report {

// A figure and its 95 % interval.
struct Interval {
  double mean = 0, low = 0, high = 0;
};

struct ComparedOutput {
  std::string name, storage;  // as its files say: "MLX 4/64"
  uint64_t bytes = 0;         // of weight files
  double bits_per_weight = 0;
  Interval kl;  // nats, from the reference
  double kl_p99 = 0;
  Interval perplexity, agreement;  // share of tokens
};

struct ComparisonInput {
  std::string name;  // of the reference
  Interval reference_perplexity;
  std::vector<ComparedOutput> outputs;  // at least one
  // [row][column]: divergence of output row less that of output column, paired.
  std::vector<std::vector<Interval>> differences;
  std::vector<Fact> origin;
  std::string tool;
};

std::string comparison_page(const ComparisonInput& input);
// A whole SVG document: KL divergence against size.
std::string comparison_document(const ComparisonInput& input);

}  // namespace sluice::report
