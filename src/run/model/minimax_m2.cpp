// MiniMax-M2 to M2.7: all heads of q are normalised together, and all of k; rotary_dim dimensions
// of each are rotated. Experts are chosen by sigmoid and a bias.
#include "model/architecture.h"

namespace sluice::model {
namespace {

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  SLUICE_TRY(read_decoder(config, label, 5e6, out));
  SLUICE_TRY(expect_text(config, "scoring_func", "sigmoid", label));
  SLUICE_TRY(expect_text(config, "qk_norm_type", "per_layer", label));
  if (out.dims.qk_norm) out.qk_norm = QkNorm::kRow;
  out.expert_names = {.router = "block_sparse_moe.gate",
                      .experts = "block_sparse_moe.switch_mlp",
                      .correction = "block_sparse_moe.e_score_correction_bias"};
  out.router.score = RouterScore::kSigmoid;
  out.router.renormalize = true;
  return read_experts_per_token(config, label, out);
}

}  // namespace

constinit const Architecture kMinimaxM2 = {"minimax_m2", configure};

}  // namespace sluice::model
