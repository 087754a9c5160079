// What a family's table says: one rule per output module, with its names in either kind of source,
// its role, and its shape in terms of the configuration. The tables are data; map_model.cpp is the
// one engine that reads them.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "families/recipe.h"

namespace sluice::families {

// An axis length, read off the configuration.
enum class Dim : uint8_t {
  kNone,  // ends a shape
  kVocab,
  kHidden,
  kIntermediate,
  kQRows,   // num_attention_heads · head_dim
  kKvRows,  // num_key_value_heads · head_dim
  kHeadDim,
  kExperts,
  kExpertIntermediate,
  kSharedIntermediate,  // of the experts that every token goes through, together
  // Latent attention.
  kHeads,
  kQLoraRank,
  kKvLoraRank,
  kMlaQRows,  // num_attention_heads · (qk_nope_head_dim + qk_rope_head_dim)
  kKvARows,   // kv_lora_rank + qk_rope_head_dim
  kQkNopeHeadDim,
  kVHeadDim,
  kValueColumns,  // num_attention_heads · v_head_dim
  kKvBRows,       // num_attention_heads · (qk_nope_head_dim + v_head_dim)
  // Of the indexer that chooses tokens for attention.
  kIndexHeads,
  kIndexHeadDim,
  kIndexQRows,  // index_n_heads · index_head_dim
  // Linear attention (Gated DeltaNet). Key heads · key_head_dim: KD; value heads likewise: VD.
  kGatedQRows,           // 2 · num_attention_heads · head_dim: each head's queries, then its gates
  kLinearQkvRows,        // 2 KD + VD
  kLinearQkvzRows,       // 2 KD + 2 VD
  kLinearBaRows,         // 2 · linear_num_value_heads
  kLinearValueRows,      // VD
  kLinearValueHeads,     // linear_num_value_heads
  kLinearValueHeadDim,   // linear_value_head_dim
  kLinearConvKernelDim,  // linear_conv_kernel_dim
  kOne,
  // Gemma 4. Its global layers see everything, with heads of their own.
  kGlobalQRows,          // num_attention_heads · global_head_dim
  kGlobalKvRows,         // num_global_key_value_heads · global_head_dim
  kGlobalHeadDim,        // global_head_dim
  kDoubleIntermediate,   // 2 · intermediate_size
  kLayerInput,           // hidden_size_per_layer_input
  kLayerInputsTogether,  // of all layers
  kLayerInputVocab,      // vocab_size_per_layer_input
  kQkvRows,              // kQRows and twice kKvRows
  kGateUpRows,           // twice kIntermediate
  // Mamba2. Heads · head_dim: its inner width.
  kMambaInner,
  kMambaConvChannels,  // inner width + 2 · n_groups · ssm_state_size
  kMambaInRows,        // both of these, and a row for each head
  kMambaHeads,
  kExpertColumns,  // moe_latent_size, else hidden_size
  kExpertLatent,
};

// In which models, and in which of their layers, a module exists.
enum class When : uint8_t {
  kAlways,
  kUntied,         // the head is not the embedding
  kAttentionBias,  // config attention_bias
  kMlpBias,        // config mlp_bias
  kDenseMlp,       // layers without experts
  kSparseMlp,      // layers with experts
  kSharedExperts,  // such layers, where the model has shared experts
  kQLora,          // latent attention whose q has a low rank (q_lora_rank is a number)
  kFullQ,          // and where it has not
  kQLoraBias,      // kQLora and kAttentionBias
  kFullAttention,  // layers that attend, where others have linear attention
  kFullAttentionBias,
  kLinearAttention,
  kWindowed,    // layers that see a window, where others see everything
  kGlobal,      // and those
  kWindowedKv,  // such layers that do not borrow keys and values
  kGlobalKv,
  kGlobalV,      // and whose values are not their keys
  kNarrowMlp,    // layers of intermediate_size, where others are twice as wide
  kWideMlp,      // and those
  kLayerInputs,  // models with inputs of their own for every layer
  kQkNorm,       // config use_qk_norm
  // Models whose layers each are one thing, by their pattern.
  kMambaLayer,
  kMambaConvBias,
  kMambaProjBias,
  kAttentionLayer,
  kAttentionLayerBias,
  kMlpLayer,
  kMlpLayerBias,
  kMoeLayer,
  kMoeLayerShared,
  kMoeLayerSharedBias,
  kMoeLayerLatent,
  kMoeLayerLatentBias,
};

// Which rows of a source tensor are meant.
enum class Part : uint8_t {
  kAll,
  kFirstHalf,   // of each expert
  kSecondHalf,  // of each expert
  kHeadKeys,    // of kv_b_proj: each head's first qk_nope_head_dim rows, transposed
  kHeadValues,  // of kv_b_proj: each head's other v_head_dim rows
  kEvenRows,    // of a tensor whose rows are those of two modules by turns
  kOddRows,
  kQkvAndGate,  // of GGUF's attn_qkv, and of attn_gate: the rows of each key head, in_proj_qkvz's
  // Of a stack of [in, out] matrices, each to be transposed: all columns, the first or the second
  // half of them, or every other one.
  kColumns,
  kFirstColumns,
  kSecondColumns,
  kEvenColumns,
  kOddColumns,
};

// One way in which a source may store a module. {L} in a name is the layer. A name with {E} is one
// tensor per expert; without it a stacked module is one stacked tensor.
struct SourceRule {
  std::string_view name;
  Part part = Part::kAll;
};

// Where a module's rows or columns belong to value heads of linear attention, of which a key head
// has several, and llama.cpp's converter has put the first one of every key head first, then all
// second ones.
enum class ValueHeads : uint8_t {
  kInOrder,
  kRows,
  kRowsBehindKeys,  // of in_proj_qkv: those behind the queries' and the keys'
  kColumns,
};

struct ModuleRule {
  std::string_view path;  // with {L} inside layers
  std::string_view parameter = "weight";
  Role role = Role::kOther;
  std::array<Dim, 3> shape{};
  bool quantizable = false;
  int bits_floor = 0, uniform_bits = 0;  // OutputModule's
  When when = When::kAlways;
  bool keep_dtype = false;  // never cast to the model's float type
  // One is added to the values of an unconverted checkpoint, whose norms multiply by 1 + w.
  bool add_one = false;
  // A convolution's filters, [channels, taps, 1], in an unconverted checkpoint [channels, 1, taps]:
  // the same bytes.
  bool filters = false;
  // Hugging Face layouts to look for, the first that is there wins; none: path + "." + parameter.
  std::array<SourceRule, 3> sources{};
  std::string_view gguf{};                   // llama.cpp's name; empty where it has none
  RowOrder gguf_order = RowOrder::kInOrder;  // q and k: heads of head_dim rows
  SourceRule gguf_other{};                   // where the file has no tensor of that name
  Part gguf_part = Part::kAll;
  ValueHeads gguf_heads = ValueHeads::kInOrder;
  numerics::ValueStep gguf_step = numerics::ValueStep::kNone;
};

// Where a family's head_dim comes from.
enum class HeadDim : uint8_t {
  kOptional,    // config head_dim, else hidden_size / num_attention_heads
  kFromHidden,  // always hidden_size / num_attention_heads, because mlx_lm reads no other
  kRequired,    // config head_dim, which mlx_lm requires
  kLatent,      // latent attention: kv_lora_rank and the like instead
};

// By which keys a family's configuration describes experts.
enum class ExpertKeys : uint8_t {
  kNone,
  kMixtral,        // num_local_experts of intermediate_size, in every layer
  kQwen,           // num_experts, decoder_sparse_step, mlp_only_layers
  kDeepseek,       // n_routed_experts, n_shared_experts, first_k_dense_replace, moe_layer_freq
  kQwenShared,     // kQwen, and shared_expert_intermediate_size
  kQwenAllSparse,  // the same with experts in every layer, where there are any
  kGemma4,         // enable_moe_block, num_experts, top_k_experts; in every layer
  kLlama4,         // num_local_experts, intermediate_size, interleave_moe_layer_step; a shared one
  kOlmoe,          // num_experts of intermediate_size, in every layer
  kQwen2,          // num_experts in every layer, shared_expert_intermediate_size
  kNemotron,       // n_routed_experts, moe_latent_size, moe_shared_expert_intermediate_size
};

// By what mlx_lm's loader knows a checkpoint as transformers writes it, whose ModuleRule::add_one
// and ModuleRule::filters it then sees to itself: ours must not be taken for such.
enum class Unconverted : uint8_t {
  kNever,
  kConvAxis,         // some conv1d.weight whose last axis is not 1
  kSeparateExperts,  // some layer's mlp.experts.0.up_proj.weight; or kConvAxis
};

// Source names that begin with `from` stand for names that begin with `to` instead.
struct NamePrefix {
  std::string_view from, to;
};

// A number that configurations of a family leave to transformers.
struct ConfigDefault {
  std::string_view key;
  uint64_t value;
};

// Tensors of other parts of a model, by the beginning of their names.
struct OtherPart {
  std::string_view prefix;
  std::string_view part;  // "vision part"
};

struct Family {
  std::string_view name;  // config model_type
  // What a language model that was taken out of a model of several parts is called. mlx_lm knows
  // it by the whole model's name, which the output's configuration then has.
  std::string_view text_model_type{};
  HeadDim head_dim = HeadDim::kOptional;
  // mlx_lm's module order: before the layers, in each layer, after them.
  std::span<const ModuleRule> before{}, layer{}, after{};
  // Source tensors left out on purpose.
  std::span<const std::string_view> dropped{}, gguf_dropped{};
  ExpertKeys experts = ExpertKeys::kNone;
  bool extra_layers_dropped = false;  // layers from num_hidden_layers on: multi-token prediction
  bool head_required = false;         // mlx_lm ties no embeddings here
  bool tied_by_default = false;       // transformers ties them where a configuration does not say
  // Tables and source rules have a text model's own names ("model.norm"). A model of several parts
  // has prefixes before them: of its source, the first that matches is exchanged; of the output.
  std::span<const NamePrefix> source_prefixes{};
  std::string_view output_prefix{};
  std::span<const OtherPart> other_parts{};  // left out with a note
  std::span<const ConfigDefault> defaults{};
  bool vocab_beside_text = false;  // mlx_lm reads vocab_size beside text_config, not in it
  Unconverted unconverted = Unconverted::kNever;
  bool linear_attention = false;  // in most layers: linear_num_key_heads and the like
  bool has_indexer = false;       // index_n_heads and index_head_dim
  bool qk_norm = false;           // where use_qk_norm is missing
  bool layer_pattern = false;     // each layer is one of LayerKind: hybrid_override_pattern
  // Arrangement::kAsStored of GGUF: instead of layer where it is not empty; whether ValueHeads
  // stay.
  std::span<const ModuleRule> gguf_stored_layer{};
  bool gguf_tiled_heads = false;
  bool gguf_extra_layers = false;  // blocks from num_hidden_layers on: multi-token prediction
  // Every so many layers one sees everything and the others a window, where the configuration does
  // not say which; 0: no layer sees a window then.
  uint64_t window_pattern = 0;
};

// The known families, by model_type; null for others.
const Family* find_family(std::string_view model_type);

extern const Family kLlama;
extern const Family kMistral;
extern const Family kMixtral;
extern const Family kQwen2;
extern const Family kQwen3;
extern const Family kQwen3Moe;
extern const Family kDeepseekV2;
extern const Family kDeepseekV3;
extern const Family kDeepseekV32;
extern const Family kGlm4MoeLite;
extern const Family kGlmMoeDsa;
extern const Family kKimiK2;
extern const Family kKimiK25;
extern const Family kQwen3Next;
extern const Family kQwen3_5;
extern const Family kQwen3_5Moe;
extern const Family kGptOss;
extern const Family kGemma3;
extern const Family kGemma3Text;
extern const Family kGemma4;
extern const Family kLlama4;
extern const Family kOlmoe;
extern const Family kQwen2Moe;
extern const Family kGlm4Moe;
extern const Family kMinimaxM2;
extern const Family kGranite;
extern const Family kGraniteMoe;
extern const Family kPhi3;
extern const Family kPhimoe;
extern const Family kNemotronH;
extern const Family kGemma2;
extern const Family kQwen3Vl;
extern const Family kQwen3VlMoe;
extern const Family kMimo;
extern const Family kSmollm3;
extern const Family kSeedOss;
extern const Family kErnie4_5;
extern const Family kMistral3;

// The label of errors about text_config()'s keys: config_label, and where inside it they are.
std::string text_config_label(const io::Checkpoint& checkpoint);

// As hybrid_override_pattern writes them.
enum class LayerKind : char { kMamba = 'M', kAttention = '*', kMlp = '-', kMoe = 'E' };

// The configuration's numbers, each range-checked before it sizes anything.
struct ModelDims {
  uint64_t hidden_size = 0, intermediate_size = 0, vocab_size = 0;
  uint64_t layers = 0, heads = 0, kv_heads = 0, head_dim = 0;
  uint64_t experts = 0, expert_intermediate_size = 0;
  uint64_t shared_intermediate_size = 0;  // 0: no shared experts
  // Layer l has experts iff l ≥ first_sparse_layer, (l + sparse_offset) % sparse_step = 0, and it
  // is none of mlp_only_layers.
  uint64_t first_sparse_layer = 0, sparse_step = 1, sparse_offset = 1;
  std::vector<uint64_t> mlp_only_layers;       // sorted
  uint64_t q_lora_rank = 0, kv_lora_rank = 0;  // 0: not of low rank
  uint64_t qk_nope_head_dim = 0, qk_rope_head_dim = 0, v_head_dim = 0;
  uint64_t index_heads = 0, index_head_dim = 0;
  bool attention_bias = false, mlp_bias = false, qk_norm = false;
  // Linear attention in all layers but every full_attention_interval-th; 0: every layer attends.
  uint64_t full_attention_interval = 0;
  uint64_t linear_key_heads = 0, linear_value_heads = 0;
  uint64_t linear_key_head_dim = 0, linear_value_head_dim = 0, linear_conv_kernel_dim = 0;

