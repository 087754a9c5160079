#include "chat/generate.h"

#include <algorithm>
#include <limits>

#include "base/clock.h"
#include "chat/stop_strings.h"

namespace sluice::chat {
namespace {

bool cancelled(const CancelToken* cancel) { return cancel != nullptr && cancel->cancelled(); }

class Generator {
 public:
  Generator(const ChatModel& model, runtime::Session& session, const Choose& choose,
            const GenerateOptions& options, const OnText& on_text, const CancelToken* cancel)
      : model_(model),
        session_(session),
        choose_(choose),
        options_(options),
        on_text_(on_text),
        cancel_(cancel),
        decoder_(model.tokenizer, true, options.shown),
        stops_(options.stops) {}

  Result<Generation> run(std::span<const uint32_t> prompt) {
    SLUICE_TRY(prefill(prompt));
    const Stopwatch watch;
    while (!finished_) SLUICE_TRY(advance());
    result_.decode_s = watch.seconds();
    SLUICE_TRY(flush());
    if (options_.constraint != nullptr) {
      SLUICE_ASSIGN(result_.complete, options_.constraint->may_end());
    }
    return std::move(result_);
  }

 private:
  Status prefill(std::span<const uint32_t> prompt);
  Status advance();
  Status choose_and_take(std::span<float> row, uint32_t* token);
  Status constrain(std::span<float> row);
  Status take(uint32_t token);
  Status show(std::string_view piece);
  Status flush();
  Result<bool> make_room();
  Result<std::vector<uint32_t>> guess();
  void finish(Finish how) {
    finished_ = true;
    result_.finish = how;
  }

