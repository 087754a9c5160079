// Granite 3 with experts, whose weights are a softmax over the chosen ones.
#include "model/granite.h"

namespace sluice::model {
namespace {

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  SLUICE_TRY(read_granite(config, label, out));
  out.expert_names = {.router = "block_sparse_moe.router.layer",
                      .experts = "block_sparse_moe.switch_mlp"};
  out.router.score = RouterScore::kSoftmaxOfChosen;
  return read_experts_per_token(config, label, out);
}

}  // namespace

constinit const Architecture kGraniteMoe = {"granitemoe", configure};

}  // namespace sluice::model
