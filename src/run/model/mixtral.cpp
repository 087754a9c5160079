// Mixtral: Mistral's attention, and experts in every layer. Its softmax over the chosen logits
// alone is the renormalised softmax over all.
#include "model/architecture.h"

namespace sluice::model {
namespace {

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  SLUICE_TRY(read_decoder(config, label, 1e6, out));
  SLUICE_ASSIGN(const uint32_t window, read_window(config, label));
  SLUICE_TRY(read_windows(config, label, window, 0, out));
  out.expert_names = {.router = "block_sparse_moe.gate", .experts = "block_sparse_moe.switch_mlp"};
  out.router.renormalize = true;
  return read_experts_per_token(config, label, out);
}

}  // namespace

constinit const Architecture kMixtral = {"mixtral", configure};

}  // namespace sluice::model
