#include "evaluate/self_text.h"

#include <algorithm>
#include <limits>

#include "kernels/layer_ops.h"

namespace sluice::evaluate {
namespace {

using runtime::Sampler;

// A sequence that is being written.
struct Sequence {
  runtime::Session session;
  std::vector<uint32_t> ids;
  // Where its draws are counted from, so that no two sequences share any.
  uint64_t first_draw = 0;
  bool ended = false;
};

class Writer {
 public:
  static Result<Writer> open(runtime::Engine& engine, const SelfTextOptions& options) {
    const size_t vocabulary = engine.info().vocabulary;
    const kernels::LayerOps& ops = kernels::layer_ops(options.simd);
    SLUICE_ASSIGN(Sampler sampler, Sampler::open({.seed = options.seed}, vocabulary, ops));
    runtime::SamplerOptions endless{.seed = options.seed};
    for (const uint32_t end : engine.info().eos)
      if (end < vocabulary)
        endless.logit_bias.push_back({end, -std::numeric_limits<float>::infinity()});
    SLUICE_ASSIGN(Sampler beginner, Sampler::open(std::move(endless), vocabulary, ops));
    return Writer(engine, options, std::move(sampler), std::move(beginner));
  }

  // Sequences [first, first + count), written together. Each is what it would be alone.
  Result<std::vector<Window>> write(size_t first, size_t count, const CancelToken* cancel) {
    std::vector<Sequence> sequences;
    for (size_t i = first; i < first + count; ++i) {
      const uint64_t first_draw = uint64_t{i} * options_.window_tokens;
      SLUICE_ASSIGN(const uint32_t start, start_token(first_draw));
      sequences.push_back({engine_.new_session(), {start}, first_draw});
    }
    while (std::ranges::any_of(sequences, [](const Sequence& s) { return !s.ended; }))
      SLUICE_TRY(draw_next(sequences, cancel));
    std::vector<Window> windows;
    for (Sequence& sequence : sequences) windows.push_back({std::move(sequence.ids), 1});
    return windows;
  }

 private:
  Writer(runtime::Engine& engine, const SelfTextOptions& options, Sampler sampler, Sampler beginner)
      : engine_(engine),
        options_(options),
        sampler_(std::move(sampler)),
        beginner_(std::move(beginner)) {}

  Result<uint32_t> start_token(uint64_t draw) {
    const runtime::ModelInfo& info = engine_.info();
    if (info.bos && *info.bos < info.vocabulary) return *info.bos;
    const auto end =
        std::ranges::find_if(info.eos, [&](uint32_t id) { return id < info.vocabulary; });
    if (end != info.eos.end()) return *end;
    return sampler_.sample(std::vector<float>(info.vocabulary), {}, draw);
  }

  Status draw_next(std::vector<Sequence>& sequences, const CancelToken* cancel) {
    std::vector<runtime::Feed> feeds;
    std::vector<Sequence*> fed;
    for (Sequence& sequence : sequences) {
      if (sequence.ended) continue;
      feeds.push_back({&sequence.session, std::span(sequence.ids).last(1)});
      fed.push_back(&sequence);
    }
    std::vector<uint32_t> drawn;  // feeds view the sequences' ids until the step is over
    Status failed;
    SLUICE_TRY(engine_.step(
        feeds,
        [&](size_t feed, size_t, std::span<const float> logits) {
          const auto token = draw(*fed[feed], logits);
          if (!token) failed = std::unexpected(token.error());
          drawn.push_back(token.value_or(0));
        },
        cancel));
    SLUICE_TRY(std::move(failed));
    for (size_t i = 0; i < fed.size(); ++i) append(*fed[i], drawn[i]);
    return {};
  }

  Result<uint32_t> draw(const Sequence& sequence, std::span<const float> logits) {
    Sampler& sampler = sequence.ids.size() <= kSelfTextTokensMin ? beginner_ : sampler_;
    return sampler.sample(logits, {}, sequence.first_draw + sequence.ids.size());
  }

  void append(Sequence& sequence, uint32_t token) const {
    const std::vector<uint32_t>& ends = engine_.info().eos;
    sequence.ids.push_back(token);
    sequence.ended = std::ranges::find(ends, token) != ends.end() ||
                     sequence.ids.size() == options_.window_tokens;
  }

  runtime::Engine& engine_;
  const SelfTextOptions options_;
  Sampler sampler_, beginner_;
};

}  // namespace

Result<std::vector<Window>> generate_self_text(runtime::Engine& engine,
                                               const SelfTextOptions& options, Progress& progress,
                                               const CancelToken* cancel) {
  SLUICE_CHECK(options.tokens > 0 && options.sessions > 0);
  SLUICE_CHECK(options.window_tokens > kSelfTextTokensMin);
  SLUICE_ASSIGN(Writer writer, Writer::open(engine, options));
  std::vector<Window> windows;
  progress.begin("write text", options.tokens);
  size_t left = options.tokens;
  for (size_t first = 0, count = 0; left > 0; first += count) {
    // No more sequences than it takes when the model ends none of them.
    const size_t full = (left - 1) / (options.window_tokens - 1) + 1;
    count = std::min(options.sessions, full);
    SLUICE_ASSIGN(auto written, writer.write(first, count, cancel));
    for (Window& window : written) {
      const size_t drawn = std::min(left, window.ids.size() - 1);
      if (drawn == 0) break;
      window.ids.resize(drawn + 1);
      progress.advance(drawn);
      left -= drawn;
      windows.push_back(std::move(window));
    }
  }
  progress.end();
  return windows;
}

}  // namespace sluice::evaluate
