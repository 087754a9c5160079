// Qwen3-VL, dense and with experts: Qwen3's forward pass. Text has the same position in all three
// streams of its rotation, which then is the ordinary one.
#include "model/qwen.h"

namespace sluice::model {
namespace {

Status configure_dense(const Json& config, const std::string& label, ModelConfig& out) {
  out.qk_norm = QkNorm::kHead;
  return read_qwen(config, label, out);
}

Status configure_sparse(const Json& config, const std::string& label, ModelConfig& out) {
  SLUICE_TRY(configure_dense(config, label, out));
  SLUICE_ASSIGN(out.router.renormalize, flag_or(config, "norm_topk_prob", true, label));
  return read_experts_per_token(config, label, out);
}

}  // namespace

constinit const Architecture kQwen3Vl = {"qwen3_vl", configure_dense};
constinit const Architecture kQwen3VlMoe = {"qwen3_vl_moe", configure_sparse};

}  // namespace sluice::model
