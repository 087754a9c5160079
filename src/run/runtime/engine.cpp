// Steps: feeds cut into chunks of rows, chunks run through the model, results handed out.
#include <algorithm>
#include <cmath>

#include "runtime/engine_state.h"
#include "runtime/product_peak.h"

namespace sluice::runtime {

using model::Segment;

// Rows of a chunk whose results are handed out, and whose they are.
struct Engine::Results {
  struct Wanted {
    size_t feed = 0, token = 0;
  };
  std::vector<uint32_t> rows;
  std::vector<Wanted> wanted;
};

// The part of a step that goes through the model together.
struct Engine::Chunk {
  struct Part {
    size_t feed = 0, first_token = 0, rows = 0;  // of that feed's tokens
    size_t again = 0;                            // rows before these, of tokens that were there
    Session::State* session = nullptr;
  };
  std::vector<Part> parts;
  std::vector<uint32_t> tokens;
  std::vector<Segment> segments;
  std::vector<KvSequence*> sequences;
  std::vector<const StateStep*> states;
  Results logits, hidden;

  // As many rows of it as are free, at least one. Room for them is taken; errors: there is none.
  Status add(size_t index, const Feed& feed, size_t first_token, size_t rows_free) {
    Session::State& session = *feed.session->state_;
    const size_t at = session.kv.size(), lag = session.tokens.size() - at;
    const size_t again = std::min(lag, rows_free);
    const size_t rows = std::min(rows_free - again, feed.tokens.size() - first_token);
    const auto first_row = static_cast<uint32_t>(tokens.size());
    segments.push_back({model::Sequence{static_cast<uint32_t>(parts.size())}, first_row,
                        static_cast<uint32_t>(again + rows), static_cast<uint32_t>(at)});
    parts.push_back({index, first_token, rows, again, &session});
    sequences.push_back(&session.kv);
    states.push_back(&session.state.step());
    tokens.insert(tokens.end(), session.tokens.begin() + static_cast<ptrdiff_t>(at),
                  session.tokens.begin() + static_cast<ptrdiff_t>(at + again));
    const size_t wanted_from = feed.tokens.size() - feed.logits_count;
    for (size_t i = first_token; i < first_token + rows; ++i) {
      if (i >= wanted_from) {
        Results& results = feed.states ? hidden : logits;
        results.rows.push_back(static_cast<uint32_t>(tokens.size()));
        results.wanted.push_back({index, i});
      }
      tokens.push_back(feed.tokens[i]);
    }
    SLUICE_TRY(session.kv.reserve(again + rows));
    // Nobody takes back tokens of which no logits were asked for.
    const size_t unwanted = std::clamp(wanted_from, first_token, first_token + rows) - first_token;
    return session.state.begin(again + rows, again + unwanted, unwanted > 0);
  }
};

Engine::Engine(std::unique_ptr<State> state) : state_(std::move(state)) {}
Engine::~Engine() = default;

StreamStatistics Engine::statistics() const { return state_->weights->statistics(); }
bool Engine::reads_by_ring() const { return state_->weights->reads_by_ring(); }
ExpertShares Engine::expert_shares() const { return state_->weights->expert_shares(); }
Status Engine::start_from(const ExpertShares& shares) { return state_->weights->learn(shares); }
void Engine::record_experts(ExpertTrace* trace) { state_->weights->record_experts(trace); }
void Engine::observe_inputs(OnInput on_input) {
  SLUICE_CHECK(state_->processor != nullptr);
  state_->processor->observe_inputs(std::move(on_input));
}
void Engine::record_reads() {
  state_->reads = {};
  state_->weights->record_reads(&state_->reads);
}
void Engine::stop_recording_reads() { state_->weights->record_reads(nullptr); }
std::span<const std::byte> Engine::resident_weights() const {
  if (!state_->info.device.empty()) return {};
  return state_->weights->resident();
}
ThreadPool& Engine::pool() const { return *state_->pool; }
ProductCounts Engine::products() const {
  return state_->processor == nullptr ? ProductCounts() : state_->processor->products();
}
double Engine::seconds_at_peak(const ProductCounts& counts) const {
  if (state_->processor == nullptr) return 0;
  return runtime::seconds_at_peak(counts, kernels::matmul_table(state_->options.simd),
                                  *state_->pool);
}
Status Engine::replay_reads() { return state_->weights->replay_reads(state_->reads); }
uint64_t Engine::resize_experts(uint64_t bytes) { return state_->weights->resize_experts(bytes); }
void Engine::keep_digests(std::vector<std::string> paths) {
  state_->digest_paths = std::move(paths);
}
void Engine::share_with(const MemoryNeed& draft) {
  state_->need.draft = draft.weights + draft.kv + draft.scratch;
}
const ModelInfo& Engine::info() const { return state_->info; }
const MemoryNeed& Engine::memory() const { return state_->need; }
const Json& Engine::config() const { return state_->checkpoint->config; }
const Json& Engine::generation_config() const { return state_->checkpoint->generation_config; }

bool Engine::has_matrix(std::string_view name) const {
  const auto entry = state_->weights->find(name);
  return entry && !state_->weights->entries()[*entry].vector();
}

Status Engine::perturb(std::span<const Perturbation> perturbations) {
  std::unordered_map<uint32_t, RowChange> changes;
  for (const Perturbation& perturbation : perturbations) {
    if (!has_matrix(perturbation.name))
      return fail(ErrorCode::kNotFound, "{}: no matrix of the model is called {}",
                  state_->info.path, perturbation.name);
    changes.emplace(*state_->weights->find(perturbation.name), perturbation.change);
  }
  if (state_->processor == nullptr)
    return fail(ErrorCode::kUnsupported, "weights can be perturbed on the processor alone");
  state_->processor->perturb(std::move(changes));
  return {};
}

Status Engine::check_feeds(std::span<const Feed> feeds) const {
  const ModelInfo& info = state_->info;
  for (size_t i = 0; i < feeds.size(); ++i) {
    const Feed& feed = feeds[i];
    SLUICE_CHECK(feed.session != nullptr && feed.session->state_->engine.get() == this);
    SLUICE_CHECK(feed.logits_count <= feed.tokens.size());
    for (size_t j = 0; j < i; ++j) SLUICE_CHECK(feeds[j].session != feed.session);
    if (feed.tokens.empty()) return fail(ErrorCode::kInvalidArgument, "there are no tokens to run");
    const size_t held = feed.session->size();
    if (feed.tokens.size() > info.context - held)
      return fail(ErrorCode::kExhausted,
                  "the context is full: {} tokens are there, {} more do not fit in {}", held,
                  feed.tokens.size(), info.context);
    const auto bad =
        std::ranges::find_if(feed.tokens, [&](uint32_t token) { return token >= info.vocabulary; });
    if (bad != feed.tokens.end())
      return fail(ErrorCode::kInvalidArgument, "token {} is beyond the model's vocabulary of {}",
                  *bad, info.vocabulary);
  }
  return {};
}

namespace {

bool all_finite(std::span<const float> values) {
  return std::ranges::all_of(values, [](float value) { return std::isfinite(value); });
}

std::string place_name(std::optional<int> layer, size_t layers) {
  if (!layer) return "in the head";
  if (*layer < 0) return "in the embedding";
  return fmt::format("in layer {} of {}", *layer, layers);
}

std::unexpected<Error> non_finite(const ModelInfo& info, std::optional<int> layer) {
  return fail(ErrorCode::kCorrupt,
              "{}: values that are no finite numbers (NaN or infinity) come up {}; the weights are "
              "damaged, or do not fit the configuration",
              info.path, place_name(layer, info.layers));
}

}  // namespace

Status Engine::run_chunk(const Chunk& chunk, const OnLogits& on_logits) {
  State& s = *state_;
  const model::Batch batch{chunk.tokens, chunk.segments};
  s.backend->begin(batch, chunk.sequences, chunk.states);
  s.model->forward(batch);
  SLUICE_TRY(s.backend->status());
  // The first logits before the look at the layers' result: a device computes both in one go.
  std::span<const float> logits;
  if (!chunk.logits.rows.empty()) logits = values_of(chunk.logits, false, 0);
  const bool finite = s.model->finite();
  SLUICE_TRY(s.backend->status());
  // What was read of a file that has changed may be of either state.
  SLUICE_TRY(s.weights->unchanged());
  if (!finite) return non_finite(s.info, s.model->find_non_finite(batch));
  SLUICE_TRY(hand_out(chunk.logits, false, logits, on_logits));
  return hand_out(chunk.hidden, true, {}, on_logits);
}

// Of as many rows as are computed together, from the first on.
std::span<const float> Engine::values_of(const Results& results, bool states, size_t first) {
  State& s = *state_;
  const size_t count = std::min(s.limits.logits_rows, results.rows.size() - first);
  const auto rows = std::span(results.rows).subspan(first, count);
  return states ? s.model->states(rows) : s.model->logits(rows);
}

// values: of the first rows; empty where they have not been computed yet.
Status Engine::hand_out(const Results& results, bool states, std::span<const float> values,
                        const OnLogits& on_logits) {
  State& s = *state_;
  const size_t columns = states ? s.info.hidden_size : s.info.vocabulary;
  for (size_t first = 0; first < results.rows.size(); first += s.limits.logits_rows) {
    if (first > 0 || values.empty()) {
      values = values_of(results, states, first);
      SLUICE_TRY(s.backend->status());
      SLUICE_TRY(s.weights->unchanged());
    }
    const size_t count = values.size() / columns;
    if (!all_finite(values)) return non_finite(s.info, std::nullopt);
    for (size_t i = 0; i < count; ++i)
      on_logits(results.wanted[first + i].feed, results.wanted[first + i].token,
                values.subspan(i * columns, columns));
  }
  return {};
}

Status Engine::step(std::span<const Feed> feeds, const OnLogits& on_logits,
                    const CancelToken* cancel) {
  SLUICE_TRY(check_feeds(feeds));
  for (size_t feed = 0, token = 0; feed < feeds.size();) {
    if (cancel != nullptr && cancel->cancelled())
      return fail(ErrorCode::kCancelled, "stopped before all tokens were run");
    Chunk chunk;
    Status status;
    while (feed < feeds.size() && chunk.tokens.size() < state_->limits.rows) {
      const Feed& f = feeds[feed];
      status = chunk.add(feed, f, token, state_->limits.rows - chunk.tokens.size());
      if (!status) break;
      token += chunk.parts.back().rows;
      if (token < f.tokens.size()) break;
      ++feed;
      token = 0;
    }
    if (status) status = run_chunk(chunk, on_logits);
    for (const Chunk::Part& part : chunk.parts) {
      Session::State& session = *part.session;
      if (status) {
        const auto tokens = feeds[part.feed].tokens.subspan(part.first_token, part.rows);
        session.kv.commit(part.again + part.rows);
        session.state.commit();
        session.tokens.insert(session.tokens.end(), tokens.begin(), tokens.end());
      } else {
        session.kv.truncate(session.kv.size());
        session.state.abandon();
      }
    }
    SLUICE_TRY(std::move(status));
  }
  return {};
}

}  // namespace sluice::runtime
