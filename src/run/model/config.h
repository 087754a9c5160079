// A model's configuration as its forward pass needs it: config.json in the spellings of
// transformers 4 and 5, every number range-checked, every setting that would change the mathematics
// either understood or refused by name. Families differ in these settings alone: what a family sets
// is in the file of its architecture (architecture.h).
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "families/family.h"
#include "model/backend.h"
#include "model/compat.h"

namespace sluice::model {

// What mixes a layer's tokens with those before them.
enum class MixerKind : uint8_t {
  kNone,  // the layer works on each token by itself
  kAttention,
  kLatentAttention,  // keys and values in one short vector
  kGatedDelta,       // linear attention; DeltaRule
  kMamba,            // StateSpaceRule
};
// Whether it keeps a recurrent state.
constexpr bool is_recurrent(MixerKind kind) {
  return kind == MixerKind::kGatedDelta || kind == MixerKind::kMamba;
}

struct LayerConfig {
  MixerKind mixer = MixerKind::kAttention;
  uint32_t window = 0;        // tokens that attention sees; 0: the whole context
  uint32_t chunk = 0;         // attention sees the same chunk of so many positions alone; 0: none
  bool uses_rope = true;      // positions are turned into q and k
  uint32_t rope = 0;          // by this one of the model's tables
  bool feeds_forward = true;  // else the layer mixes tokens and does nothing more
  bool sparse = false;        // experts instead of one feed-forward part
  uint64_t intermediate_size = 0;  // of its dense feed-forward part
  KvDims kv;                       // what a token leaves in the cache that it attends to
  uint32_t lender = 0;             // whose cache that is: its own, or an earlier layer's
  uint32_t index_cache = 0;        // the number of its indexer's cache, where it has one
  uint32_t state = 0;              // its number among the layers with a recurrent state
};

struct RopeConfig {
  numerics::RopeScaling scaling;
  RopeStyle style = RopeStyle::kHalf;
  uint32_t first = 0;  // dimension of a head that turns
};

// Whether q and k are normalised, before they are rotated but where said, and over what.
enum class QkNorm : uint8_t {
  kNone,
  kHead,     // each head by itself, with one weight of head_dim
  kRow,      // all heads together
  kRotated,  // each head by itself and without weights, in layers that rotate, behind that
};

enum class NormKind : uint8_t {
  kRms,
  kRmsLessOne,  // of weights that are kept less one
  kLayer,       // mean taken off too; with a bias where the model brings one
};

// The parts of a sparse layer under the names that a family has for them; empty where it has none.
struct ExpertNames {
  std::string_view router = "mlp.gate";
  std::string_view experts = "mlp.switch_mlp";
  std::string_view gate = "gate_proj", up = "up_proj", down = "down_proj";  // of experts
  std::string_view correction{};    // a bias per expert, for choosing only
  std::string_view expert_scale{};  // a factor per expert, of what the router gives it
  // The router gets the hidden state itself, normalised with these weights and divided by
  // √hidden_size, instead of what the experts get.
  std::string_view router_norm{};
  // Experts work on vectors of another size: a projection before them, and one behind their sum.
  std::string_view into_latent{}, from_latent{};
  std::string_view shared{};       // a feed-forward part of every token beside its experts
  std::string_view shared_gate{};  // by the sigmoid of which its output is multiplied
};

// Where nothing else is said, what llama does.
struct ModelConfig {
  std::string family;  // model_type
  families::ModelDims dims;
  bool tied = false;  // the head is the embedding
  Compat compat = Compat::kTransformers;
  numerics::DType dtype = numerics::DType::kBF16;  // that the model was made in
  // Of parameters: "model.layers.0.…" and "lm_head.weight".
  std::string prefix = "model.", head = "lm_head";
  std::string_view embedding = "embed_tokens", final_norm = "norm";
  // Of a layer's.
  std::string_view mixer_norm = "input_layernorm";
  std::string_view feed_forward_norm = "post_attention_layernorm";
  std::string_view attention_path = "self_attn";
  std::string_view dense_path = "mlp";  // of its feed-forward part where that has no experts

  std::vector<LayerConfig> layers;
  std::vector<RopeConfig> ropes;
  uint64_t max_position_embeddings = 0;  // 0: not said

