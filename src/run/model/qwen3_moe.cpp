// Qwen3 with experts.
#include "model/qwen.h"

namespace sluice::model {
namespace {

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  out.qk_norm = QkNorm::kHead;
  SLUICE_TRY(read_qwen(config, label, out));
  SLUICE_ASSIGN(out.router.renormalize, flag_or(config, "norm_topk_prob", false, label));
  return read_experts_per_token(config, label, out);
}

}  // namespace

constinit const Architecture kQwen3Moe = {"qwen3_moe", configure};

}  // namespace sluice::model
