// Qwen3-Next: gated attention in every fourth layer, linear attention in the others.
#include "model/qwen.h"

namespace sluice::model {

namespace {

// "swish" is silu. Of attention's gate there is one kind only.
Status refuse_other_gates(const Json& config, const std::string& label) {
  SLUICE_ASSIGN(const bool gated, flag_or(config, "attn_output_gate", true, label));
  if (!gated)
    return fail(ErrorCode::kUnsupported, "{}: attn_output_gate false is not known for this family",
                label);
  if (json_find(config, "output_gate_type") == nullptr) return {};
  SLUICE_ASSIGN(const std::string gate, json_string(config, "output_gate_type", label));
  if (gate == "swish" || gate == "silu") return {};
  return fail(ErrorCode::kUnsupported,
              "{}: output_gate_type \"{}\" is not known, only \"swish\" and \"silu\"", label, gate);
}

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  out.fused_linear_projections = out.fused_linear_gates = true;
  SLUICE_TRY(read_hybrid(config, label, 1e4, 0.25, out));
  SLUICE_ASSIGN(out.router.renormalize, flag_or(config, "norm_topk_prob", false, label));
  return {};
}

}  // namespace

Status read_hybrid(const Json& config, const std::string& label, double theta_default,
                   double share_default, ModelConfig& out) {
  SLUICE_TRY(refuse_other_gates(config, label));
  out.qk_norm = QkNorm::kHead;
  out.attention_gate = true;
  out.expert_names.shared = "mlp.shared_expert";
  out.expert_names.shared_gate = "mlp.shared_expert_gate";
  SLUICE_TRY(read_decoder(config, label, theta_default, out, share_default));
  if (out.dims.linear_conv_kernel_dim > kTapsMax)
    return fail(ErrorCode::kUnsupported, "{}: linear_conv_kernel_dim {} is more than {}", label,
                out.dims.linear_conv_kernel_dim, kTapsMax);
  return read_experts_per_token(config, label, out);
}

constinit const Architecture kQwen3Next = {"qwen3_next", configure};

}  // namespace sluice::model
