// DeepSeek V3 and R1, Kimi K2, and the language model of Kimi K2.5. Defaults are transformers'.
#include "model/latent.h"

namespace sluice::model {
namespace {

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  const LatentDefaults defaults{.routed_scaling_factor = 2.5f};
  SLUICE_TRY(read_latent_attention(config, label, defaults, out));
  return read_corrected_router(config, label, defaults, out);
}

}  // namespace

constinit const Architecture kDeepseekV3 = {"deepseek_v3", configure};
constinit const Architecture kKimiK2 = {"kimi_k2", configure};
constinit const Architecture kKimiK25 = {"kimi_k25", configure};

}  // namespace sluice::model
