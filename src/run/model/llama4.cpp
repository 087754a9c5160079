// Llama 4: three of four layers attend within chunks of positions, with rotation and norms without
// weights; the fourth sees everything and knows no positions, but its queries grow with their
// distance from the beginning. The router's sigmoid multiplies what goes into an expert, not what
// comes out of it.
#include "model/architecture.h"

namespace sluice::model {
namespace {

constexpr uint64_t kNopeInterval = 4;  // the layers that do not rotate, where no list names them

// A number, or whether there is any; transformers' default is that there is.
Result<bool> tunes_temperature(const Json& config, const std::string& label) {
  constexpr std::string_view kKey = "attn_temperature_tuning";
  const Json* value = json_find(config, kKey);
  if (value == nullptr) return true;
  if (value->is_boolean()) return value->get<bool>();
  SLUICE_ASSIGN(const int64_t number, json_int(config, kKey, 0, INT32_MAX, label));
  return number != 0;
}

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  SLUICE_TRY(read_decoder(config, label, 500000, out));
  out.ropes[0].style = RopeStyle::kInterleaved;
  SLUICE_TRY(read_rope_layers(config, label, kNopeInterval, out));
  SLUICE_ASSIGN(const uint64_t chunk,
                integer_or(config, "attention_chunk_size", 1, UINT32_MAX, 8192, label));
  for (LayerConfig& layer : out.layers)
    if (layer.uses_rope) layer.chunk = static_cast<uint32_t>(chunk);
  SLUICE_ASSIGN(const bool normalises, flag_or(config, "use_qk_norm", true, label));
  if (normalises) out.qk_norm = QkNorm::kRotated;
  // Stock mlx_lm has a figure of its own.
  out.qk_norm_eps = out.compat == Compat::kMlx ? 1e-6f : out.rms_norm_eps;
  SLUICE_ASSIGN(const bool tunes, tunes_temperature(config, label));
  if (tunes) {
    SLUICE_ASSIGN(out.query_scale.factor, factor_or(config, "attn_scale", 0.1f, label));
    SLUICE_ASSIGN(const uint64_t floor,
                  integer_or(config, "floor_scale", 1, UINT32_MAX, 8192, label));
    out.query_scale.interval = static_cast<uint32_t>(floor);
  }
  out.dense_path = "feed_forward";
  out.expert_names = {.router = "feed_forward.router",
                      .experts = "feed_forward.experts",
                      .shared = "feed_forward.shared_expert"};
  out.router.score = RouterScore::kSigmoid;
  out.scales_expert_input = true;
  return read_experts_per_token(config, label, out);
}

}  // namespace

constinit const Architecture kLlama4 = {"llama4", configure};

}  // namespace sluice::model
