// A model that is in memory and answers: engine, tokenizer and template, its own settings, how it
// calls tools, and the scheduler that runs its sessions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "chat/chat_model.h"
#include "chat/tool_calls.h"
#include "server/scheduler.h"

namespace sluice::server {

// What is known of a model whether or not it is in memory.
struct ModelCard {
  std::string name;                  // as clients ask for it
  std::vector<std::string> aliases;  // names that mean the same
  uint64_t parameters = 0, weight_bytes = 0;
  size_t context = 0;  // of a session
  bool tools = false, reasoning = false;
  std::string identity;  // of configuration and weights: sessions on disk are bound to it
  std::string report;    // HTML; empty: there is none
};

// Immutable but for the scheduler, which is thread-safe.
struct ServedModel {
  // sampling: where a request says nothing. ops outlives it.
  ServedModel(chat::ChatModel opened, runtime::SamplerOptions own, const kernels::LayerOps& ops,
              const SchedulerOptions& options);

  const chat::ChatModel chat;
  const runtime::SamplerOptions sampling;
  const chat::ToolSyntax syntax;
  const std::vector<uint32_t> shown;  // tokens of that syntax, which have text all the same
  Scheduler scheduler;                // last: it uses the model
};

}  // namespace sluice::server
