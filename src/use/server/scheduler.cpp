#include "server/scheduler.h"

#include <algorithm>
#include <map>

#include "base/clock.h"
#include "chat/stop_strings.h"

namespace sluice::server {
namespace {

// A prefix shorter than this is computed sooner than it is looked for elsewhere.
constexpr size_t kPrefixWorthTokens = 32;
// Rates are those of the last seconds.
constexpr double kRateWindowS = 5;

size_t common_length(std::span<const uint32_t> a, std::span<const uint32_t> b) {
  return static_cast<size_t>(std::ranges::mismatch(a, b).in1 - a.begin());
}

void add_to(std::vector<double>& sums, std::span<const float> values) {
  sums.resize(values.size());
  for (size_t i = 0; i < values.size(); ++i) sums[i] += values[i];
}

}  // namespace

struct Scheduler::Waiting {
  uint64_t number;
  Job job;
  OnEvent on_event;
  Stopwatch watch;
};

struct Scheduler::Running {
  Running(std::unique_ptr<Waiting> from, const tokenizer::Tokenizer& tokenizer)
      : number(from->number),
        job(std::move(from->job)),
        on_event(std::move(from->on_event)),
        decoder(tokenizer, true, job.shown),
        stops(job.stops),
        tokens(job.prompt) {
    result.queued_s = from->watch.seconds();
    result.prompt_tokens = job.prompt.size();
  }

  uint64_t number;
  Job job;
  OnEvent on_event;
  tokenizer::Decoder decoder;
  chat::StopStrings stops;
  std::vector<uint32_t> tokens;  // prompt and answer; the session lacks some at the end
  JobResult result;
  Stopwatch watch;  // since it began
  std::optional<Stopwatch> decode_watch;
  std::vector<double> states;  // of a job that embeds: their sum over the tokens that were run
};

struct Scheduler::Slot {
  explicit Slot(runtime::Session opened) : session(std::move(opened)) {}
  bool prefilling() const { return job && !job->decode_watch; }
  bool decoding() const { return job && job->decode_watch; }

  runtime::Session session;
  std::unique_ptr<Running> job;
  uint64_t used = 0;  // the turn in which it was last given a job
};

// What logits came to.
struct Scheduler::Drawn {
  std::optional<uint32_t> token;  // none: the text ends here
  std::vector<ChosenToken> chosen;
};

// Tokens and time of the last seconds.
struct Scheduler::Rate {
  struct Entry {
    Clock::time_point when;
    size_t prefilled, decoded;
  };
  std::deque<Entry> entries;