  std::vector<LayerKind> pattern;  // where layers are of one kind each
  uint64_t mamba_heads = 0, mamba_head_dim = 0, mamba_groups = 0, mamba_state = 0;
  uint64_t expert_latent_size = 0;  // 0: experts work on hidden_size
  bool conv_bias = false, mamba_proj_bias = false;
  // Gemma 4: layers that see everything, and those from first_borrowing_layer on, which take the
  // keys and values of earlier ones.
  std::vector<uint64_t> global_layers;  // sorted
  uint64_t global_head_dim = 0, global_kv_heads = 0, first_borrowing_layer = UINT64_MAX;
  uint64_t layer_input_size = 0, layer_input_vocab_size = 0;
  bool keys_are_values = false, double_wide_mlp = false;

  bool global_layer(uint64_t layer) const;
  bool linear_layer(uint64_t layer) const {
    return full_attention_interval > 0 && (layer + 1) % full_attention_interval != 0;
  }
  bool is_kind(uint64_t layer, LayerKind kind) const {
    return layer < pattern.size() && pattern[layer] == kind;
  }
  bool sparse_layer(uint64_t layer) const;
  uint64_t length(Dim dim) const;
};

// Of text_config(). additions: filled with the keys that mlx_lm needs there and the source leaves
// out.
Result<ModelDims> read_dims(const io::Checkpoint& checkpoint, const Family& family,
                            Json& additions);

struct OutputType {
  numerics::DType dtype;
  std::string name;
};
Result<OutputType> choose_dtype(const io::Checkpoint& checkpoint, std::string_view dtype_override);

// What the configuration calls for, in the order of the family's tables: every rule's first layout.
// A checkpoint that has tensors counts by their names alone; the layouts are then those that it
// has, and kCorrupt names what is missing or left over.
Result<std::vector<io::TensorInfo>> outlined_tensors(const io::Checkpoint& checkpoint,
                                                     const Family& family);

// "config.json of PATH", or "metadata of PATH" for GGUF: the label of configuration errors.
std::string config_label(const io::Checkpoint& checkpoint);

// kUnsupported for families without a table that the generic rule would get wrong, and for those
// that mlx_lm does not know.
Status refuse_by_name(const io::Checkpoint& checkpoint, std::string_view model_type);

// The rule for unknown families, stated at map_model().
Result<ModelMap> map_generic(const io::Checkpoint& checkpoint, const std::string& model_type);

}  // namespace sluice::families
