// Phi-3.5-MoE: layer norms, and experts by the sparse mixer's rule.
#include "model/architecture.h"

namespace sluice::model {
namespace {

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  SLUICE_TRY(read_decoder(config, label, 1e4, out));
  out.norm = NormKind::kLayer;
  out.expert_names = {.router = "block_sparse_moe.gate", .experts = "block_sparse_moe.switch_mlp"};
  out.router.score = RouterScore::kSparseMixer;
  SLUICE_ASSIGN(out.router.jitter, factor_or(config, "router_jitter_noise", 0.01f, label));
  SLUICE_TRY(read_experts_per_token(config, label, out));
  SLUICE_ASSIGN(const uint32_t window, read_window(config, label));
  return read_windows(config, label, window, 0, out);
}

}  // namespace

constinit const Architecture kPhimoe = {"phimoe", configure};

}  // namespace sluice::model
