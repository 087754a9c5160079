#include "chat/draft.h"

#include <algorithm>

#include "chat/ngram_draft.h"

namespace sluice::chat {
namespace {

class LookupDraft : public Draft {
 public:
  explicit LookupDraft(size_t tokens_max) : tokens_max_(tokens_max) {}
  Result<std::vector<uint32_t>> guess(std::span<const uint32_t> tokens, size_t count) override {
    const auto found = ngram_draft(tokens, std::min(count, tokens_max_));
    return std::vector<uint32_t>(found.begin(), found.end());
  }

 private:
  const size_t tokens_max_;
};

class ModelDraft : public Draft {
 public:
  ModelDraft(runtime::Session session, Choose choose, size_t tokens_max)
      : session_(std::move(session)), choose_(std::move(choose)), tokens_max_(tokens_max) {}

  Result<std::vector<uint32_t>> guess(std::span<const uint32_t> tokens, size_t count) override {
    std::vector<uint32_t> guessed;
    count = std::min(count, tokens_max_);
    if (count == 0 || tokens.size() > session_.context()) return guessed;
    // The last guess is chosen, not run.
    count = std::min(count, session_.context() - tokens.size() + 1);
    std::vector<uint32_t> text(tokens.begin(), tokens.end());
    // What was guessed right is there already; the rest of the last guess goes.
    SLUICE_ASSIGN(auto logits, session_.become(text));
    while (true) {
      SLUICE_ASSIGN(const uint32_t token, choose_(logits, text));
      guessed.push_back(token);
      if (guessed.size() == count) return guessed;
      text.push_back(token);
      SLUICE_ASSIGN(logits, session_.append({&token, 1}));
    }
  }

 private:
  runtime::Session session_;
  const Choose choose_;
  const size_t tokens_max_;
};

}  // namespace

std::unique_ptr<Draft> lookup_draft(size_t tokens_max) {
  return std::make_unique<LookupDraft>(tokens_max);
}

std::unique_ptr<Draft> model_draft(runtime::Session session, Choose choose, size_t tokens_max) {
  return std::make_unique<ModelDraft>(std::move(session), std::move(choose), tokens_max);
}

Status check_same_vocabulary(const ChatModel& model, runtime::Engine& draft) {
  SLUICE_ASSIGN(const std::string mine, model.engine->sidecar("tokenizer.json"));
  SLUICE_ASSIGN(const std::string its, draft.sidecar("tokenizer.json"));
  const std::string& path = draft.info().path;
  if (mine != its) {
    SLUICE_ASSIGN(const auto other, tokenizer::Tokenizer::open({.tokenizer = its}));
    const size_t size = model.tokenizer.vocab_size();
    if (other.vocab_size() != size)
      return fail(ErrorCode::kInvalidArgument,
                  "{} cannot guess for {}: its vocabulary has {} tokens, the other's {}", path,
                  model.engine->info().path, other.vocab_size(), size);
    for (size_t id = 0; id < size; ++id) {
      const auto ours = model.tokenizer.token(static_cast<uint32_t>(id));
      const auto theirs = other.token(static_cast<uint32_t>(id));
      if (ours.has_value() == theirs.has_value() && (!ours || *ours == *theirs)) continue;
      return fail(ErrorCode::kInvalidArgument,
                  "{} cannot guess for {}: its token {} is \"{}\", the other's \"{}\"", path,
                  model.engine->info().path, id, theirs.value_or(""), ours.value_or(""));
    }
  }
  if (draft.info().vocabulary >= model.tokenizer.vocab_size()) return {};
  return fail(ErrorCode::kInvalidArgument,
              "{} cannot guess for {}: it has logits for {} tokens of a vocabulary of {}", path,
              model.engine->info().path, draft.info().vocabulary, model.tokenizer.vocab_size());
}

}  // namespace sluice::chat
