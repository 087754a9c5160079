#include "evaluate/choices.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"

namespace sluice::evaluate {
namespace {

constexpr int64_t kChoicesMax = 64;

Result<Question> parse_question(const Json& json, const std::string& label) {
  Question question;
  SLUICE_ASSIGN(question.context, json_string(json, "context", label));
  if (json_find(json, "target") != nullptr) {
    SLUICE_ASSIGN(question.choices.emplace_back(), json_string(json, "target", label));
    question.exact = true;
    return question;
  }
  SLUICE_ASSIGN(const Json* choices, json_array(json, "choices", label));
  for (const Json& choice : *choices) {
    if (!choice.is_string())
      return fail(ErrorCode::kCorrupt, "{}: choices holds something that is no text", label);
    question.choices.push_back(choice.get<std::string>());
  }
  const int64_t count = static_cast<int64_t>(question.choices.size());
  if (count < 2 || count > kChoicesMax)
    return fail(ErrorCode::kCorrupt, "{}: {} choices; 2 to {} are understood", label, count,
                kChoicesMax);
  SLUICE_ASSIGN(const int64_t answer, json_int(json, "answer", 0, count - 1, label));
  question.answer = static_cast<size_t>(answer);
  return question;
}

// Context and continuation as tokens; begin is where the continuation starts, at least 1.
struct Continuation {
  std::vector<uint32_t> ids;
  size_t begin = 1;
};

Result<Continuation> tokenize(const Encode& encode, const std::string& context,
                              const std::string& choice) {
  Continuation result;
  SLUICE_ASSIGN(result.ids, encode(context + choice, true));
  SLUICE_ASSIGN(const std::vector<uint32_t> before, encode(context, true));
  result.begin = std::clamp<size_t>(before.size(), 1, std::max<size_t>(1, result.ids.size() - 1));
  if (result.ids.size() < 2)
    return fail(ErrorCode::kInvalidArgument, "a question of fewer than two tokens: \"{}\"",
                context + choice);
  return result;
}

struct Likelihood {
  double log_prob = 0;
  bool greedy = true;  // every token was the most likely one
};

Result<Likelihood> score(runtime::Engine& engine, runtime::Session& session,
                         const Continuation& text, const CancelToken* cancel) {
  Likelihood result;
  std::vector<float> row;
  // What this question shares with the one before is kept: choices share their context.
  const std::span<const uint32_t> inputs = std::span(text.ids).first(text.ids.size() - 1);
  session.rewind(std::min(session.common_prefix(inputs), text.begin - 1));
  const runtime::Feed feed{&session, inputs.subspan(session.size()), text.ids.size() - text.begin};
  const size_t base = session.size();
  SLUICE_TRY(engine.step(
      {&feed, 1},
      [&](size_t, size_t token, std::span<const float> logits) {
        row.assign(logits.begin(), logits.end());
        const uint32_t next = text.ids[base + token + 1];
        result.greedy &= largest(row) == next;
        result.log_prob -= negative_log_likelihood(row, next);
      },
      cancel));
  return result;
}

struct Tally {
  size_t plain = 0, normalized = 0;
  std::vector<double> nats;
};

Status ask(runtime::Engine& engine, runtime::Session& session, const Encode& encode,
           const Question& question, Tally& tally, const CancelToken* cancel) {
  std::vector<Likelihood> found;
  std::vector<double> sums, rates;
  for (const std::string& choice : question.choices) {
    SLUICE_ASSIGN(const Continuation text, tokenize(encode, question.context, choice));
    SLUICE_ASSIGN(found.emplace_back(), score(engine, session, text, cancel));
    sums.push_back(found.back().log_prob);
    rates.push_back(sums.back() / static_cast<double>(std::max<size_t>(1, choice.size())));
  }
  const auto best = [](const std::vector<double>& values) {
    return static_cast<size_t>(std::ranges::max_element(values) - values.begin());
  };
  const bool exact_hit = question.exact && found.front().greedy;
  tally.plain += question.exact ? exact_hit : best(sums) == question.answer;
  tally.normalized += question.exact ? exact_hit : best(rates) == question.answer;
  tally.nats.push_back(-sums[question.answer]);
  return {};
}

}  // namespace

Result<std::vector<Question>> parse_questions(std::string_view text, std::string_view label) {
  std::vector<Question> questions;
  for (size_t line = 1; !text.empty(); ++line) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view row = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (row.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = fmt::format("{}, line {}", label, line);
    SLUICE_ASSIGN(const Json json, parse_json(row, where));
    SLUICE_ASSIGN(questions.emplace_back(), parse_question(json, where));
  }
  if (questions.empty()) return fail(ErrorCode::kCorrupt, "{}: no questions in it", label);
  return questions;
}

Result<Accuracy> measure_accuracy(runtime::Engine& engine, const Encode& encode,
                                  const std::vector<Question>& questions, Progress& progress,
                                  const CancelToken* cancel) {
  runtime::Session session = engine.new_session();
  Tally tally;
  progress.begin("evaluate", questions.size());
  for (const Question& question : questions) {
    SLUICE_TRY(ask(engine, session, encode, question, tally, cancel));
    progress.advance(1);
  }
  progress.end();
  return Accuracy{proportion(tally.plain, questions.size()),
                  proportion(tally.normalized, questions.size()), mean_of(tally.nats),
                  questions.size()};
}

}  // namespace sluice::evaluate
