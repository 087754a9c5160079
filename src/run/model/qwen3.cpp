// Qwen3, dense: each head of q and k is normalised.
#include "model/qwen.h"

namespace sluice::model {
namespace {

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  out.qk_norm = QkNorm::kHead;
  return read_qwen(config, label, out);
}

}  // namespace

constinit const Architecture kQwen3 = {"qwen3", configure};

}  // namespace sluice::model
