// Accuracy on questions with given answers, by likelihood: the model picks the continuation it
// finds most likely. One JSON object a line: {"context", "choices": [...], "answer": index} in
// MMLU's manner, or {"context", "target"} in LAMBADA's, where every token of the target must be the
// most likely one.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "evaluate/statistics.h"
#include "runtime/engine.h"

namespace sluice::evaluate {

struct Question {
  std::string context;
  std::vector<std::string> choices;  // one for a target
  size_t answer = 0;
  bool exact = false;  // LAMBADA's manner
};

// label names the file in errors, with the line. Errors: kCorrupt.
Result<std::vector<Question>> parse_questions(std::string_view text, std::string_view label);

struct Accuracy {
  Estimate plain;        // by the sum of log-probabilities
  Estimate normalized;   // by the sum over the continuation's bytes; equal to plain for targets
  Estimate target_nats;  // of the right continuation, per question
  size_t questions = 0;
};

// Tokens of a text; special tokens of the tokenizer's own at its start where wanted.
using Encode = std::function<Result<std::vector<uint32_t>>(std::string_view text, bool with_bos)>;

// A question's tokens: those of context and choice encoded together are cut where the context's own
// end, so that words are not split otherwise than in running text. progress counts questions.
// Errors: the engine's; kInvalidArgument when a question exceeds the context.
Result<Accuracy> measure_accuracy(runtime::Engine& engine, const Encode& encode,
                                  const std::vector<Question>& questions, Progress& progress,
                                  const CancelToken* cancel);

}  // namespace sluice::evaluate
