// One run of an agent for a client: a thread of its own that lets the scheduler generate, waits for
// approvals, and tells what happens. What clients see of it is agent_api's business.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/thread.h"
#include "chat/agent.h"
#include "server/requests.h"
#include "server/scheduler.h"

namespace sluice::server {

using AgentTools = std::vector<std::unique_ptr<chat::Tool>>;

// What a server offers of an agent. No tools: none.
struct AgentOffer {
  std::vector<std::string> tools;
  // New ones for a run. Thread-safe.
  std::function<Result<AgentTools>(const std::vector<std::string>& names)> make_tools;
  bool yes_read_only = false;  // files of the folder are read without asking
  size_t runs_max = 4;         // at once
  size_t steps_max = 16;
  double run_s_max = 1800, approval_s_max = 300;
};

// Thread-safe.
class AgentRunner {
 public:
  enum class Decided : uint8_t { kTaken, kNotAsked };
  // Called on the run's thread. last: nothing comes behind it.
  using OnAgentEvent = std::function<void(Json event, bool last)>;

  // model (which has a chat template) and scheduler outlive this. request: messages, sampling and
  // variables; tools: names, of those offered.
  AgentRunner(const AgentOffer& offer, const chat::ChatModel& model, Scheduler& scheduler,
              ChatRequest request, std::vector<std::string> tools, OnAgentEvent on_event);
  ~AgentRunner();  // stops, and waits for the end
  AgentRunner(const AgentRunner&) = delete;
  AgentRunner& operator=(const AgentRunner&) = delete;

  // Of the request for approval with this id.
  Decided decide(const std::string& id, bool approve) EXCLUDES(mutex_);
  // Ends soon.
  void stop() EXCLUDES(mutex_);

 private:
  using Clock = std::chrono::steady_clock;
  void run();
  Result<chat::AgentRun> work();
  Result<chat::AgentAnswer> generate(const chat::AgentTurn& turn, const chat::OnAgentText& on_text);
  bool await_approval(const chat::AgentRequest& request) EXCLUDES(mutex_);
  JobEvent next_event(uint64_t job) EXCLUDES(mutex_);
  void wait() REQUIRES(mutex_);

  const AgentOffer& offer_;
  const chat::ChatModel& model_;
  Scheduler& scheduler_;
  const ChatRequest request_;
  const std::vector<std::string> tools_;
  const OnAgentEvent on_event_;
  const Clock::time_point end_;
  CancelToken cancel_;
  size_t turns_ = 0;

  Mutex mutex_;
  CondVar changed_;
  std::string asked_ GUARDED_BY(mutex_);  // the id that waits for a decision; empty: none
  std::optional<bool> decision_ GUARDED_BY(mutex_);
  bool too_long_ GUARDED_BY(mutex_) = false;
  std::deque<JobEvent> events_ GUARDED_BY(mutex_);
  std::optional<Thread> thread_;  // last: it uses all of the above
};

}  // namespace sluice::server
