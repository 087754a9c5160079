// From a prompt to text, token by token: prefill, choosing under a constraint, stop strings,
// incremental decoding, speculation. Which token is chosen is the caller's business.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/thread.h"
#include "chat/chat_model.h"
#include "chat/choose.h"
#include "chat/draft.h"
#include "tokenizer/constraint.h"

namespace sluice::chat {

// What can be shown now: whole characters, nothing of a stop string. False ends the generation.
using OnText = std::function<bool(std::string_view text)>;

struct GenerateOptions {
  size_t tokens_max = 0;  // 0: until the model ends its text or the context is full
  std::vector<std::string> stops;
  bool ignore_end = false;     // goes on behind the tokens that end a text
  bool context_shift = false;  // drops the oldest half when the context is full
  size_t keep = 0;             // tokens from the start that shifting keeps
  Draft* draft = nullptr;      // guesses ahead; null: nothing does
  // What the text has to be, at its beginning; what is generated is taken. Null: anything. With
  // one, the text ends where it may, ignore_end or not, and guesses that it forbids are dropped.
  tokenizer::Constraint* constraint = nullptr;
  std::vector<uint32_t> shown = {};  // special tokens that have text all the same
};

enum class Finish : uint8_t { kEnd, kStop, kLength, kContext, kCancelled };
std::string_view finish_name(Finish finish);  // "end", "stop", "length", "context", "cancelled"

struct Generation {
  std::string text;  // all that was shown
  Finish finish = Finish::kEnd;
  size_t prompt_tokens = 0;
  size_t reused_tokens = 0;  // of the prompt, already in the session
  size_t tokens = 0;         // generated, the one that ended the text not counted
  size_t steps = 0;          // behind the prompt's: one for each token without a draft
  size_t drafted = 0, accepted = 0;
  double prefill_s = 0, decode_s = 0;
  double draft_s = 0;    // of decode_s
  double mask_s = 0;     // of decode_s, and of the first token's: the constraint's
  bool complete = true;  // false: cut off before it was all that the constraint wants
};

// Logits of what the mask (tokenizer::Constraint::mask) forbids become −∞.
void forbid(std::span<float> logits, std::span<const uint32_t> mask);

// Whether there is a prompt, and room for an answer behind it: else kInvalidArgument.
Status check_prompt(std::span<const uint32_t> prompt, size_t context);

// The session becomes prompt and answer; what it has in common with the prompt is not run again.
// After cancellation, as after every finish, it holds whole tokens and can be gone on with.
// Errors: check_prompt's; the engine's.
Result<Generation> generate(const ChatModel& model, runtime::Session& session,
                            std::span<const uint32_t> prompt, const Choose& choose,
                            const GenerateOptions& options, const OnText& on_text,
                            const CancelToken* cancel);

}  // namespace sluice::chat