  void add(size_t prefilled, size_t decoded) {
    entries.push_back({Clock::now(), prefilled, decoded});
  }
  std::pair<double, double> rates() {
    const Clock::time_point now = Clock::now();
    const std::chrono::duration<double> window(kRateWindowS);
    while (!entries.empty() && now - entries.front().when > window) entries.pop_front();
    double prefilled = 0, decoded = 0;
    for (const Entry& entry : entries) {
      prefilled += static_cast<double>(entry.prefilled);
      decoded += static_cast<double>(entry.decoded);
    }
    return {prefilled / kRateWindowS, decoded / kRateWindowS};
  }
};

Scheduler::Scheduler(const chat::ChatModel& model, const kernels::LayerOps& ops,
                     const SchedulerOptions& options)
    : model_(model),
      options_(options),
      sampler_(*runtime::Sampler::open({}, model.engine->info().vocabulary, ops)),
      rate_(std::make_unique<Rate>()) {
  for (size_t i = 0; i < options.slots; ++i)
    slots_.push_back(std::make_unique<Slot>(model.engine->new_session()));
  state_.slots.resize(options.slots);
  thread_.emplace([this] { run(); });
}

Scheduler::~Scheduler() { stop(); }

void Scheduler::stop() {
  drain();
  {
    MutexLock lock(mutex_);
    if (stopping_) return;
    stopping_ = true;
    changed_.notify_all();
  }
  thread_->join();
}

Result<uint64_t> Scheduler::submit(Job job, OnEvent on_event) {
  SLUICE_TRY(chat::check_prompt(job.prompt, model_.engine->info().context));
  SLUICE_TRY(runtime::Sampler::check(job.sampling, model_.engine->info().vocabulary));
  MutexLock lock(mutex_);
  if (draining_) return fail(ErrorCode::kCancelled, "the server is stopping");
  if (waiting_.size() >= options_.queue_max)
    return fail(ErrorCode::kExhausted, "{} requests are waiting already; try again later",
                waiting_.size());
  const uint64_t number = next_job_++;
  waiting_.push_back(
      std::make_unique<Waiting>(Waiting{number, std::move(job), std::move(on_event), {}}));
  state_.queued = waiting_.size();
  changed_.notify_all();
  return number;
}

void Scheduler::cancel(uint64_t job) {
  MutexLock lock(mutex_);
  cancelled_.insert(job);
  changed_.notify_all();
}

void Scheduler::drain() {
  MutexLock lock(mutex_);
  draining_ = true;
  for (const auto& waiting : waiting_) cancelled_.insert(waiting->number);
  changed_.notify_all();
}

SchedulerState Scheduler::state() const {
  MutexLock lock(mutex_);
  SchedulerState state = state_;
  std::tie(state.prefill_tokens_s, state.decode_tokens_s) = rate_->rates();
  return state;
}

void Scheduler::visit_session(std::optional<size_t> slot, SlotWish wish, OnSession on_session) {
  {
    MutexLock lock(mutex_);
    if (!stopping_) {
      visits_.push_back({slot, wish, std::move(on_session)});
      return changed_.notify_all();
    }
  }
  on_session(fail(ErrorCode::kCancelled, "the server is stopping"), 0);
}

Result<size_t> Scheduler::wished_slot(const Visit& visit) const {
  if (visit.slot && *visit.slot >= slots_.size())
    return fail(ErrorCode::kInvalidArgument, "slot should be below {}, found {}", slots_.size(),
                *visit.slot);
  if (visit.slot && slots_[*visit.slot]->job)
    return fail(ErrorCode::kExhausted, "slot {} is answering; try again later", *visit.slot);
  if (visit.slot) return *visit.slot;
  const bool latest = visit.wish == SlotWish::kLatest;
  std::optional<size_t> best;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = *slots_[i];
    if (slot.job || (latest && slot.session.size() == 0)) continue;
    const bool better =
        !best || (latest ? slot.used > slots_[*best]->used : slot.used < slots_[*best]->used);
    if (better) best = i;
  }
  if (best) return *best;
  if (latest) return fail(ErrorCode::kNotFound, "no session that is idle holds anything");
  return fail(ErrorCode::kExhausted, "all slots are answering; try again later");
}

void Scheduler::receive_visits() {
  std::deque<Visit> visits;
  bool stopping = false;
  {
    MutexLock lock(mutex_);
    visits.swap(visits_);
    stopping = stopping_;
  }
  for (const Visit& visit : visits) {
    const auto slot =
        stopping ? fail(ErrorCode::kCancelled, "the server is stopping") : wished_slot(visit);
    if (!slot)
      visit.on_session(std::unexpected(slot.error()), 0);
    else
      visit.on_session(&slots_[*slot]->session, *slot);
    if (slot && visit.wish == SlotWish::kOldestIdle) slots_[*slot]->used = ++turn_;
  }
  if (!visits.empty()) publish(0, 0);
}

void Scheduler::run() {
  while (await_work()) {
    end_cancelled();
    receive_visits();
    admit();
    step();
  }
  for (auto& slot : slots_)
    if (slot->job) end(*slot, {}, chat::Finish::kCancelled);
  receive_visits();
}

// False when the scheduler is to end.
bool Scheduler::await_work() {
  const bool busy = std::ranges::any_of(slots_, [](const auto& slot) { return bool(slot->job); });
  MutexLock lock(mutex_);
  while (!stopping_ && !busy && waiting_.empty() && visits_.empty()) {
    cancelled_.clear();  // of jobs that had ended
    changed_.wait(mutex_);
  }
  return !stopping_ || !waiting_.empty();
}

