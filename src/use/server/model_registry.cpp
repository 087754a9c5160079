#include "server/model_registry.h"

#include <algorithm>

namespace sluice::server {
namespace {

void add_totals(SchedulerState& sum, const SchedulerState& state) {
  sum.prompt_tokens += state.prompt_tokens;
  sum.reused_tokens += state.reused_tokens;
  sum.generated_tokens += state.generated_tokens;
  sum.reads.bytes_read += state.reads.bytes_read;
  sum.reads.bytes_fetched += state.reads.bytes_fetched;
  sum.reads.experts_requested += state.reads.experts_requested;
  sum.reads.experts_there += state.reads.experts_there;
  sum.reads.guesses += state.reads.guesses;
  sum.reads.guesses_right += state.reads.guesses_right;
}

void add_standing(SchedulerState& sum, const SchedulerState& state) {
  sum.prefill_tokens_s += state.prefill_tokens_s;
  sum.decode_tokens_s += state.decode_tokens_s;
  sum.running += state.running;
  sum.queued += state.queued;
  sum.slots.insert(sum.slots.end(), state.slots.begin(), state.slots.end());
}

// What a model was promised, this process's own code not counted with each.
uint64_t promised_bytes(const ServedModel& model) {
  const runtime::MemoryNeed& need = model.chat.engine->memory();
  return need.total() - need.program;
}

}  // namespace

ModelRegistry::ModelRegistry(std::vector<ModelCard> cards, LoadModel load, size_t waiting_max)
    : load_(std::move(load)), waiting_max_(waiting_max), thread_([this] {
        while (const auto work = work_.pop()) (*work)();
      }) {
  SLUICE_CHECK(!cards.empty());
  for (ModelCard& card : cards)
    entries_.push_back({.card = std::move(card), .model = {}, .waiting = {}});
}

ModelRegistry::~ModelRegistry() { work_.close(); }

void ModelRegistry::adopt(size_t index, ModelLease model) {
  entries_[index].model = std::move(model);
  ++loads_;
}

std::optional<size_t> ModelRegistry::find(std::string_view name) const {
  if (name.empty()) return 0;
  for (size_t i = 0; i < entries_.size(); ++i) {
    const ModelCard& card = entries_[i].card;
    if (card.name == name || std::ranges::count(card.aliases, name) > 0) return i;
  }
  return std::nullopt;
}

ModelLease ModelRegistry::lease(size_t index) {
  Entry& entry = entries_[index];
  if (entry.model == nullptr || leaving_ == index) return nullptr;
  entry.used = ++turn_;
  return entry.model;
}

Result<uint64_t> ModelRegistry::await(size_t index, Ready ready) {
  if (draining_) return fail(ErrorCode::kCancelled, "the server is stopping");
  if (waiting() >= waiting_max_)
    return fail(ErrorCode::kExhausted, "{} requests are waiting already; try again later",
                waiting_max_);
  entries_[index].waiting.push_back({next_ticket_, std::move(ready)});
  if (std::ranges::count(wanted_, index) == 0) wanted_.push_back(index);
  post_([this] { advance(); });
  return next_ticket_++;
}

void ModelRegistry::forget(uint64_t ticket) {
  for (Entry& entry : entries_)
    std::erase_if(entry.waiting, [&](const Waiter& waiter) { return waiter.ticket == ticket; });
}

size_t ModelRegistry::waiting() const {
  size_t count = 0;
  for (const Entry& entry : entries_) count += entry.waiting.size();
  return count;
}

void ModelRegistry::serve(Entry& entry) {
  for (Waiter& waiter : std::exchange(entry.waiting, {})) {
    entry.used = ++turn_;
    waiter.ready(entry.model);
  }
}

void ModelRegistry::refuse(Entry& entry, const Error& error) {
  for (Waiter& waiter : std::exchange(entry.waiting, {})) waiter.ready(std::unexpected(error));
}

void ModelRegistry::advance() {
  while (!busy_ && !stopped_ && !wanted_.empty()) {
    const size_t index = wanted_.front();
    Entry& entry = entries_[index];
    // Those who waited have gone, or the model need not leave after all.
    if (entry.waiting.empty() || entry.model != nullptr) {
      leaving_.reset();
      wanted_.pop_front();
      if (entry.model != nullptr) serve(entry);
      continue;
    }
    if (!leaving_) return load(index);
    // Nobody but this table holds it, and nobody else could give it away.
    if (entries_[*leaving_].model.use_count() == 1) unload(*leaving_);
    return;
  }
}

void ModelRegistry::load(size_t index) {
  uint64_t held = 0;
  for (const Entry& entry : entries_)
    if (entry.model != nullptr) held += promised_bytes(*entry.model);
  const auto result = std::make_shared<Result<ModelLease>>(ModelLease());
  run_beside([this, index, held, result] { *result = load_(index, held); },
             [this, index, result] { arrived(index, std::move(*result)); });
}

void ModelRegistry::arrived(size_t index, Result<ModelLease> model) {
  Entry& entry = entries_[index];
  if (model) {
    entry.model = std::move(*model);
    ++loads_;
    if (draining_) entry.model->scheduler.drain();
  } else if (model.error().code == ErrorCode::kExhausted && least_recently_used()) {
    leaving_ = least_recently_used();
  } else {
    refuse(entry, {ErrorCode::kIo, fmt::format("the model {} could not be loaded: {}",
                                               entry.card.name, model.error().message)});
  }
}

std::optional<size_t> ModelRegistry::least_recently_used() const {
  std::optional<size_t> oldest;
  for (size_t i = 0; i < entries_.size(); ++i)
    if (entries_[i].model != nullptr && (!oldest || entries_[i].used < entries_[*oldest].used))
      oldest = i;
  return oldest;
}

void ModelRegistry::unload(size_t index) {
  Entry& entry = entries_[index];
  add_totals(gone_, entry.model->scheduler.state());
  leaving_.reset();
  const auto model = std::make_shared<ModelLease>(std::move(entry.model));
  run_beside([model] { model->reset(); }, [] {});
}

// work: on the registry's thread; done: on the loop's, and then on with what is next.
void ModelRegistry::run_beside(std::function<void()> work, std::function<void()> done) {
  busy_ = true;
  work_.push([this, work = std::move(work), done = std::move(done)] {
    work();
    post_([this, done] {
      busy_ = false;
      done();
      advance();
    });
  });
}

void ModelRegistry::drain() {
  draining_ = true;
  wanted_.clear();
  leaving_.reset();
  for (Entry& entry : entries_) {
    refuse(entry, {ErrorCode::kCancelled, "the server is stopping"});
    if (entry.model != nullptr) entry.model->scheduler.drain();
  }
}

void ModelRegistry::stop() {
  stopped_ = true;
  work_.close();
  thread_.join();
  for (Entry& entry : entries_)
    if (entry.model != nullptr) entry.model->scheduler.stop();
}

RegistryState ModelRegistry::state() const {
  RegistryState state;
  state.loads = loads_;
  add_totals(state.scheduler, gone_);
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (entries_[i].model == nullptr) continue;
    state.loaded.push_back(i);
    const SchedulerState one = entries_[i].model->scheduler.state();
    add_totals(state.scheduler, one);
    add_standing(state.scheduler, one);
  }
  state.scheduler.queued += waiting();
  return state;
}

}  // namespace sluice::server
