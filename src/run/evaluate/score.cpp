#include "evaluate/score.h"

#include <algorithm>

namespace sluice::evaluate {
namespace {

uint64_t token_count(std::span<const Window> windows) {
  uint64_t total = 0;
  for (const Window& window : windows) total += window.ids.size();
  return total;
}

void add_token(ComparedWindow& window, uint32_t token, std::span<const float> log_p,
               std::span<const float> log_q, double kl) {
  ++window.tokens;
  window.agreed += largest(log_p) == largest(log_q);
  window.reference_nll -= static_cast<double>(log_p[token]);
  window.model_nll -= static_cast<double>(log_q[token]);
  window.kl += kl;
}

KlSpread spread_of(const std::vector<double>& kl) {
  return {quantile(kl, 0.5), quantile(kl, 0.99), quantile(kl, 1)};
}

}  // namespace

Status run_window(runtime::Engine& engine, runtime::Session& session, const Window& window,
                  const OnRow& on_row, const CancelToken* cancel) {
  SLUICE_CHECK(window.first_scored > 0 && window.first_scored < window.ids.size());
  session.rewind(0);
  const size_t scored = window.ids.size() - window.first_scored;
  const runtime::Feed feed{&session, std::span(window.ids).first(window.ids.size() - 1), scored};
  Status failed;
  std::vector<float> row;
  SLUICE_TRY(engine.step(
      {&feed, 1},
      [&](size_t, size_t token, std::span<const float> logits) {
        if (!failed) return;
        row.assign(logits.begin(), logits.end());
        log_softmax(row);
        failed = on_row(token + 1 - window.first_scored, window.ids[token + 1], row);
      },
      cancel));
  return failed;
}

Result<PerplexityRun> measure_perplexity(runtime::Engine& engine, std::span<const Window> windows,
                                         Progress& progress, const CancelToken* cancel) {
  PerplexityRun run;
  runtime::Session session = engine.new_session();
  progress.begin("evaluate", token_count(windows));
  for (const Window& window : windows) {
    WindowScore& score = run.windows.emplace_back();
    SLUICE_TRY(run_window(
        engine, session, window,
        [&](size_t, uint32_t token, std::span<const float> log_probs) -> Status {
          score.nll_sum -= static_cast<double>(log_probs[token]);
          ++score.tokens;
          return {};
        },
        cancel));
    progress.advance(window.ids.size());
  }
  progress.end();
  run.summary = summarize(run.windows);
  return run;
}

Result<Comparison> compare(runtime::Engine& engine, std::span<const Window> windows,
                           ReferenceRows& reference, Progress& progress,
                           const CancelToken* cancel) {
  const size_t vocabulary = engine.info().vocabulary;
  if (reference.vocabulary() != vocabulary)
    return fail(ErrorCode::kInvalidArgument,
                "the reference scores {} tokens at each place, the model {}; they must share a "
                "vocabulary",
                reference.vocabulary(), vocabulary);
  std::vector<ComparedWindow> compared;
  std::vector<double> kl;  // of every token
  runtime::Session session = engine.new_session();
  progress.begin("evaluate", token_count(windows));
  for (size_t index = 0; index < windows.size(); ++index) {
    SLUICE_ASSIGN(const std::vector<float> rows, reference.rows(index, cancel));
    ComparedWindow& sums = compared.emplace_back();
    SLUICE_TRY(run_window(
        engine, session, windows[index],
        [&](size_t row, uint32_t token, std::span<const float> log_q) -> Status {
          const auto log_p = std::span(rows).subspan(row * vocabulary, vocabulary);
          kl.push_back(kl_divergence(log_p, log_q));
          add_token(sums, token, log_p, log_q, kl.back());
          return {};
        },
        cancel));
    progress.advance(windows[index].ids.size());
  }
  progress.end();
  return summarize_comparison(std::move(compared), spread_of(kl));
}

}  // namespace sluice::evaluate
