// Generation on a terminal: its figures on the busy line while it lasts.
#pragma once

#include <span>

#include "cli/busy_line.h"
#include "cli/talking_model.h"

namespace sluice::cli {

// As chat::generate, on the talking model's session. on_text prints through busy.
Result<chat::Generation> generate_busy(TalkingModel& talking, std::span<const uint32_t> tokens,
                                       runtime::Sampler& sampler,
                                       const chat::GenerateOptions& options, BusyLine& busy,
                                       const chat::OnText& on_text, const CancelToken& cancel);

}  // namespace sluice::cli
