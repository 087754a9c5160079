// What guesses ahead of a model that generates text: --lookup, --draft-model.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "chat/draft.h"
#include "cli/generation.h"

namespace sluice::cli {

// With neither, all are empty and nothing guesses. The draft's sampler belongs to it.
struct Drafting {
  std::shared_ptr<runtime::Engine> engine;  // of --draft-model; on the threads of the large model
  std::unique_ptr<runtime::Sampler> sampler;
  std::unique_ptr<chat::Draft> draft;
};

// Between plan_engine() and load_weights() of the large model, whose memory the draft model then
// shares. sampler: the large model's, which the draft's imitates. Refuses another vocabulary.
Result<Drafting> plan_draft(Context& context, const RunningModel& running,
                            const chat::ChatModel& model, const EngineArguments& engine,
                            const DraftArguments& arguments, const runtime::Sampler& sampler);
// Behind load_weights().
Status load_draft(Context& context, const DraftArguments& arguments, Drafting& drafting);

}  // namespace sluice::cli
