// A model opened to talk to: engine, template, sampler, what guesses ahead, and one session.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "cli/agent_tools.h"
#include "cli/drafting.h"
#include "cli/generation.h"

namespace sluice::cli {

struct TalkArguments {
  EngineArguments engine;
  GenerationArguments generation;
  AgentArguments agent;
  bool requests = false;     // what is typed is a request to the agent
  double temperature = 0.7;  // where neither the command line nor the model says anything
};

// One thread. Destroyed from the last member to the first, as each uses those before it.
struct TalkingModel {
  std::string name;  // as the user gave it
  RunningModel running;
  std::optional<chat::ChatModel> model;
  std::optional<runtime::Sampler> sampler;
  Drafting drafting;
  std::optional<runtime::Session> session;

  runtime::Engine& engine() const { return *running.engine; }
};

// Everything that can be wrong with the request is told before the weights are read. Errors:
// kUnsupported where the model has no chat template.
Result<std::unique_ptr<TalkingModel>> open_talking_model(Context& context,
                                                         const TalkArguments& arguments,
                                                         const std::string& name);

// A sampler like the model's own that draws other numbers.
Result<runtime::Sampler> sampler_with_seed(Context& context, const TalkingModel& talking,
                                           uint64_t seed);

}  // namespace sluice::cli
