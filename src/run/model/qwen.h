// What the Qwen families have in common.
#pragma once

#include "model/architecture.h"

namespace sluice::model {

// The common settings, and a window in the layers from max_window_layers on, where it is used.
Status read_qwen(const Json& config, const std::string& label, ModelConfig& out);

// Qwen3-Next's and Qwen3.5's: gated attention beside linear attention, shared experts. Defaults for
// rope_theta and partial_rotary_factor.
Status read_hybrid(const Json& config, const std::string& label, double theta_default,
                   double share_default, ModelConfig& out);

}  // namespace sluice::model
