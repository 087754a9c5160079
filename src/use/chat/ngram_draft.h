// Drafts by looking the last tokens up in what came before (prompt lookup, Saxena 2023): text that
// repeats itself, as code and quotations do, is proposed without a second model. Header only.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace sluice::chat {

struct NgramOptions {
  size_t match_min = 2;  // tokens that must agree, at least 1
  size_t match_max = 4;  // agreement beyond this is not preferred
};

// What followed the longest match of the last tokens earlier on, the latest of equally long ones;
// a view into tokens of at most draft_max, empty if nothing matches. A match may overlap the end,
// so that a run of one token goes on. Costs one pass back over tokens.
inline std::span<const uint32_t> ngram_draft(std::span<const uint32_t> tokens, size_t draft_max,
                                             const NgramOptions& options = {}) {
  const size_t size = tokens.size();
  size_t best_length = 0, best_end = 0;
  // end: one past the match, which is the draft's first token.
  for (size_t end = size - std::min<size_t>(size, 1); end > 0; --end) {
    size_t length = 0;
    while (length < std::min(options.match_max, end) &&
           tokens[end - 1 - length] == tokens[size - 1 - length])
      ++length;
    if (length <= best_length) continue;
    best_length = length;
    best_end = end;
    if (length == options.match_max) break;
  }
  if (best_length == 0 || best_length < options.match_min) return {};
  return tokens.subspan(best_end, std::min(draft_max, size - best_end));
}

}  // namespace sluice::chat