void Scheduler::end_cancelled() {
  std::vector<std::unique_ptr<Waiting>> never_began;
  std::set<uint64_t> cancelled;
  {
    MutexLock lock(mutex_);
    cancelled.swap(cancelled_);
    for (auto& waiting : waiting_)
      if (cancelled.contains(waiting->number)) never_began.push_back(std::move(waiting));
    std::erase(waiting_, nullptr);
    state_.queued = waiting_.size();
  }
  for (const auto& waiting : never_began) {
    JobResult result;
    result.finish = chat::Finish::kCancelled;
    result.prompt_tokens = waiting->job.prompt.size();
    waiting->on_event({{}, {}, result});
  }
  for (auto& slot : slots_) {
    if (!slot->job) continue;
    if (cancelled.contains(slot->job->number))
      end(*slot, {}, chat::Finish::kCancelled);
    else if (slot->job->watch.seconds() > options_.job_s_max)
      end(*slot, {},
          fail(ErrorCode::kExhausted, "the answer took longer than {:.0f} seconds",
               options_.job_s_max));
  }
}

void Scheduler::admit() {
  while (std::ranges::any_of(slots_, [](const auto& slot) { return !slot->job; })) {
    auto waiting = next_waiting();
    if (!waiting) return;
    begin(std::move(waiting));
  }
}

// Of the client that has least running, the one that has waited longest.
std::unique_ptr<Scheduler::Waiting> Scheduler::next_waiting() {
  std::map<std::string, size_t> running;
  for (const auto& slot : slots_)
    if (slot->job) ++running[slot->job->job.client];
  MutexLock lock(mutex_);
  auto best = waiting_.end();
  for (auto at = waiting_.begin(); at != waiting_.end(); ++at) {
    if (worth_waiting((*at)->job)) continue;
    if (best == waiting_.end() || running[(*at)->job.client] < running[(*best)->job.client])
      best = at;
  }
  if (best == waiting_.end()) return nullptr;
  std::unique_ptr<Waiting> chosen = std::move(*best);
  waiting_.erase(best);
  state_.queued = waiting_.size();
  return chosen;
}

// Whether a prompt is being run whose beginning this one shares: its keys and values will do for
// both, soon.
bool Scheduler::worth_waiting(const Job& job) const {
  if (job.embeds) return false;
  size_t there = 0, coming = 0;
  for (const auto& slot : slots_) {
    there = std::max(there, slot->session.common_prefix(job.prompt));
    if (slot->prefilling())
      coming = std::max(coming, common_length(slot->job->job.prompt, job.prompt));
  }
  return coming > there + kPrefixWorthTokens;
}

// An idle slot whose session begins with as much of the prompt as any does. What another slot's
// session has more of is forked into the slot that was left alone for longest.
Scheduler::Slot& Scheduler::choose_slot(const std::vector<uint32_t>& prompt) {
  Slot* oldest = &oldest_idle_slot();
  Slot* idle = nullptr;
  Slot* any = nullptr;
  size_t idle_length = 0, any_length = 0;
  for (auto& slot : slots_) {
    const size_t length = slot->session.common_prefix(prompt);
    if (any == nullptr || length > any_length) any = slot.get(), any_length = length;
    if (slot->job) continue;
    if (idle == nullptr || length > idle_length) idle = slot.get(), idle_length = length;
  }
  // A few tokens in common (a template's beginning) are no reason to give up another conversation.
  const bool continues =
      idle_length >= kPrefixWorthTokens && 2 * idle_length >= idle->session.size();
  if (continues && any_length <= idle_length + kPrefixWorthTokens) return *idle;
  if (any_length >= kPrefixWorthTokens && any != oldest) oldest->session = any->session.fork();
  return *oldest;
}

Scheduler::Slot& Scheduler::oldest_idle_slot() {
  Slot* oldest = nullptr;
  for (auto& slot : slots_)
    if (!slot->job && (oldest == nullptr || slot->used < oldest->used)) oldest = slot.get();
  return *oldest;
}

