// Granite 3, dense.
#include "model/granite.h"

namespace sluice::model {

Status read_granite(const Json& config, const std::string& label, ModelConfig& out) {
  SLUICE_TRY(read_decoder(config, label, 1e4, out));
  SLUICE_ASSIGN(out.embedding_multiplier, factor_or(config, "embedding_multiplier", 1, label));
  SLUICE_ASSIGN(out.residual_multiplier, factor_or(config, "residual_multiplier", 1, label));
  SLUICE_ASSIGN(out.attention_scale, factor_or(config, "attention_multiplier", 1, label));
  SLUICE_ASSIGN(const float divisor, factor_or(config, "logits_scaling", 1, label));
  out.logits_multiplier = 1 / divisor;
  return {};
}

constinit const Architecture kGranite = {"granite", read_granite};

}  // namespace sluice::model
