// Several generations at once over one model. One thread of the scheduler's own advances all
// sessions together, one ragged batch a step: what is being decoded adds a token each, prompts add
// chunks beside them. What requests look like from outside is the caller's business.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/thread.h"
#include "chat/chat_model.h"
#include "chat/generate.h"
#include "runtime/sampler/sampler.h"
#include "server/turns.h"
#include "tokenizer/constraint.h"

namespace sluice::server {

// What is to be generated. prompt: as chat::check_prompt wants it.
struct Job {
  std::vector<uint32_t> prompt;
  runtime::SamplerOptions sampling;
  std::vector<std::string> stops;
  size_t tokens_max = 0;           // 0: until the context is full
  std::optional<size_t> logprobs;  // the chosen token's, and so many of the likeliest
  bool ignore_end = false;
  bool embeds = false;  // no text is wanted, but the prompt's mean state
  // What the text has to be; this job's alone. It ends where it may, ignore_end or not.
  std::shared_ptr<tokenizer::Constraint> constraint;
  std::vector<uint32_t> shown;  // special tokens that have text all the same
  std::string client;           // whose it is: clients take turns
};

// A token of the answer, where logprobs are wanted.
struct ChosenToken {
  uint32_t id = 0;
  float logprob = 0;
  std::vector<runtime::TokenLogprob> likeliest;
};

struct JobResult {
  chat::Finish finish = chat::Finish::kEnd;
  size_t prompt_tokens = 0, reused_tokens = 0, tokens = 0;
  double queued_s = 0, prefill_s = 0, decode_s = 0;
};

struct JobEvent {
  std::string text;  // more of the answer: whole characters, nothing of a stop string
  std::vector<ChosenToken> chosen;       // since the last event
  std::optional<Result<JobResult>> end;  // the job's last event has it
  // Of a job that embeds, with its end: the mean over all tokens of the states behind the last
  // norm.
  std::vector<float> state = {};
};
// A slot's session between steps, or why there is none. On the scheduler's thread, which waits
// meanwhile, and with it all that is generated.
using OnSession = std::function<void(Result<runtime::Session*> session, size_t slot)>;
enum class SlotWish : uint8_t {
  kLatest,      // what was used last and is idle: to be kept
  kOldestIdle,  // what was left alone for longest: to be replaced
};
// Called on the scheduler's thread, or on that of submit()'s or stop()'s caller for a job that
// never began; must neither block nor call the scheduler.
using OnEvent = std::function<void(JobEvent event)>;

struct SchedulerOptions {
  size_t slots = 1;         // sessions at once, at most those the engine was opened for
  size_t queue_max = 64;    // jobs that wait
  double job_s_max = 3600;  // from a job's beginning; then it fails
  // Tokens of prompts in a step that others' decoding waits for.
  size_t prefill_tokens_beside = 128;
  // Shared with schedulers of other models on the same processor: one steps at a time. May be null.
  std::shared_ptr<Turns> turns = {};
};

struct SlotState {
  enum class Phase : uint8_t { kIdle, kPrefill, kDecode };
  Phase phase = Phase::kIdle;
  size_t prompt_tokens = 0, generated_tokens = 0, context_tokens = 0;
};

// Totals since the start, and how things stand.
struct SchedulerState {
  uint64_t prompt_tokens = 0, reused_tokens = 0, generated_tokens = 0;
  double prefill_tokens_s = 0, decode_tokens_s = 0;  // over the last few seconds
  size_t running = 0, queued = 0;
  std::vector<SlotState> slots;
  runtime::StreamStatistics reads;
};

// Thread-safe. Destruction cancels what is left.
class Scheduler {
 public:
  // model and ops outlive the scheduler; weights are loaded. Nobody else steps the engine.
  Scheduler(const chat::ChatModel& model, const kernels::LayerOps& ops,
            const SchedulerOptions& options);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Returns the job's number. kExhausted when too many wait, kCancelled behind drain();
  // kInvalidArgument for a prompt or sampling that cannot be used. Without one of these, on_event
  // is called until it has been given an end.
  Result<uint64_t> submit(Job job, OnEvent on_event) EXCLUDES(mutex_);
  // The job ends soon, as Finish::kCancelled; nothing happens when it has ended.
  void cancel(uint64_t job) EXCLUDES(mutex_);
  // No job is taken any more; those that wait end as cancelled, those that run go on.
  void drain() EXCLUDES(mutex_);
  // What is left ends as cancelled, and no callback comes any more. Other calls stay harmless.
  void stop() EXCLUDES(mutex_);
  SchedulerState state() const EXCLUDES(mutex_);
  // slot: this one, or else one by the wish. on_session is called once, soon. Errors it is given:
  // kInvalidArgument where there is no such slot, kNotFound where none holds anything, kExhausted
  // while it answers, kCancelled behind stop().
  void visit_session(std::optional<size_t> slot, SlotWish wish, OnSession on_session)
      EXCLUDES(mutex_);

 private:
  using Clock = std::chrono::steady_clock;
  struct Waiting;
  struct Running;
  struct Slot;
  struct Rate;
  struct Visit {
    std::optional<size_t> slot;
    SlotWish wish;
    OnSession on_session;
  };
  struct Drawn;

  void run();
  bool await_work() EXCLUDES(mutex_);
  void admit() EXCLUDES(mutex_);
  std::unique_ptr<Waiting> next_waiting() EXCLUDES(mutex_);
  bool worth_waiting(const Job& job) const;
  void receive_visits() EXCLUDES(mutex_);
  Result<size_t> wished_slot(const Visit& visit) const;
  void begin(std::unique_ptr<Waiting> waiting);
  Slot& choose_slot(const std::vector<uint32_t>& prompt);
  Slot& oldest_idle_slot();
  void end_cancelled() EXCLUDES(mutex_);
  void step() EXCLUDES(mutex_);
  size_t prefill_share(size_t prefilling, size_t decoding) const;
  std::vector<runtime::Feed> feeds_of(const std::vector<Slot*>& fed, size_t share) const;
  Result<Drawn> draw(Running& job, std::span<const float> logits);
  void take_results(Slot& slot, std::optional<Result<Drawn>> drawn);
  void take_drawn(Slot& slot, Result<Drawn> drawn);
  Result<std::optional<chat::Finish>> take_token(Running& job, uint32_t token, JobEvent& event);
  void end(Slot& slot, JobEvent event, Result<chat::Finish> how);
  void publish(size_t prefilled, size_t decoded) EXCLUDES(mutex_);

  const chat::ChatModel& model_;
  const SchedulerOptions options_;
  // The scheduler's thread alone, down to the mutex.
  runtime::Sampler sampler_;  // of all jobs in turn
  std::vector<std::unique_ptr<Slot>> slots_;
  uint64_t turn_ = 0;

  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<std::unique_ptr<Waiting>> waiting_ GUARDED_BY(mutex_);
  std::deque<Visit> visits_ GUARDED_BY(mutex_);
  std::set<uint64_t> cancelled_ GUARDED_BY(mutex_);
  uint64_t next_job_ GUARDED_BY(mutex_) = 1;
  bool draining_ GUARDED_BY(mutex_) = false, stopping_ GUARDED_BY(mutex_) = false;
  SchedulerState state_ GUARDED_BY(mutex_);
  std::unique_ptr<Rate> rate_ GUARDED_BY(mutex_);
  std::optional<Thread> thread_;  // last: it uses all of the above
};

}  // namespace sluice::server
