// A request done with tools on the terminal: the agent's loop over the model that one talks to, its
// desk, and the busy line.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "cli/agent_desk.h"
#include "cli/talking_model.h"

namespace sluice::cli {

struct AgentWork {
  TalkingModel& talking;
  const GenerationArguments& generation;
  const std::map<std::string, std::string>& variables;  // of the template
  AgentDesk& desk;                                      // open
  bool draws = false, markdown = false;                 // the terminal
  const CancelToken& cancel;
};

struct AgentDone {
  chat::AgentRun run;
  std::optional<chat::Generation> last;  // of the last turn
};

// messages: in OpenAI's form, the request at their end. Errors: the generation's.
Result<AgentDone> run_agent(const AgentWork& work, const Json& messages);

}  // namespace sluice::cli
