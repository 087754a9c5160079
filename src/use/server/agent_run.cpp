#include "server/agent_run.h"

#include <algorithm>

#include "chat/agent_events.h"
#include "chat/agent_turn.h"

namespace sluice::server {
namespace {

// Of one turn, unless the request says how many.
constexpr size_t kTurnTokensMax = 4096;
// How late the end of a run's time may be noticed.
constexpr std::chrono::milliseconds kNotice{500};

std::chrono::steady_clock::time_point after(double seconds) {
  return std::chrono::steady_clock::now() +
         std::chrono::duration_cast<std::chrono::steady_clock::duration>(
             std::chrono::duration<double>(seconds));
}

}  // namespace

AgentRunner::AgentRunner(const AgentOffer& offer, const chat::ChatModel& model,
                         Scheduler& scheduler, ChatRequest request, std::vector<std::string> tools,
                         OnAgentEvent on_event)
    : offer_(offer),
      model_(model),
      scheduler_(scheduler),
      request_(std::move(request)),
      tools_(std::move(tools)),
      on_event_(std::move(on_event)),
      end_(after(offer.run_s_max)) {
  thread_.emplace([this] { run(); });
}

AgentRunner::~AgentRunner() { stop(); }

void AgentRunner::stop() {
  MutexLock lock(mutex_);
  cancel_.cancel();
  changed_.notify_all();
}

AgentRunner::Decided AgentRunner::decide(const std::string& id, bool approve) {
  MutexLock lock(mutex_);
  if (asked_.empty() || asked_ != id || decision_) return Decided::kNotAsked;
  decision_ = approve;
  changed_.notify_all();
  return Decided::kTaken;
}

void AgentRunner::wait() {
  changed_.wait_for(mutex_, kNotice);
  if (cancel_.cancelled() || Clock::now() < end_) return;
  too_long_ = true;
  cancel_.cancel();
}

// Nobody's answer is a refusal.
bool AgentRunner::await_approval(const chat::AgentRequest& request) {
  const auto until = after(offer_.approval_s_max);
  {
    MutexLock lock(mutex_);
    asked_ = request.needs_approval ? request.id : "";
    decision_.reset();
  }
  on_event_(chat::request_event(request), false);
  if (!request.needs_approval) return true;
  MutexLock lock(mutex_);
  while (!decision_ && !cancel_.cancelled() && Clock::now() < until) wait();
  asked_.clear();
  return decision_.value_or(false);
}

// When the run is to end the job is told so, and then its own end comes.
JobEvent AgentRunner::next_event(uint64_t job) {
  bool told = false;
  for (;;) {
    {
      MutexLock lock(mutex_);
      while (events_.empty() && (told || !cancel_.cancelled())) wait();
      if (!events_.empty()) {
        JobEvent event = std::move(events_.front());
        events_.pop_front();
        return event;
      }
    }
    scheduler_.cancel(job);
    told = true;
  }
}

Result<chat::AgentAnswer> AgentRunner::generate(const chat::AgentTurn& turn,
                                                const chat::OnAgentText& on_text) {
  const chat::TurnRenderer renderer(model_, request_.variables);
  SLUICE_ASSIGN(chat::TurnPrompt prompt, renderer.render(turn));
  Job job = request_.job;
  job.prompt = std::move(prompt.tokens);
  job.shown = renderer.shown();
  if (job.tokens_max == 0) job.tokens_max = kTurnTokensMax;
  job.sampling.seed += turns_++;  // each turn its own draws
  if (prompt.constraint)
    job.constraint = std::make_shared<tokenizer::Constraint>(std::move(*prompt.constraint));
  SLUICE_ASSIGN(const uint64_t number, scheduler_.submit(std::move(job), [this](JobEvent event) {
    MutexLock lock(mutex_);
    events_.push_back(std::move(event));
    changed_.notify_all();
  }));
  chat::TurnReader reader(renderer.syntax(), prompt.text, turn.tools, on_text);
  for (;;) {
    const JobEvent event = next_event(number);
    if (!reader.feed(event.text)) stop();
    if (!event.end) continue;
    if (!*event.end) return std::unexpected(event.end->error());
    const JobResult& result = **event.end;
    return reader.finish(result.finish, result.prompt_tokens, result.tokens);
  }
}

Result<chat::AgentRun> AgentRunner::work() {
  SLUICE_ASSIGN(const AgentTools tools, offer_.make_tools(tools_));
  std::vector<chat::Tool*> allowed;
  for (const auto& tool : tools) allowed.push_back(tool.get());
  chat::AgentOptions how;
  how.steps_max = offer_.steps_max;
  how.output_bytes_max = chat::output_bytes_for(model_.engine->info().context);
  how.native_tools = chat::TurnRenderer(model_, {}).syntax().in_template();
  how.policy.read_only = offer_.yes_read_only;
  how.cancel = &cancel_;
  chat::Agent agent(how, allowed, [this](const chat::AgentTurn& turn, const auto& on_text) {
    return generate(turn, on_text);
  });
  const chat::AgentCallbacks callbacks{
      [this](std::string_view delta, bool reasoning) {
        on_event_(chat::text_event(delta, reasoning), false);
        return !cancel_.cancelled();
      },
      [this](const chat::AgentRequest& request) { return await_approval(request); },
      [this](const chat::AgentResult& result) { on_event_(chat::result_event(result), false); }};
  return agent.run(chat::messages_json(request_.messages), callbacks);
}

void AgentRunner::run() {
  auto done = work();
  if (!done) {
    Json event = chat::agent_event("error");
    event["message"] = done.error().message;
    return on_event_(std::move(event), true);
  }
  {
    MutexLock lock(mutex_);
    if (too_long_) done->finish_reason = "time";
  }
  on_event_(chat::done_event(*done), true);
}

}  // namespace sluice::server
