#include "model/gemma.h"

#include <cmath>

#include "numerics/float_types.h"

namespace sluice::model {

Status read_gemma_activation(const Json& config, const std::string& label, ModelConfig& out) {
  out.activation = {.kind = Activation::kGeluTanh};
  for (const std::string_view key : {"hidden_activation", "hidden_act"}) {
    if (json_find(config, key) == nullptr) continue;
    SLUICE_ASSIGN(const std::string name, json_string(config, key, label));
    if (name != "gelu_pytorch_tanh")
      return fail(ErrorCode::kUnsupported,
                  "{}: {} \"{}\" is not known for this family, only \"gelu_pytorch_tanh\"", label,
                  key, name);
  }
  return {};
}

float embedding_root(uint64_t size, numerics::DType dtype) {
  const float root = std::sqrt(static_cast<float>(size));
  switch (dtype) {
    case numerics::DType::kBF16: return numerics::bf16_to_f32(numerics::f32_to_bf16(root));
    case numerics::DType::kF16: return numerics::f16_to_f32(numerics::f32_to_f16(root));
    default: return root;
  }
}

}  // namespace sluice::model
