// `sluice bench` with something that guesses ahead: the same text with and without it.
#pragma once

#include "cli/drafting.h"

namespace sluice::cli {

struct DraftBench {
  std::string draft;                                // "lookup", or the draft model's path
  size_t tokens = 0;                                // of the text
  double plain_tokens_per_s = 0, tokens_per_s = 0;  // medians
  double plain_disk_bytes_token = 0, disk_bytes_token = 0;
  size_t steps = 0, drafted = 0, accepted = 0;  // of one text
  double draft_share = 0;                       // of the time, guessing
};

// Continues a short English text greedily, repetitions times each, alternating. kCorrupt where both
// texts differ, which would be a fault of ours.
Result<DraftBench> bench_draft(Context& context, const chat::ChatModel& model,
                               const DraftArguments& arguments, Drafting& drafting, size_t tokens,
                               size_t repetitions);
std::string draft_bench_text(const DraftBench& found);
Json draft_bench_json(const DraftBench& found);

}  // namespace sluice::cli
