// GLM-4.7-Flash: DeepSeek V3 with other defaults, and with another epsilon in mlx_lm.
#include "model/latent.h"

namespace sluice::model {
namespace {

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  const LatentDefaults defaults{
      .rope_theta = 1e6, .routed_scaling_factor = 1.8f, .mlx_latent_eps_is_config = true};
  SLUICE_TRY(read_latent_attention(config, label, defaults, out));
  return read_corrected_router(config, label, defaults, out);
}

}  // namespace

constinit const Architecture kGlm4MoeLite = {"glm4_moe_lite", configure};

}  // namespace sluice::model
