#include "evaluate/score.h"

#include <algorithm>

namespace sluice::evaluate {
namespace {

uint64_t token_count(std::span<const Window> windows) {
  uint64_t total = 0;
  for (const Window& window : windows) total += window.ids.size();
  return total;
}

// Sums of a comparison, token by token.
struct Sums {
  std::vector<WindowScore> reference_windows;
  std::vector<double> kl;
  size_t agreed = 0;

  void add(uint32_t token, std::span<const float> log_p, std::span<const float> log_q) {
    reference_windows.back().nll_sum -= static_cast<double>(log_p[token]);
    ++reference_windows.back().tokens;
    // Rounding of what is stored can make it negative by a hair.
    kl.push_back(std::max(0.0, kl_divergence(log_p, log_q)));
    agreed += largest(log_p) == largest(log_q);
  }
};

Comparison summarize_comparison(std::vector<WindowScore> model, const Sums& sums) {
  Comparison result;
  result.model.summary = summarize(model);
  result.model.windows = std::move(model);
  result.reference = summarize(sums.reference_windows);
  result.kl = mean_of(sums.kl);
  result.kl_median = quantile(sums.kl, 0.5);
  result.kl_p99 = quantile(sums.kl, 0.99);
  result.kl_max = quantile(sums.kl, 1);
  result.agreement = proportion(sums.agreed, sums.kl.size());
  return result;
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
  std::vector<WindowScore> scores;
  Sums sums;
  runtime::Session session = engine.new_session();
  progress.begin("evaluate", token_count(windows));
  for (size_t index = 0; index < windows.size(); ++index) {
    SLUICE_ASSIGN(const std::vector<float> rows, reference.rows(index, cancel));
    WindowScore& score = scores.emplace_back();
    sums.reference_windows.emplace_back();
    SLUICE_TRY(run_window(
        engine, session, windows[index],
        [&](size_t row, uint32_t token, std::span<const float> log_q) -> Status {
          score.nll_sum -= static_cast<double>(log_q[token]);
          ++score.tokens;
          sums.add(token, std::span(rows).subspan(row * vocabulary, vocabulary), log_q);
          return {};
        },
        cancel));
    progress.advance(windows[index].ids.size());
  }
  progress.end();
  return summarize_comparison(std::move(scores), sums);
}

}  // namespace sluice::evaluate
