// Qwen1.5 and Qwen2 with experts, one of which sees every token, times the sigmoid of its gate.
#include "model/qwen.h"

namespace sluice::model {
namespace {

// transformers' generations disagree about the layers that see a window; released models have none.
Status refuse_windows(const Json& config, const std::string& label) {
  SLUICE_ASSIGN(const bool used, flag_or(config, "use_sliding_window", false, label));
  if (!used || json_find(config, "layer_types") != nullptr) return {};
  return fail(ErrorCode::kUnsupported,
              "{}: use_sliding_window is true, and no layer_types say which layers are meant",
              label);
}

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  SLUICE_TRY(refuse_windows(config, label));
  SLUICE_TRY(read_qwen(config, label, out));
  out.expert_names.shared = "mlp.shared_expert";
  out.expert_names.shared_gate = "mlp.shared_expert_gate";
  SLUICE_ASSIGN(out.router.renormalize, flag_or(config, "norm_topk_prob", false, label));
  return read_experts_per_token(config, label, out);
}

}  // namespace

constinit const Architecture kQwen2Moe = {"qwen2_moe", configure};

}  // namespace sluice::model
