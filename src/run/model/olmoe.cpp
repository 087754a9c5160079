// OLMoE: all heads of q are normalised together, and all of k.
#include "model/architecture.h"

namespace sluice::model {
namespace {

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  if (json_find(config, "clip_qkv") != nullptr)
    return fail(ErrorCode::kUnsupported, "{}: clip_qkv is not known", label);
  SLUICE_TRY(read_decoder(config, label, 1e4, out));
  out.qk_norm = QkNorm::kRow;
  SLUICE_ASSIGN(out.router.renormalize, flag_or(config, "norm_topk_prob", false, label));
  return read_experts_per_token(config, label, out);
}

}  // namespace

constinit const Architecture kOlmoe = {"olmoe", configure};

}  // namespace sluice::model
