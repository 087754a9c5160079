#include "chat/agent_events.h"

namespace sluice::chat {

Json agent_event(std::string_view type) {
  return {{"object", "sluice.agent.event"}, {"type", type}};
}

Json text_event(std::string_view delta, bool reasoning) {
  Json event = agent_event("text");
  event.update({{"delta", delta}, {"reasoning", reasoning}});
  return event;
}

Json request_event(const AgentRequest& request) {
  Json event = agent_event("tool_request");
  event.update({{"id", request.id},
                {"tool", request.tool},
                {"function", request.function},
                {"arguments", request.arguments},
                {"shown", request.shown},
                {"needs_approval", request.needs_approval}});
  return event;
}

Json result_event(const AgentResult& result) {
  Json event = agent_event("tool_result");
  event.update({{"id", result.id}, {"ok", result.ok}, {"text", result.text}});
  return event;
}

Json done_event(const AgentRun& run) {
  Json sources = Json::array();
  for (const ToolSource& source : run.sources)
    sources.push_back({{"title", source.title}, {"url", source.url}});
  Json event = agent_event("done");
  event.update(
      {{"finish_reason", run.finish_reason},
       {"usage",
        {{"prompt_tokens", run.prompt_tokens}, {"completion_tokens", run.generated_tokens}}},
       {"sources", std::move(sources)}});
  return event;
}

}  // namespace sluice::chat
