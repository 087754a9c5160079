#include "families/kv_shape.h"

#include <algorithm>

#include "families/family.h"

namespace sluice::families {
namespace {

constexpr int64_t kNumberMax = 1 << 24;

uint64_t number(const Json& config, std::string_view key) {
  return static_cast<uint64_t>(json_int(config, key, 0, kNumberMax, "config.json").value_or(0));
}

const Json* list(const Json& config, std::string_view key) {
  const Json* found = json_find(config, key);
  return found != nullptr && found->is_array() ? found : nullptr;
}

// Which layers see a window, by whichever key says so.
class Windows {
 public:
  Windows(const Json& config, uint64_t pattern_default)
      : types_(list(config, "layer_types")),
        window_(number(config, "sliding_window")),
        pattern_(pattern_default) {
    for (const std::string_view key : {"sliding_window_pattern", "_sliding_window_pattern"})
      if (const uint64_t said = number(config, key); said > 0) pattern_ = said;
  }
  uint64_t of(uint64_t layer) const {
    if (window_ == 0) return 0;
    if (types_ != nullptr)
      return layer < types_->size() && (*types_)[layer] == "sliding_attention" ? window_ : 0;
    return pattern_ > 0 && (layer + 1) % pattern_ != 0 ? window_ : 0;
  }

 private:
  const Json* types_;
  uint64_t window_, pattern_;
};

// One more layer, with those that are alike.
void add(std::vector<KvShape>& shapes, KvShape one) {
  const auto alike = std::ranges::find_if(shapes, [&](const KvShape& other) {
    return other.kv_heads == one.kv_heads && other.head_dim == one.head_dim &&
           other.window == one.window;
  });
  if (alike == shapes.end())
    shapes.push_back(one);
  else
    alike->layers += one.layers;
}

KvShape latent_shape(uint64_t layers, uint64_t latent, uint64_t rotary) {
  return {layers, 1, (latent + rotary + 1) / 2, 0};
}

std::vector<KvShape> of_family(const ModelDims& dims, const Family& family, const Json& config) {
  std::vector<KvShape> shapes;
  const Windows windows(config, family.window_pattern);
  for (uint64_t layer = 0; layer < dims.layers; ++layer) {
    const bool keeps = dims.pattern.empty() ? !dims.linear_layer(layer)
                                            : dims.is_kind(layer, LayerKind::kAttention);
    if (!keeps || layer >= dims.first_borrowing_layer) continue;
    if (dims.kv_lora_rank > 0)
      add(shapes, latent_shape(1, dims.kv_lora_rank, dims.qk_rope_head_dim));
    else if (dims.global_layer(layer))
      add(shapes, {1, dims.global_kv_heads, dims.global_head_dim, 0});
    else
      add(shapes, {1, dims.kv_heads, dims.head_dim, windows.of(layer)});
  }
  return shapes;
}

// Without a table: by the common keys.
std::vector<KvShape> of_configuration(const Json& config, uint64_t layers) {
  const uint64_t heads = number(config, "num_attention_heads");
  uint64_t kv_heads = number(config, "num_key_value_heads");
  if (kv_heads == 0) kv_heads = heads;
  uint64_t head_dim = number(config, "head_dim");
  if (head_dim == 0 && heads > 0) head_dim = number(config, "hidden_size") / heads;
  if (const Json* linear = json_find(config, "linear_attn_config"); linear && linear->is_object())
    if (const Json* full = list(*linear, "full_attn_layers"))
      layers = std::min<uint64_t>(layers, full->size());
  if (const uint64_t latent = number(config, "kv_lora_rank"); latent > 0)
    return {latent_shape(layers, latent, number(config, "qk_rope_head_dim"))};
  std::vector<KvShape> shapes;
  const Windows windows(config, 0);
  const Json* blocks = list(config, "block_configs");
  for (uint64_t layer = 0; layer < layers; ++layer) {
    KvShape one{1, kv_heads, head_dim, windows.of(layer)};
    if (blocks != nullptr && layer < blocks->size()) {
      const Json* attention = json_find((*blocks)[layer], "attention");
      const uint64_t group = attention ? number(*attention, "n_heads_in_group") : 0;
      if (group == 0) continue;
      one.kv_heads = heads / group;
    }
    add(shapes, one);
  }
  return shapes;
}

}  // namespace

std::vector<KvShape> kv_shapes(const io::Checkpoint& checkpoint, const ModelMap& map) {
  const Json& config = text_config(checkpoint.config);
  if (const Family* family = find_family(map.family)) {
    Json additions = Json::object();
    if (const auto dims = read_dims(checkpoint, *family, additions))
      return of_family(*dims, *family, config);
  }
  return of_configuration(config, static_cast<uint64_t>(std::max(map.layers, 0)));
}

}  // namespace sluice::families
