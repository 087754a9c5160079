// What guesses ahead of a model, so that it checks several tokens in one step: weights, and experts
// that several of the tokens chose, are read once for all of them. A guess is right when it is what
// the model itself chooses there; so guesses cost or save time, and never change the text.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "chat/chat_model.h"
#include "chat/choose.h"

namespace sluice::chat {

// One thread.
class Draft {
 public:
  virtual ~Draft() = default;
  // What may follow these tokens, which are at least one: at most count of them, or none. Errors: a
  // draft model's.
  virtual Result<std::vector<uint32_t>> guess(std::span<const uint32_t> tokens, size_t count) = 0;
};

// What followed the same tokens earlier in the text (chat/ngram_draft.h).
std::unique_ptr<Draft> lookup_draft(size_t tokens_max);

// What a smaller model writes. It should choose as the large one does, by the same seed: then both
// draw the same random numbers, and agree wherever their probabilities nearly do. Its context may
// be shorter; where the text is longer it guesses nothing.
std::unique_ptr<Draft> model_draft(runtime::Session session, Choose choose, size_t tokens_max);

// Whether every token has the same number in both: kInvalidArgument naming the first that has not.
Status check_same_vocabulary(const ChatModel& model, runtime::Engine& draft);

}  // namespace sluice::chat
