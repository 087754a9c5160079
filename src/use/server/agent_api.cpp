#include "server/agent_api.h"

#include <algorithm>
#include <random>
#include <utility>

#include "chat/agent_events.h"
#include "server/answers.h"

namespace sluice::server {
namespace {

constexpr std::string_view kJson = "application/json";

std::string new_run_name() {
  std::random_device random;
  return fmt::format("run-{:08x}{:08x}{:08x}{:08x}", random(), random(), random(), random());
}

// One run's stream. The loop's thread.
struct Stream {
  std::shared_ptr<Exchange> exchange;
  std::function<void()> on_end;
  bool ended = false;

  void send(const Json& event) {
    if (!ended) exchange->write("data: " + dump_json(event) + "\n\n");
  }
  void end() {
    if (std::exchange(ended, true)) return;
    if (!exchange->replied()) {
      exchange->write("data: [DONE]\n\n");
      exchange->end_stream();
    }
    on_end();
  }
};

}  // namespace

Result<AgentRunRequest> parse_agent_request(const OrderedJson& body,
                                            const RequestDefaults& defaults,
                                            const std::vector<std::string>& offered) {
  AgentRunRequest request;
  SLUICE_ASSIGN(request.chat, parse_chat_request(body, defaults));
  for (const std::string_view key : {"tools", "tool_choice", "response_format", "logprobs"})
    if (json_find(body, key) != nullptr)
      return fail(ErrorCode::kInvalidArgument, "{}: an agent's run has none", key);
  if (request.chat.choices != 1)
    return fail(ErrorCode::kInvalidArgument, "n: an agent's run is one");
  request.tools = offered;
  const OrderedJson* allowed = json_find(body, "tools_allowed");
  if (allowed == nullptr) return request;
  request.tools.clear();
  if (!allowed->is_array())
    return fail(ErrorCode::kInvalidArgument, "tools_allowed should be a list of names");
  for (const OrderedJson& name : *allowed) {
    if (!name.is_string() || std::ranges::find(offered, name.get<std::string>()) == offered.end())
      return fail(ErrorCode::kInvalidArgument, "tools_allowed: {} is not offered by this server",
                  dump_json(name).substr(0, 100));
    const auto text = name.get<std::string>();
    if (std::ranges::find(request.tools, text) == request.tools.end())
      request.tools.push_back(text);
  }
  return request;
}

Status AgentApi::may_begin(const chat::ChatModel& model) const {
  if (!model.chat_template)
    return fail(ErrorCode::kUnsupported, "this model cannot be an agent: {}",
                model.template_problem.message);
  if (runs_.size() >= offer_.runs_max)
    return fail(ErrorCode::kExhausted, "{} agents are at work already; try again later",
                runs_.size());
  return {};
}

void AgentApi::begin(HttpServer& server, const std::shared_ptr<Exchange>& exchange,
                     AgentRunRequest request, const ModelLease& model,
                     std::function<void()> on_end) {
  if (const Status may = may_begin(model->chat); !may) return reply_error(*exchange, may.error());
  const std::string name = new_run_name();
  const auto stream = std::make_shared<Stream>(Stream{exchange, std::move(on_end)});
  exchange->begin_stream("text/event-stream");
  Json start = chat::agent_event("start");
  start["run"] = name;
  stream->send(start);
  request.chat.job.client = exchange->client() + " " + request.chat.job.client;
  auto on_event = [this, &server, stream, name, model](Json event, bool last) {
    server.post([this, stream, name, event = std::move(event), last] {
      stream->send(event);
      if (!last) return;
      stream->end();
      runs_.erase(name);
    });
  };
  runs_[name] =
      std::make_unique<AgentRunner>(offer_, model->chat, model->scheduler, std::move(request.chat),
                                    std::move(request.tools), std::move(on_event));
  exchange->on_gone([this, weak = std::weak_ptr(stream), name] {
    if (const auto there = weak.lock()) there->end();
    if (const auto run = runs_.find(name); run != runs_.end()) run->second->stop();
  });
}

void AgentApi::approve(const std::shared_ptr<Exchange>& exchange, const Json& body) {
  for (const std::string_view key : {"run", "id"})
    if (const Json* value = json_find(body, key); value == nullptr || !value->is_string())
      return reply_error(*exchange,
                         {ErrorCode::kInvalidArgument, fmt::format("{} should be a string", key)},
                         body);
  const Json* allowed = json_find(body, "approve");
  if (allowed == nullptr || !allowed->is_boolean())
    return reply_error(*exchange, {ErrorCode::kInvalidArgument, "approve should be true or false"},
                       body);
  const auto run = runs_.find(body["run"].get<std::string>());
  if (run == runs_.end())
    return reply_error(*exchange, {ErrorCode::kNotFound, "run: there is none of this name"}, body);
  const auto decided = run->second->decide(body["id"].get<std::string>(), allowed->get<bool>());
  if (decided == AgentRunner::Decided::kNotAsked)
    return exchange->reply(
        409, kJson,
        error_body(409, "id: nothing of this name waits for approval", "conflict", "id"));
  exchange->reply(200, kJson, dump_json({{"ok", true}}));
}

}  // namespace sluice::server
