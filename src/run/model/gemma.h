// What the Gemma families have in common in their configurations. Private to model.
#pragma once

#include "model/architecture.h"

namespace sluice::model {

// gelu by its tanh form, the only activation that they have.
Status read_gemma_activation(const Json& config, const std::string& label, ModelConfig& out);
// √size, rounded to the type that the model was made in: 50.5 for 2560 in bf16.
float embedding_root(uint64_t size, numerics::DType dtype);

}  // namespace sluice::model
