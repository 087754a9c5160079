// Llama 4: three of four layers attend within chunks of positions, with rotation and norms without
// weights; the fourth sees everything and knows no positions, but its queries grow with their
// distance from the beginning. The router's sigmoid multiplies what goes into an expert, not what
// comes out of it.
#include "model/architecture.h"

namespace sluice::model {
namespace {

constexpr uint64_t kNopeInterval = 4;  // the layers that do not rotate, where no list names them

Status read_rope_layers(const Json& config, const std::string& label, ModelConfig& out) {
  for (size_t layer = 0; layer < out.layers.size(); ++layer)
    out.layers[layer].uses_rope = (layer + 1) % kNopeInterval != 0;
  // 1 stands for a layer that rotates, whatever the name says.
  const Json* list = json_find(config, "no_rope_layers");
  if (list == nullptr || (list->is_array() && list->empty())) return {};
  if (!list->is_array() || list->size() != out.layers.size())
    return fail(ErrorCode::kCorrupt, "{}: no_rope_layers should be a list of {} layers", label,
                out.layers.size());
  for (size_t layer = 0; layer < out.layers.size(); ++layer) {
    const Json holder{{"no_rope_layers", (*list)[layer]}};
    SLUICE_ASSIGN(const int64_t rotates, json_int(holder, "no_rope_layers", 0, 1, label));
    out.layers[layer].uses_rope = rotates == 1;
  }
  return {};
}

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
  SLUICE_TRY(read_rope_layers(config, label, out));
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
