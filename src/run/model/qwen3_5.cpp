// Qwen3.5 and Qwen3.6, dense and with experts: Qwen3-Next's layers with separate projections.
#include "model/qwen.h"

namespace sluice::model {
namespace {

// What both references take where rope_parameters leave them out.
constexpr double kTheta = 1e5, kRotaryShare = 0.25;

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  SLUICE_TRY(read_hybrid(config, label, kTheta, kRotaryShare, out));
  SLUICE_ASSIGN(out.router.renormalize, flag_or(config, "norm_topk_prob", true, label));
  return {};
}

}  // namespace

constinit const Architecture kQwen3_5 = {"qwen3_5", configure};
constinit const Architecture kQwen3_5Moe = {"qwen3_5_moe", configure};

}  // namespace sluice::model
