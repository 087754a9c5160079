// GLM-4.5, 4.6 and 4.7: half of each head is rotated, heads are normalised where the configuration
// says so, and experts are DeepSeek's.
#include "model/latent.h"

namespace sluice::model {
namespace {

constexpr std::string_view kShare = "partial_rotary_factor";

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  Json filled = config;
  if (json_find(config, kShare) == nullptr) filled[kShare] = 0.5;  // transformers' default
  SLUICE_TRY(read_decoder(filled, label, 1e4, out));
  if (out.dims.qk_norm) out.qk_norm = QkNorm::kHead;
  out.expert_names.shared = "mlp.shared_experts";
  return read_corrected_router(config, label, {}, out);
}

}  // namespace

constinit const Architecture kGlm4Moe = {"glm4_moe", configure};

}  // namespace sluice::model
