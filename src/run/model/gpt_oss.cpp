// gpt-oss: sinks and biases in attention, windows in every other layer, a softmax over the chosen
// experts alone, and a gated activation that is clamped.
#include "model/architecture.h"

namespace sluice::model {
namespace {

constexpr float kAlpha = 1.702f, kLimit = 7;

// Even layers see a window where no layer_types say otherwise.
Status read_alternating_windows(const Json& config, const std::string& label, ModelConfig& out) {
  SLUICE_ASSIGN(const int64_t window, json_int(config, "sliding_window", 1, UINT32_MAX, label));
  for (size_t layer = 0; layer < out.layers.size(); layer += 2)
    out.layers[layer].window = static_cast<uint32_t>(window);
  if (json_find(config, "layer_types") == nullptr) return {};
  for (LayerConfig& layer : out.layers) layer.window = 0;
  return read_windows(config, label, static_cast<uint32_t>(window), out.layers.size(), out);
}

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  SLUICE_TRY(read_decoder(config, label, 150000, out));
  SLUICE_TRY(read_alternating_windows(config, label, out));
  SLUICE_ASSIGN(const float limit, factor_or(config, "swiglu_limit", kLimit, label));
  SLUICE_ASSIGN(const float alpha, factor_or(config, "swiglu_alpha", kAlpha, label));
  out.activation = {Activation::kClampedSwiglu, alpha, limit};
  out.expert_names = {.router = "mlp.router", .experts = "mlp.experts"};
  out.router.score = RouterScore::kSoftmaxOfChosen;
  return read_experts_per_token(config, label, out);
}

}  // namespace

constinit const Architecture kGptOss = {"gpt_oss", configure};

}  // namespace sluice::model
