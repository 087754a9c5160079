// Timelines over an engine.
#include <algorithm>

#include "runtime/engine_state.h"

namespace sluice::runtime {

Session::Session(std::unique_ptr<State> state) : state_(std::move(state)) {}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

Session Engine::new_session() {
  SLUICE_CHECK(state_->kv != nullptr);  // load() came first
  auto state =
      std::make_unique<Session::State>(Session::State{.engine = shared_from_this(),
                                                      .kv = KvSequence(state_->kv),
                                                      .state = StateSequence(state_->states)});
  state->tokens.reserve(state_->info.context);
  return Session(std::move(state));
}

const std::vector<uint32_t>& Session::tokens() const { return state_->tokens; }
size_t Session::context() const { return state_->engine->info().context; }

Result<std::span<const float>> Session::append(std::span<const uint32_t> tokens,
                                               const CancelToken* cancel) {
  const Feed feed{.session = this, .tokens = tokens, .logits_count = 1};
  if (tokens.empty()) return fail(ErrorCode::kInvalidArgument, "there are no tokens to run");
  SLUICE_TRY(state_->engine->step(
      std::span(&feed, 1),
      [this](size_t, size_t, std::span<const float> logits) {
        state_->logits.assign(logits.begin(), logits.end());
      },
      cancel));
  return std::span<const float>(state_->logits);
}

size_t Session::common_prefix(std::span<const uint32_t> tokens) const {
  const auto [mine, other] = std::ranges::mismatch(state_->tokens, tokens);
  return static_cast<size_t>(other - tokens.begin());
}

Result<std::span<const float>> Session::become(std::span<const uint32_t> tokens,
                                               const CancelToken* cancel) {
  if (tokens.empty()) return fail(ErrorCode::kInvalidArgument, "there are no tokens to run");
  const size_t kept = std::min(common_prefix(tokens), tokens.size() - 1);
  const std::vector<uint32_t> rest(tokens.begin() + static_cast<ptrdiff_t>(kept), tokens.end());
  rewind(kept);
  return append(rest, cancel);
}

Result<size_t> Session::shift(size_t keep, size_t count, const CancelToken* cancel) {
  if (count <= context() - size()) return 0;
  keep = std::min(keep, size());
  const size_t rest = size() - keep;
  const size_t dropped = std::max(rest / 2, size() + count - context());
  if (dropped > rest)
    return fail(ErrorCode::kExhausted,
                "{} tokens do not fit in a context of {} beside the {} that are kept", count,
                context(), keep);
  std::vector<uint32_t> shortened(tokens().begin(),
                                  tokens().begin() + static_cast<ptrdiff_t>(keep));
  shortened.insert(shortened.end(), tokens().begin() + static_cast<ptrdiff_t>(keep + dropped),
                   tokens().end());
  if (dropped == rest)
    rewind(keep);
  else
    SLUICE_TRY(become(shortened, cancel));
  return dropped;
}

void Session::rewind(size_t count) {
  SLUICE_CHECK(count <= size());
  state_->kv.truncate(state_->state.rewind(count));
  state_->tokens.resize(count);
}

Session Session::fork() const {
  return Session(std::make_unique<State>(State{.engine = state_->engine,
                                               .kv = state_->kv.fork(),
                                               .state = state_->state.fork(),
                                               .tokens = state_->tokens,
                                               .logits = state_->logits}));
}

}  // namespace sluice::runtime
