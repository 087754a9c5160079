#include "tokenizer/constraint.h"

#include <algorithm>

#include "base/json.h"
#include "tokenizer/crate_text.h"

namespace sluice::tokenizer {
namespace {

constexpr std::string_view kAnyObject = R"({"type": "object"})";

std::string_view kind_name(uint32_t kind) {
  switch (kind) {
    case kMatcherSchema: return "the JSON schema";
    case kMatcherRegex: return "the regular expression";
    default: return "the grammar";
  }
}

Status status(const CrateText& text, int32_t code) {
  if (auto result = text.result(code); !result) return std::unexpected(std::move(result).error());
  return {};
}

}  // namespace

void Constraint::Free::operator()(SluiceMatcher* matcher) const { sluice_matcher_free(matcher); }

Result<Constraint> Constraint::open(const Tokenizer& tokenizer, uint32_t kind,
                                    std::string_view text) {
  SluiceMatcher* matcher = nullptr;
  CrateText error;
  const int32_t code =
      sluice_matcher_open(tokenizer.handle_.get(), kind, as_bytes(text), &matcher, error.out());
  if (auto opened = status(error, code); !opened)
    return in_context(kind_name(kind), std::move(opened).error());
  return Constraint(matcher);
}

Result<Constraint> Constraint::json_schema(const Tokenizer& tokenizer, std::string_view schema) {
  return open(tokenizer, kMatcherSchema, schema);
}

Result<Constraint> Constraint::json_object(const Tokenizer& tokenizer) {
  return open(tokenizer, kMatcherSchema, kAnyObject);
}

Result<Constraint> Constraint::regex(const Tokenizer& tokenizer, std::string_view expression) {
  return open(tokenizer, kMatcherRegex, expression);
}

Result<Constraint> Constraint::lark(const Tokenizer& tokenizer, std::string_view grammar) {
  return open(tokenizer, kMatcherLark, grammar);
}

Result<Constraint> Constraint::choices(const Tokenizer& tokenizer,
                                       std::span<const std::string> texts) {
  if (texts.empty()) return fail(ErrorCode::kInvalidArgument, "there is nothing to choose from");
  std::string grammar = "start: ";
  for (const std::string& text : texts) {
    if (text.empty())
      return fail(ErrorCode::kInvalidArgument, "what is chosen from should not be empty");
    if (&text != texts.data()) grammar += " | ";
    grammar += dump_json(Json(text));
  }
  return lark(tokenizer, grammar);
}

Result<Constraint> Constraint::clone() const {
  SluiceMatcher* copy = nullptr;
  CrateText error;
  SLUICE_TRY(status(error, sluice_matcher_clone(handle_.get(), &copy, error.out())));
  Constraint constraint(copy);
  if (trigger_ != nullptr) {
    SLUICE_ASSIGN(constraint.trigger_, trigger_->clone());
  }
  return constraint;
}

Constraint Constraint::after(std::unique_ptr<Trigger> trigger, Constraint held) {
  held.trigger_ = std::move(trigger);
  return held;
}

Result<std::span<const uint32_t>> Constraint::mask(std::span<const uint32_t> ends) {
  mask_.resize(sluice_matcher_words(handle_.get()));
  bool may_end = trigger_ != nullptr;
  CrateText error;
  if (trigger_ != nullptr)
    std::ranges::fill(mask_, UINT32_MAX);
  else
    SLUICE_TRY(
        status(error, sluice_matcher_mask(handle_.get(), mask_.data(), &may_end, error.out())));
  if (!may_end) return std::span<const uint32_t>(mask_);
  for (const uint32_t end : ends) {
    // A model may end its text by an id that the tokenizer's files do not have.
    if (end / 32 >= mask_.size()) mask_.resize(end / 32 + 1);
    mask_[end / 32] |= 1u << end % 32;
  }
  return std::span<const uint32_t>(mask_);
}

Status Constraint::take(uint32_t token) {
  if (trigger_ != nullptr) {
    // Without its trigger, `this` is what is held.
    std::unique_ptr<Trigger> trigger = std::move(trigger_);
    SLUICE_ASSIGN(const bool holds, trigger->take(token, *this));
    if (!holds) trigger_ = std::move(trigger);
    return {};
  }
  CrateText error;
  return status(error, sluice_matcher_take(handle_.get(), token, error.out()));
}

Status Constraint::take_text(std::string_view text) {
  CrateText error;
  return status(error, sluice_matcher_take_text(handle_.get(), as_bytes(text), error.out()));
}

Result<size_t> Constraint::count_allowed(std::span<const uint32_t> tokens) {
  if (tokens.empty() || trigger_ != nullptr) return tokens.size();
  size_t allowed = 0;
  CrateText error;
  SLUICE_TRY(status(error, sluice_matcher_count(handle_.get(), tokens.data(), tokens.size(),
                                                &allowed, error.out())));
  return allowed;
}

Result<bool> Constraint::may_end() {
  if (trigger_ != nullptr) return true;
  bool may_end = false;
  CrateText error;
  SLUICE_TRY(status(error, sluice_matcher_may_end(handle_.get(), &may_end, error.out())));
  return may_end;
}

}  // namespace sluice::tokenizer