  NormKind norm = NormKind::kRms;
  float rms_norm_eps = 0;
  QkNorm qk_norm = QkNorm::kNone;
  float qk_norm_eps = 0;         // of QkNorm::kRotated
  bool value_norm = false;       // each head of v by itself and without weights
  bool keys_are_values = false;  // where a layer has no v_proj: v is k as it is projected
  float attention_scale = 1;     // of the scores
  float attention_softcap = 0;   // c > 0: scores become c · tanh(score / c)
  PositionScale query_scale;     // of layers that do not rotate
  float latent_norm_eps = 0;     // of latent attention's norms of low-rank vectors
  // Where an indexer chooses what a layer of latent attention looks at: how many tokens, what it
  // keeps of each, its norm, and its table among ropes.
  uint32_t index_top_k = 0;  // 0: all of them
  KvDims index_kv;
  float index_norm_eps = 0;
  uint32_t index_rope = 0;
  bool fused_projections = false;  // q, k and v are one matrix, and so are gate and up
  // Each head's rows of q_proj are followed by as many of a gate, whose sigmoid multiplies what the
  // head attends to.
  bool attention_gate = false;
  // Linear attention: in_proj_qkvz and in_proj_ba, whose rows are those of one key head after the
  // other, instead of in_proj_qkv, z, b and a.
  bool fused_linear_projections = false, fused_linear_gates = false;
  bool tiled_value_heads = false;                                         // DeltaRule's
  float step_min = 0, step_max = std::numeric_limits<float>::infinity();  // StateSpaceRule's
  bool gated = true;  // feed-forward parts have a gate beside up
  ActivationRule activation;
  float embedding_multiplier = 1;
  float residual_multiplier = 1;  // of what a layer adds
  float logits_multiplier = 1;
  float logits_softcap = 0;
  // Norms behind both halves of a layer too: post_attention_layernorm is the one behind attention,
  // and pre_feedforward_layernorm and post_feedforward_layernorm are the other half's.
  bool sandwich_norms = false;
  // Layers have inputs of their own: hidden_size_per_layer_input values of each token.
  bool layer_inputs = false;
  float layer_input_multiplier = 1;  // of what is looked up for a token
  bool layer_scalar = false;         // each layer's output is multiplied by a weight of its own
  bool scales_expert_input = false;  // by the router's weight, instead of the output
  // Sparse layers have a dense part as well, on the same input; each has norms of its own.
  bool dense_beside_experts = false;

  RouterRule router;  // top_k 0: the model has no experts
  ExpertNames expert_names;

  bool sparse() const { return dims.experts > 0; }
  // What a token leaves in all caches: the layers', and then their indexers'.
  std::vector<KvDims> caches() const;
  bool has_mixer(MixerKind kind) const;
  // "model.layers.3.self_attn.q_proj.weight" for 3 and "self_attn.q_proj.weight".
  std::string layer_name(uint32_t layer, std::string_view parameter) const;
};

// Whether there is a forward pass for this model_type.
bool has_forward_pass(std::string_view model_type);

// kUnsupported for other families, activation functions and rope scalings; kCorrupt for missing or
// impossible numbers.
Result<ModelConfig> read_config(const io::Checkpoint& checkpoint, const families::ModelMap& map,
                                Compat compat = Compat::kTransformers);

// The rotation of heads of head_dim from rope_theta and rope_scaling, or rope_parameters, of a
// configuration; its numbers are possible ones. label: of config.json, for messages.
// share_default: of dimensions that turn, where partial_rotary_factor is missing.
Result<numerics::RopeScaling> read_rope(const Json& config, uint64_t head_dim, double theta_default,
                                        const std::string& label, double share_default = 1);

// yarn as mlx_lm computes it: always with whole dimensions as the ends of its ramp, and mscale and
// mscale_all_dim each with a default of its own.
void use_mlx_yarn(numerics::RopeScaling& scaling);

// For sequences of up to so many positions: the keys of a cache must all be turned alike, so that
// the two scalings that depend on a sequence's length (dynamic, longrope) take the most it can
// hold.
RopeRule rope_rule(const RopeConfig& rope, size_t context);

// What a sequence's recurrent state takes in each layer that has one, in floats.
struct RecurrentSizes {
  size_t layers = 0;
  size_t past = 0;     // rows that convolutions look back on
  size_t columns = 0;  // of those
  size_t heads = 0, key_dim = 0, value_dim = 0;
};
RecurrentSizes recurrent_sizes(const ModelConfig& config);

// The length whose frequencies those of a sequence are in all tables; 0 where none depends on it.
size_t rope_length(const ModelConfig& config, size_t context);

}  // namespace sluice::model
