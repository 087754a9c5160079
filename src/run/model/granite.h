// What Granite models have in common.
#pragma once

#include "model/architecture.h"

namespace sluice::model {

// The common settings, and multipliers of embeddings, scores, what layers add, and logits.
Status read_granite(const Json& config, const std::string& label, ModelConfig& out);

}  // namespace sluice::model