// A mean needs the states of all tokens, so that nothing that was computed before helps; else the
// last token alone is run again, for its logits.
void Scheduler::begin(std::unique_ptr<Waiting> waiting) {
  const bool embeds = waiting->job.embeds;
  const std::vector<uint32_t>& prompt = waiting->job.prompt;
  Slot& slot = embeds ? oldest_idle_slot() : choose_slot(prompt);
  const size_t kept = embeds ? 0 : std::min(slot.session.common_prefix(prompt), prompt.size() - 1);
  slot.session.rewind(kept);
  slot.job = std::make_unique<Running>(std::move(waiting), model_.tokenizer);
  slot.job->result.reused_tokens = kept;
  slot.used = ++turn_;
}

// Of each prompt, so that prompts together are no longer than what those that decode may wait for.
size_t Scheduler::prefill_share(size_t prefilling, size_t decoding) const {
  const size_t chunk = std::max<size_t>(model_.engine->info().chunk_tokens, 1);
  const size_t rows = decoding > 0 ? std::min(chunk, options_.prefill_tokens_beside) : chunk;
  return std::max<size_t>(rows / std::max<size_t>(prefilling, 1), 1);
}

void Scheduler::step() {
  const auto prefilling = static_cast<size_t>(
      std::ranges::count_if(slots_, [](const auto& slot) { return slot->prefilling(); }));
  std::vector<Slot*> fed;
  for (auto& slot : slots_)
    if (slot->job) fed.push_back(slot.get());
  if (fed.empty()) return publish(0, 0);
  const size_t share = prefill_share(prefilling, fed.size() - prefilling);
  const std::vector<runtime::Feed> feeds = feeds_of(fed, share);
  size_t prefilled = 0, decoded = 0;
  for (size_t i = 0; i < fed.size(); ++i)
    (fed[i]->prefilling() ? prefilled : decoded) += feeds[i].tokens.size();
  // Taken when the step is done, which still reads the jobs' tokens; and a slot's end may fork,
  // rewind or free sessions. Only the draw is made at once, where the logits are.
  std::vector<std::optional<Result<Drawn>>> drawn(fed.size());
  const Status stepped = [&] {
    const Turn turn(options_.turns.get());
    return model_.engine->step(feeds, [&](size_t feed, size_t, std::span<const float> logits) {
      if (feeds[feed].states)
        add_to(fed[feed]->job->states, logits);
      else
        drawn[feed] = draw(*fed[feed]->job, logits);
    });
  }();
  for (size_t i = 0; i < fed.size(); ++i) {
    if (!stepped)
      end(*fed[i], {}, std::unexpected(stepped.error()));
    else
      take_results(*fed[i], std::move(drawn[i]));
  }
  publish(prefilled, decoded);
}

std::vector<runtime::Feed> Scheduler::feeds_of(const std::vector<Slot*>& fed, size_t share) const {
  std::vector<runtime::Feed> feeds;
  for (Slot* slot : fed) {
    const size_t there = slot->session.size();
    const size_t missing = slot->job->tokens.size() - there;
    const size_t count = slot->prefilling() ? std::min(missing, share) : missing;
    const bool embeds = slot->job->job.embeds;
    const size_t wanted = embeds ? count : count == missing ? 1 : 0;
    feeds.push_back(
        {&slot->session, std::span(slot->job->tokens).subspan(there, count), wanted, embeds});
  }
  return feeds;
}

// drawn: nothing where no logits were asked for.
void Scheduler::take_results(Slot& slot, std::optional<Result<Drawn>> drawn) {
  Running& job = *slot.job;
  if (!job.job.embeds) {
    if (drawn) take_drawn(slot, std::move(*drawn));
    return;
  }
  if (slot.session.size() < job.tokens.size()) return;
  job.result.prefill_s = job.watch.seconds();
  JobEvent event;
  for (const double sum : job.states)
    event.state.push_back(static_cast<float>(sum / static_cast<double>(job.tokens.size())));
  end(slot, std::move(event), chat::Finish::kEnd);
}

