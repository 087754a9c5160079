// The models that `serve` offers: what is told of each beforehand, and how one is brought into
// memory, beside others or alone. When that is to happen is the server's business.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "cli/generation.h"
#include "server/model_registry.h"

namespace sluice::cli {

struct ServingArguments {
  std::vector<std::string> models;   // as the user gave them; at least one
  std::vector<std::string> aliases;  // "NAME" of the first model, "NAME=MODEL" of any
  std::string template_file;
  EngineArguments engine;
  server::SchedulerOptions scheduler;  // all but slots
  size_t slots = 0;                    // 0: four, or fewer where memory is short
};

class ServedModels {
 public:
  // Reads every model's headers, tokenizer and template; no weights. Errors: theirs;
  // kInvalidArgument for models that would have the same name.
  static Result<std::unique_ptr<ServedModels>> open(Context& context, ServingArguments arguments);

  const std::vector<server::ModelCard>& cards() const { return cards_; }
  // As server::LoadModel. One thread at a time, and this outlives what it returns.
  Result<server::ModelLease> load(size_t index, uint64_t held_bytes);
  // The first thing that went wrong when a model left. Thread-safe.
  Status closed() EXCLUDES(mutex_);

 private:
  struct Planned {
    RunningModel running;
    size_t slots = 0;
  };
  // All but the weights.
  struct Opened {
    Planned planned;
    chat::ChatModel model;
  };
  struct Holder;

  ServedModels(Context& context, ServingArguments arguments);
  Status name_models();
  Status add_alias(const std::string& alias);
  Result<Opened> describe(size_t index);
  EngineUse use_of(size_t slots, uint64_t held_bytes) const;
  Result<Planned> plan(size_t index, uint64_t held_bytes) const;
  Result<Planned> plan_beside(size_t index, uint64_t held_bytes) const;
  Result<Opened> open_model(size_t index, uint64_t held_bytes) const;

  Context& context_;
  const ServingArguments arguments_;
  std::vector<server::ModelCard> cards_;
  const std::shared_ptr<server::Turns> turns_ = std::make_shared<server::Turns>();
  std::optional<Opened> first_;  // as it was described, for its first load
  uint64_t program_bytes_ = 0;   // of this process before any model was in memory
  Mutex mutex_;
  Status closed_ GUARDED_BY(mutex_);
};

}  // namespace sluice::cli
