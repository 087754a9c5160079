// What the Qwen families have in common.
#pragma once

#include "model/architecture.h"

namespace sluice::model {

// The common settings, and a window in the layers from max_window_layers on, where it is used.
Status read_qwen(const Json& config, const std::string& label, ModelConfig& out);

}  // namespace sluice::model
