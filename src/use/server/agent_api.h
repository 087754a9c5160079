// The agent's routes: a run as a stream of events, and the decisions that it waits for.
// docs/agent.md describes them from outside.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "server/agent_run.h"
#include "server/http_server.h"
#include "server/model_registry.h"

namespace sluice::server {

// A run's request: that of a chat, and the tools that it may use.
struct AgentRunRequest {
  ChatRequest chat;
  std::vector<std::string> tools;
};
// {"messages": …, "tools_allowed": ["files"], …}; without tools_allowed, all that are offered.
Result<AgentRunRequest> parse_agent_request(const OrderedJson& body,
                                            const RequestDefaults& defaults,
                                            const std::vector<std::string>& offered);

// The loop's thread.
class AgentApi {
 public:
  explicit AgentApi(AgentOffer offer) : offer_(std::move(offer)) {}

  bool offered() const { return !offer_.tools.empty(); }
  const std::vector<std::string>& tools() const { return offer_.tools; }

  // Streams a run, or replies with an error at once: kNotFound where no agent is offered,
  // kExhausted when too many run. The run keeps its model; on_end: once, when it has
  // begun and ended, or its client has gone.
  void begin(HttpServer& server, const std::shared_ptr<Exchange>& exchange, AgentRunRequest request,
             const ModelLease& model, std::function<void()> on_end);
  // {"run": "…", "id": "…", "approve": true}.
  void approve(const std::shared_ptr<Exchange>& exchange, const Json& body);
  // Ends all runs. Before the scheduler stops.
  void stop() { runs_.clear(); }

 private:
  Status may_begin(const chat::ChatModel& model) const;

  const AgentOffer offer_;
  // By a name that nobody can guess: who knows it may approve.
  std::map<std::string, std::unique_ptr<AgentRunner>> runs_;
};

}  // namespace sluice::server
