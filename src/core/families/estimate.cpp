// Sizes of models without a table: sums of matrices by the keys that configurations share.
#include <algorithm>
#include <cmath>

#include "families/outline.h"

namespace sluice::families {
namespace {

// Above any published number, and small enough that no sum here overflows a double's whole numbers
// by much.
constexpr double kNumberMax = 1 << 26;

// The first of the keys that is a positive number, or nothing.
double number(const Json& config, std::initializer_list<std::string_view> keys,
              double fallback = 0) {
  for (const std::string_view key : keys) {
    const Json* value = json_find(config, key);
    if (value == nullptr || !value->is_number()) continue;
    const double found = value->get<double>();
    if (found >= 0 && found <= kNumberMax) return found;
  }
  return fallback;
}

const Json* object(const Json& config, std::string_view key) {
  const Json* value = json_find(config, key);
  return value != nullptr && value->is_object() ? value : nullptr;
}

double latent_attention(const Json& config, double hidden, double heads) {
  const double nope = number(config, {"qk_nope_head_dim"});
  const double rope = number(config, {"qk_rope_head_dim"});
  const double value = number(config, {"v_head_dim"});
  const double q_rank = number(config, {"q_lora_rank"});
  const double kv_rank = number(config, {"kv_lora_rank"});
  const double q_rows = heads * (nope + rope);
  const double q = q_rank > 0 ? (hidden + q_rows) * q_rank : hidden * q_rows;
  return q + hidden * (kv_rank + rope) + kv_rank * heads * (nope + value) + heads * value * hidden;
}

double plain_attention(const Json& config, double hidden, double heads) {
  const double kv_heads = number(config, {"num_key_value_heads"}, heads);
  const double head_dim = number(config, {"head_dim"}, hidden / heads);
  const double value_dim = number(config, {"v_head_dim"}, head_dim);
  const double q_rank = number(config, {"q_lora_rank"});
  const double o_rank = number(config, {"o_lora_rank"}) * number(config, {"o_groups"}, 1);
  const double q = q_rank > 0 ? (hidden + heads * head_dim) * q_rank : hidden * heads * head_dim;
  const double o = o_rank > 0
                       ? heads * value_dim * number(config, {"o_lora_rank"}) + o_rank * hidden
                       : heads * value_dim * hidden;
  return q + o + hidden * kv_heads * (head_dim + value_dim);
}

// q, k, v, a gate and the output, all of the same width.
double linear_attention(const Json& settings, double hidden) {
  return 5 * hidden * number(settings, {"num_heads"}) * number(settings, {"head_dim"});
}

struct Experts {
  double count = 0, chosen = 0;
  double each = 0;    // weights of one
  double always = 0;  // of the router, the shared ones, and what is around experts
};

Experts experts_of(const Json& config, double hidden) {
  Experts experts;
  experts.count = number(config, {"n_routed_experts", "num_local_experts", "num_experts",
                                  "moe_num_experts", "num_routed_experts"});
  if (experts.count == 0) return experts;
  experts.chosen = static_cast<double>(experts_per_token(config));
  const double width = number(config, {"moe_intermediate_size", "expert_intermediate_size",
                                       "moe_ffn_hidden_size", "intermediate_size"});
  const double columns = number(config, {"routed_expert_hidden_size", "moe_latent_size"}, hidden);
  experts.each = 3 * columns * width;
  const double shared = number(config, {"n_shared_experts", "num_shared_experts"});
  const double shared_width = number(config,
                                     {"shared_expert_intermediate_size", "shared_intermediate_size",
                                      "share_expert_dim", "moe_shared_expert_intermediate_size"},
                                     shared * width);
  experts.always = 3 * hidden * shared_width + hidden * experts.count;
  if (columns != hidden) experts.always += 2 * hidden * columns;
  return experts;
}

bool is_sparse(const Json& config, uint64_t layer) {
  if (static_cast<double>(layer) < number(config, {"first_k_dense_replace"})) return false;
  const Json* list = json_find(config, "moe_layer_freq");
  if (list != nullptr && list->is_array())
    return layer < list->size() && (*list)[layer].is_number() && (*list)[layer].get<double>() != 0;
  return true;
}

// Layers of sizes of their own (Nemotron's searched architectures): heads in a group that share
// keys, and the feed-forward part's width as a multiple of hidden_size.
double searched_layer(const Json& block, const Json& config, double hidden, double heads) {
  constexpr double kWidthStep = 256;
  double sum = 0;
  const Json* attention = object(block, "attention");
  if (attention != nullptr && !attention->value("no_op", false)) {
    const double kv_heads = heads / std::max(number(*attention, {"n_heads_in_group"}, 1), 1.0);
    const double head_dim = number(config, {"head_dim"}, hidden / heads);
    sum += 2 * hidden * head_dim * (heads + kv_heads);
  }
  const Json* ffn = object(block, "ffn");
  if (ffn != nullptr && !ffn->value("no_op", false)) {
    const double width = std::floor(2 * number(*ffn, {"ffn_mult"}) * hidden / 3);
    sum += 3 * hidden * std::ceil(width / kWidthStep) * kWidthStep;
  }
  return sum;
}

}  // namespace

uint64_t experts_per_token(const Json& config) {
  return static_cast<uint64_t>(
      number(text_config(config), {"num_experts_per_tok", "num_experts_per_token", "top_k_experts",
                                   "experts_per_token", "moe_topk", "moe_top_k"}));
}

std::optional<SizeEstimate> estimate_size(const Json& whole) {
  const Json& config = text_config(whole);
  const double hidden = number(config, {"hidden_size", "n_embd", "d_model"});
  const double layers =
      std::min(number(config, {"num_hidden_layers", "n_layer", "num_layers"}), 4096.0);
  const double heads = number(config, {"num_attention_heads", "n_head"});
  const double vocab = number(config, {"vocab_size"}, number(whole, {"vocab_size"}));
  if (hidden == 0 || layers == 0 || heads == 0 || vocab == 0) return std::nullopt;
  const Experts experts = experts_of(config, hidden);
  const double width = number(
      config, {"dense_intermediate_size", "intermediate_size_mlp", "intermediate_size", "n_inner"},
      4 * hidden);
  const bool latent = number(config, {"kv_lora_rank"}) > 0;
  const double attention =
      latent ? latent_attention(config, hidden, heads) : plain_attention(config, hidden, heads);
  const Json* linear = object(config, "linear_attn_config");
  const Json* linear_layers = linear == nullptr ? nullptr : json_find(*linear, "kda_layers");
  const double linear_count = linear_layers != nullptr && linear_layers->is_array()
                                  ? std::min(static_cast<double>(linear_layers->size()), layers)
                                  : 0;
  const Json* tied = json_find(config, "tie_word_embeddings");
  if (tied == nullptr) tied = json_find(whole, "tie_word_embeddings");
  double total = (tied != nullptr && *tied == true ? 1 : 2) * vocab * hidden;
  double unused = 0;
  const Json* blocks = json_find(config, "block_configs");
  if (blocks != nullptr && blocks->is_array()) {
    for (const Json& block : *blocks) total += searched_layer(block, config, hidden, heads);
  } else {
    total += (layers - linear_count) * attention;
    if (linear_count > 0) total += linear_count * linear_attention(*linear, hidden);
    for (uint64_t layer = 0; layer < static_cast<uint64_t>(layers); ++layer) {
      if (experts.count == 0 || !is_sparse(config, layer)) {
        total += 3 * hidden * width;
        continue;
      }
      total += experts.count * experts.each + experts.always;
      if (experts.chosen > 0 && experts.chosen < experts.count)
        unused += (experts.count - experts.chosen) * experts.each;
    }
  }
  return SizeEstimate{static_cast<uint64_t>(total), static_cast<uint64_t>(total - unused),
                      static_cast<uint64_t>(layers), static_cast<uint64_t>(experts.count),
                      static_cast<uint64_t>(experts.chosen)};
}

}  // namespace sluice::families