  const ChatModel& model_;
  runtime::Session& session_;
  const Choose& choose_;
  const GenerateOptions& options_;
  const OnText& on_text_;
  const CancelToken* cancel_;
  tokenizer::Decoder decoder_;
  StopStrings stops_;
  Generation result_;
  std::vector<uint32_t> tokens_;  // all of the timeline, the chosen one included
  std::vector<float> rows_;       // logits behind the last step's tokens, one row each
  bool finished_ = false;
};

Status Generator::prefill(std::span<const uint32_t> prompt) {
  SLUICE_TRY(check_prompt(prompt, session_.context()));
  result_.prompt_tokens = prompt.size();
  result_.reused_tokens = std::min(session_.common_prefix(prompt), prompt.size() - 1);
  const Stopwatch watch;
  tokens_.assign(prompt.begin(), prompt.end());
  const auto logits = session_.become(prompt, cancel_);
  result_.prefill_s = watch.seconds();
  if (!logits && logits.error().code == ErrorCode::kCancelled) {
    finish(Finish::kCancelled);
    return {};
  }
  if (!logits) return std::unexpected(logits.error());
  rows_.assign(logits->begin(), logits->end());
  uint32_t token = 0;
  return choose_and_take(rows_, &token);
}

Status Generator::choose_and_take(std::span<float> row, uint32_t* token) {
  if (options_.constraint != nullptr) SLUICE_TRY(constrain(row));
  if (finished_) return {};
  SLUICE_ASSIGN(*token, choose_(row, tokens_));
  return take(*token);
}

Status Generator::constrain(std::span<float> row) {
  const Stopwatch watch;
  SLUICE_ASSIGN(const auto mask, options_.constraint->mask(model_.ends));
  forbid(row, mask);
  result_.mask_s += watch.seconds();
  // A model without tokens that end a text ends it where nothing may follow.
  if (std::ranges::all_of(mask, [](uint32_t word) { return word == 0; })) finish(Finish::kEnd);
  return {};
}

// The token was chosen: part of the text, or its end.
Status Generator::take(uint32_t token) {
  const bool may_end = !options_.ignore_end || options_.constraint != nullptr;
  if (may_end && model_.ends_text(token)) {
    finish(Finish::kEnd);
    return {};
  }
  if (options_.constraint != nullptr) SLUICE_TRY(options_.constraint->take(token));
  tokens_.push_back(token);
  ++result_.tokens;
  SLUICE_ASSIGN(const std::string piece, decoder_.push(token));
  SLUICE_TRY(show(stops_.feed(piece)));
  if (stops_.stopped())
    finish(Finish::kStop);
  else if (!finished_ && options_.tokens_max != 0 && result_.tokens >= options_.tokens_max)
    finish(Finish::kLength);
  return {};
}

Status Generator::show(std::string_view piece) {
  if (piece.empty()) return {};
  result_.text += piece;
  if (!on_text_(piece)) finish(Finish::kCancelled);
  return {};
}

Status Generator::flush() {
  if (result_.finish == Finish::kStop) return {};
  SLUICE_ASSIGN(const std::string rest, decoder_.flush());
  SLUICE_TRY(show(stops_.feed(rest)));
  const Finish how = result_.finish;
  SLUICE_TRY(show(stops_.finish()));
  result_.finish = how;
  return {};
}

Result<bool> Generator::make_room() {
  if (session_.size() < session_.context()) return true;
  if (!options_.context_shift) return false;
  SLUICE_ASSIGN(const size_t dropped, session_.shift(options_.keep, 1, cancel_));
  tokens_.erase(tokens_.begin() + static_cast<ptrdiff_t>(options_.keep),
                tokens_.begin() + static_cast<ptrdiff_t>(options_.keep + dropped));
  return true;
}

Result<std::vector<uint32_t>> Generator::guess() {
  if (options_.draft == nullptr) return std::vector<uint32_t>();
  size_t room = session_.context() - session_.size() - 1;
  // The step itself chooses one more than were guessed.
  if (options_.tokens_max != 0) room = std::min(room, options_.tokens_max - result_.tokens - 1);
  const Stopwatch watch;
  auto draft = options_.draft->guess(tokens_, room);
  result_.draft_s += watch.seconds();
  SLUICE_DCHECK(!draft || draft->size() <= room);
  if (draft && options_.constraint != nullptr) {
    SLUICE_ASSIGN(const size_t allowed, options_.constraint->count_allowed(*draft));
    draft->resize(allowed);
  }
  return draft;
}

// Runs the chosen token and what is guessed behind it, and takes what the guess got right.
Status Generator::advance() {
  if (cancelled(cancel_)) {
    finish(Finish::kCancelled);
    return {};
  }
  SLUICE_ASSIGN(const bool room, make_room());
  if (!room) {
    finish(Finish::kContext);
    return {};
  }
  SLUICE_ASSIGN(const std::vector<uint32_t> draft, guess());
  std::vector<uint32_t> feed_tokens = {tokens_.back()};
  feed_tokens.insert(feed_tokens.end(), draft.begin(), draft.end());
  const size_t base = session_.size();
  const runtime::Feed feed{&session_, feed_tokens, feed_tokens.size()};
  rows_.clear();
  const Status stepped =
      model_.engine->step({&feed, 1}, [&](size_t, size_t, std::span<const float> row) {
        rows_.insert(rows_.end(), row.begin(), row.end());
      });
  if (!stepped) return stepped;
  const size_t vocabulary = rows_.size() / feed_tokens.size();
  result_.drafted += draft.size();
  ++result_.steps;
  size_t right = 0;
  for (;; ++right) {
    uint32_t token = 0;
    SLUICE_TRY(choose_and_take(std::span(rows_).subspan(right * vocabulary, vocabulary), &token));
    const bool guessed = right < draft.size() && token == draft[right];
    if (!guessed || finished_) break;
    ++result_.accepted;
  }
  session_.rewind(base + 1 + right);
  return {};
}

}  // namespace

std::string_view finish_name(Finish finish) {
  constexpr std::string_view kNames[] = {"end", "stop", "length", "context", "cancelled"};
  return kNames[static_cast<size_t>(finish)];
}

void forbid(std::span<float> logits, std::span<const uint32_t> mask) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  for (size_t word = 0; word * 32 < logits.size(); ++word) {
    const uint32_t allowed = word < mask.size() ? mask[word] : 0;
    if (allowed == UINT32_MAX) continue;
    const auto part = logits.subspan(word * 32, std::min<size_t>(32, logits.size() - word * 32));
    for (size_t bit = 0; bit < part.size(); ++bit)
      if ((allowed >> bit & 1) == 0) part[bit] = kNever;
  }
}

Status check_prompt(std::span<const uint32_t> prompt, size_t context) {
  if (prompt.empty()) return fail(ErrorCode::kInvalidArgument, "the prompt is empty");
  if (prompt.size() < context) return {};
  return fail(ErrorCode::kInvalidArgument,
              "the prompt has {} tokens and the context holds {}; raise it with --context",
              prompt.size(), context);
}

Result<Generation> generate(const ChatModel& model, runtime::Session& session,
                            std::span<const uint32_t> prompt, const Choose& choose,
                            const GenerateOptions& options, const OnText& on_text,
                            const CancelToken* cancel) {
  return Generator(model, session, choose, options, on_text, cancel).run(prompt);
}

}  // namespace sluice::chat