Result<Scheduler::Drawn> Scheduler::draw(Running& job, std::span<const float> logits) {
  tokenizer::Constraint* constraint = job.job.constraint.get();
  std::span<const uint32_t> mask;
  if (constraint != nullptr) {
    SLUICE_ASSIGN(mask, constraint->mask(model_.ends));
    // A model without tokens that end a text ends it where nothing may follow.
    if (std::ranges::all_of(mask, [](uint32_t word) { return word == 0; })) return Drawn{};
  }
  sampler_.use(job.job.sampling);
  SLUICE_ASSIGN(const uint32_t token, sampler_.sample(logits, job.tokens, job.tokens.size(), mask));
  const bool may_end = !job.job.ignore_end || constraint != nullptr;
  if (may_end && model_.ends_text(token)) return Drawn{};
  if (constraint != nullptr) SLUICE_TRY(constraint->take(token));
  Drawn drawn{token, {}};
  if (job.job.logprobs) {
    ChosenToken chosen{token, runtime::logprob_of(logits, token), {}};
    chosen.likeliest.resize(std::min(*job.job.logprobs, logits.size()));
    runtime::top_logprobs(logits, chosen.likeliest);
    drawn.chosen.push_back(std::move(chosen));
  }
  return drawn;
}

void Scheduler::take_drawn(Slot& slot, Result<Drawn> drawn) {
  Running& job = *slot.job;
  if (!job.decode_watch) {
    job.result.prefill_s = job.watch.seconds();
    job.decode_watch.emplace();
  }
  if (!drawn) return end(slot, {}, std::unexpected(drawn.error()));
  if (!drawn->token) return end(slot, {}, chat::Finish::kEnd);
  JobEvent event;
  event.chosen = std::move(drawn->chosen);
  const auto finish = take_token(job, *drawn->token, event);
  if (!finish)
    end(slot, std::move(event), std::unexpected(finish.error()));
  else if (*finish)
    end(slot, std::move(event), **finish);
  else if (!event.text.empty() || !event.chosen.empty())
    job.on_event(std::move(event));
}

Result<std::optional<chat::Finish>> Scheduler::take_token(Running& job, uint32_t token,
                                                          JobEvent& event) {
  job.tokens.push_back(token);
  ++job.result.tokens;
  SLUICE_ASSIGN(const std::string piece, job.decoder.push(token));
  event.text = job.stops.feed(piece);
  if (job.stops.stopped()) return chat::Finish::kStop;
  if (job.job.tokens_max != 0 && job.result.tokens >= job.job.tokens_max)
    return chat::Finish::kLength;
  if (job.tokens.size() > model_.engine->info().context) return chat::Finish::kContext;
  return std::nullopt;
}

// What was held back of the text comes with the last event. The session stays for prompts that
// begin alike.
void Scheduler::end(Slot& slot, JobEvent event, Result<chat::Finish> how) {
  std::unique_ptr<Running> job = std::move(slot.job);
  if (how && *how != chat::Finish::kStop) {
    if (auto rest = job->decoder.flush()) event.text += job->stops.feed(*rest);
    event.text += job->stops.finish();
  }
  if (job->decode_watch) job->result.decode_s = job->decode_watch->seconds();
  if (how) {
    job->result.finish = *how;
    event.end = job->result;
  } else {
    event.end = std::unexpected(how.error());
    slot.session.rewind(0);
  }
  {
    MutexLock lock(mutex_);
    state_.prompt_tokens += job->result.prompt_tokens;
    state_.reused_tokens += job->result.reused_tokens;
    state_.generated_tokens += job->result.tokens;
    state_.running = static_cast<size_t>(
        std::ranges::count_if(slots_, [](const auto& other) { return bool(other->job); }));
  }
  job->on_event(std::move(event));
  model_.engine->adapt_memory();
}

void Scheduler::publish(size_t prefilled, size_t decoded) {
  std::vector<SlotState> slots;
  size_t running = 0;
  for (const auto& slot : slots_) {
    SlotState& state = slots.emplace_back();
    state.context_tokens = slot->session.size();
    if (!slot->job) continue;
    ++running;
    state.phase = slot->prefilling() ? SlotState::Phase::kPrefill : SlotState::Phase::kDecode;
    state.prompt_tokens = slot->job->result.prompt_tokens;
    state.generated_tokens = slot->job->result.tokens;
  }
  const runtime::StreamStatistics reads = model_.engine->statistics();
  MutexLock lock(mutex_);
  state_.slots = std::move(slots);
  state_.running = running;
  state_.reads = reads;
  if (prefilled + decoded > 0) rate_->add(prefilled, decoded);
}

}  // namespace sluice::server
