// What happens in an agent's run, as JSON: lines of `sluice agent --json` and of its transcript,
// and events of the server's streams. docs/agent.md has the list.
#pragma once

#include "chat/agent.h"

namespace sluice::chat {

// All have "object": "sluice.agent.event" and a "type".
Json text_event(std::string_view delta, bool reasoning);
Json request_event(const AgentRequest& request);
Json result_event(const AgentResult& result);
Json done_event(const AgentRun& run);
Json agent_event(std::string_view type);

}  // namespace sluice::chat
