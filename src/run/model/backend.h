// What a forward pass needs done, by name. Tensors and weights are opaque handles: a back-end may
// keep them in host memory, on a GPU, or read them as they are asked for, and model code cannot
// tell. The only values that come back are a router's choice and a step's results.
//
// Contract of every back-end: a row's result does not depend on the rows computed with it, on how a
// sequence is cut into steps, or on the number of threads; on the processor to the bit, on a device
// but for rounding.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

#include "numerics/rope.h"

namespace sluice::model {

// Handles; kNone is no weight, such as a bias that a family has not.
enum class Weight : uint32_t { kNone = UINT32_MAX };
enum class Tensor : uint32_t {};
enum class RopeTable : uint32_t {};
enum class Sequence : uint32_t {};

// Consecutive rows of a step that continue one sequence, whose keys and values the back-end holds
// for positions [0, first_position).
struct Segment {
  Sequence sequence{};
  uint32_t first_row = 0, rows = 0;
  uint32_t first_position = 0;
};

// One step: a row per token. Segments cover the rows in order; no sequence appears twice.
struct Batch {
  std::span<const uint32_t> tokens;
  std::span<const Segment> segments;
};

// y = W·x (+ bias): one of several products of the same x.
struct Product {
  Weight weight{}, bias = Weight::kNone;
  Tensor out{};
};

// Which dimensions turn together: x[j] with x[j + n/2], or x[2j] with x[2j + 1].
enum class RopeStyle : uint8_t { kHalf, kInterleaved };

// Rotation of dimensions [first, first + 2 · frequencies) of each head; the rest passes through.
struct RopeRule {
  RopeStyle style = RopeStyle::kHalf;
  uint32_t first = 0;
  numerics::RopeFrequencies frequencies;
};

// What a token leaves in one layer's cache: for each of some heads a key and a value. No heads:
// nothing.
struct KvDims {
  uint32_t heads = 0;
  uint32_t key_dim = 0, value_dim = 0;
  // A value is the first value_dim elements of its key and is not stored a second time.
  bool values_in_keys = false;
  bool operator==(const KvDims&) const = default;
};

// Query head h attends with KV head h / (heads / kv.heads) to keys at positions p of its sequence
// with p ≤ own position, own position − p < window where there is one, and in the same chunk of
// positions where there are chunks. A query has key_dim elements, a head of the result value_dim.
struct AttentionRule {
  uint32_t layer = 0;  // whose cache
  uint32_t heads = 0;
  KvDims kv;
  float scale = 1;
  uint32_t window = 0;           // 0: none
  uint32_t chunk = 0;            // 0: none
  float softcap = 0;             // c > 0: scores become c · tanh(score / c)
  Weight sinks = Weight::kNone;  // [heads] scores that take part in the softmax and give nothing
  // Rows that see more keys than that look at those alone that select_keys() chose; 0: at all.
  uint32_t selected_max = 0;

  // The first position that a token there sees, and every later token in the same or a later place.
  size_t first_seen(size_t position) const {
    size_t first = 0;
    if (window > 0 && position >= window) first = position + 1 - window;
    if (chunk > 0) first = std::max(first, position / chunk * chunk);
    return first;
  }
};

// Which keys rows look at: the top_k of the largest Σ_h weight_h · max(0, q_h · k_p) among
// positions p ≤ own (ties: the lowest position), k_p being a small key of one head in a cache of
// its own.
struct IndexRule {
  uint32_t cache = 0;  // as AttentionRule::layer
  uint32_t heads = 0, key_dim = 0, top_k = 0;
};

// A matrix for each head, among the rows of one weight: head h's are rows [h · head_rows +
// first_row, … + rows). y_h = W_h · x_h, or W_hᵀ · x_h when transposed.
struct HeadProduct {
  Weight weight{};
  uint32_t heads = 0;
  uint32_t head_rows = 0, first_row = 0, rows = 0;
  bool transposed = false;
};

// The most taps that a ConvolutionRule may have.
inline constexpr uint32_t kTapsMax = 16;

// Each channel by itself: x[t] = silu(Σ weight[j] · x[t − taps + 1 + j]), over the rows of its
// sequence as they came in.
struct ConvolutionRule {
  uint32_t layer = 0;           // among those with a recurrent state
  Weight weight{};              // [channels, taps]
  Weight bias = Weight::kNone;  // [channels], added before silu
  uint32_t taps = 0;
  // x is some consecutive ones of the layer's channels.
  uint32_t channels = 0, first_channel = 0;
};

// The gated delta rule (Yang et al., 2024). For a value head h, whose key head is
// h / (value_heads / key_heads), with the state S [key_dim, value_dim] and q, k normalised to
// length 1:
//   S = e^g S;  S = S + k (σ(b) (v − Sᵀk))ᵀ;  out = Sᵀq / √key_dim
//   g = −e^a_log · log(1 + e^(a + dt_bias))
struct DeltaRule {
  uint32_t layer = 0;  // among those with a recurrent state
  uint32_t key_heads = 0, value_heads = 0, key_dim = 0, value_dim = 0;
  // Value head h belongs to key head h mod key_heads, instead of h / (value_heads / key_heads).
  bool tiled_heads = false;
  float epsilon = 0;  // of the normalisation, added to the sum of squares
  Weight a_log{}, dt_bias{};
};

// Mamba2's selective state space (Dao and Gu, 2024). For a head h, whose group is
// h / (heads / groups), with the state S [state_dim, head_dim], x, b and c of the token:
//   d = clamp(log(1 + e^(dt + dt_bias)), step_min, step_max)
//   S = e^(−e^a_log · d) S + b (d x)ᵀ;  out = Sᵀc + skip · x
struct StateSpaceRule {
  uint32_t layer = 0;  // among those with a recurrent state
  uint32_t heads = 0, groups = 0, head_dim = 0, state_dim = 0;
  float step_min = 0, step_max = std::numeric_limits<float>::infinity();
  Weight a_log{}, dt_bias{}, skip{};  // [heads] each
};

// What becomes of gate and up: gate = f(gate) ⊙ up, but where the kind says otherwise.
enum class Activation : uint8_t {
  kSilu,
  kGeluTanh,
  kClampedSwiglu,  // g = min(gate, limit), u = clamp(up, ±limit): (u + 1) · g · σ(alpha · g)
  kRelu2,          // max(gate, 0)²; up is not looked at
};
struct ActivationRule {
  Activation kind = Activation::kSilu;
  float alpha = 0, limit = 0;
};

// Queries that grow with their distance from the beginning: times 1 + factor · ln(1 + ⌊(position +
// 1) / interval⌋).
struct PositionScale {
  float factor = 0;
  uint32_t interval = 1;

  float at(uint64_t position) const {
    const uint64_t steps = (position + 1) / interval;
    return static_cast<float>(1 + double{factor} * std::log(1 + static_cast<double>(steps)));
  }
};

// How a router's logits become scores.
enum class RouterScore : uint8_t {
  kSoftmax,          // over all experts
  kSoftmaxOfChosen,  // over the chosen logits
  kSigmoid,          // each by itself
  kSparseMixer,      // one choice after another, each among the logits that come near its own
};

// How they become a choice: the top_k experts of the largest scores (ties: the lowest expert), all
// in f32. Weights are the scores of those chosen.
struct RouterRule {
  uint32_t experts = 0, top_k = 0;
  RouterScore score = RouterScore::kSoftmax;
  bool renormalize = false;  // weights are divided by their sum
  float scale = 1;           // and multiplied by this
  // And by a factor of the expert's own: [experts].
  Weight expert_scale = Weight::kNone;
  // Added to the scores for the choice alone: [experts].
  Weight correction = Weight::kNone;
  // Experts in that many equal groups, of which the groups_kept best are chosen from; a group is as
  // good as the sum of its group_best largest scores.
  uint32_t groups = 1, groups_kept = 1, group_best = 2;
  float dropped_score = -std::numeric_limits<float>::infinity();  // of the other groups' experts
  // kSparseMixer: a logit x counts beside the largest m if m − x ≤ 2 · jitter · max(|x|, m).
  float jitter = 0;
};

// One expert of a row's top_k, the first choice first.
struct Choice {
  uint32_t expert = 0;
  float weight = 0;
};

// The choices of all rows sorted by expert: slot s computes expert e of its group for row
// slot_row[s]. Slots of one group are in order of rows. Plain data; the model fills it.
struct ExpertGroup {
  uint32_t expert = 0;
  uint32_t first_slot = 0, slots = 0;
};
struct ExpertPlan {
  uint32_t rows = 0, top_k = 0;
  std::vector<ExpertGroup> groups;
  std::vector<uint32_t> slot_row;
  std::vector<uint32_t> choice_slot;  // [row·top_k + rank]
  std::vector<float> choice_weight;   // the same order
};

// One thread. Weights and tensors are asked for once, before the first step; a tensor then has as
// many rows as the operation that wrote it last gave it. An operation's out is none of its inputs
// unless said.
class Backend {
 public:
  virtual ~Backend() = default;

  // By the parameter's name, such as "model.norm.weight"; kNone when the model has no such.
  virtual Weight weight(std::string_view name) = 0;
  // A vector of weights to which 1 is added; it must be there.
  virtual Weight weight_plus_one(std::string_view name) = 0;
  // Room for the rows of a step, times copies, of that many f32 columns.
  virtual Tensor tensor(size_t columns, size_t copies = 1) = 0;
  // The same for rows whose logits are computed together, which may be fewer.
  virtual Tensor logits_tensor(size_t columns) = 0;
  virtual RopeTable rope_table(const RopeRule& rule) = 0;

  // ---- rows ----
  virtual void embed(Weight table, std::span<const uint32_t> tokens, Tensor out) = 0;
  virtual void gather(Tensor x, std::span<const uint32_t> rows, Tensor out) = 0;
  virtual void add(Tensor x, Tensor y) = 0;                      // x += y
  virtual void scale(Tensor x, float factor) = 0;                // x *= factor
  virtual void scale_add(Tensor x, float factor, Tensor y) = 0;  // x += factor · y
  virtual void softcap(Tensor x, float cap) = 0;                 // x = cap · tanh(x / cap), cap > 0
  // x = factors ⊙ x: one for every column, or one for all.
  virtual void multiply(Tensor x, Weight factors) = 0;
  virtual void scale_by_position(Tensor x, const PositionScale& rule, const Batch& batch) = 0;
  virtual void rms_norm(Tensor x, Weight weight, float epsilon, Tensor out) = 0;  // out may be x
  // The same; bias may be kNone.
  virtual void layer_norm(Tensor x, Weight weight, Weight bias, float epsilon, Tensor out) = 0;
  // In place, the first columns of each row alone, as many as weight has.
  virtual void rms_norm_first(Tensor x, Weight weight, float epsilon) = 0;
  virtual void activate(const ActivationRule& rule, Tensor gate, Tensor up) = 0;  // into gate
  // x = σ(gate) ⊙ x. gate has as many columns as x, or one for all of a row.
  virtual void sigmoid_mul(Tensor gate, Tensor x) = 0;
  // A row of x is that many equal parts; out gets the columns of each from `first` on, as many as
  // it has room for.
  virtual void take_columns(Tensor x, size_t parts, size_t first, Tensor out) = 0;
  virtual void qmatmul(Tensor x, std::span<const Product> products) = 0;

  // ---- heads: a row is heads · head_dim ----
  // The first elements of each head of x, as many as the product takes, to the first of each head
  // of out; others of out stay. heads divides the columns of both.
  virtual void head_matmul(Tensor x, const HeadProduct& product, Tensor out) = 0;
  // Elements [first, first + count) of each head of x become those from out_first on of out's.
  virtual void copy_heads(Tensor x, size_t heads, size_t first, size_t count, Tensor out,
                          size_t out_first) = 0;
  // weight: one head's, for all alike; kNone counts as ones.
  virtual void rms_norm_heads(Tensor x, size_t heads, Weight weight, float epsilon) = 0;
  virtual void rope(Tensor x, size_t heads, RopeTable table, const Batch& batch) = 0;
  // Appends each row's keys and values to its sequence in that layer.
  // k and v are used up by it; v is not looked at where values lie in keys.
  virtual void store_kv(const AttentionRule& rule, Tensor k, Tensor v, const Batch& batch) = 0;
  // Appends k to its cache and chooses for each row, for the next attention() whose rule says so.
  // q is [heads · key_dim], weights [heads].
  virtual void select_keys(const IndexRule& rule, Tensor q, Tensor k, Tensor weights,
                           const Batch& batch) = 0;
  // After store_kv of the same rows in the rule's layer, by this layer or an earlier one; q is used
  // up by it.
  virtual void attention(const AttentionRule& rule, Tensor q, const Batch& batch, Tensor out) = 0;

  // ---- recurrences; the back-end holds the state of each sequence ----
  virtual void convolve(const ConvolutionRule& rule, Tensor x, const Batch& batch) = 0;
  // All but out are used up by it. q and k: key_heads · key_dim columns; v and out: value_heads ·
  // value_dim; b and a: value_heads.
  virtual void delta(const DeltaRule& rule, Tensor q, Tensor k, Tensor v, Tensor b, Tensor a,
                     const Batch& batch, Tensor out) = 0;

  // dt is used up by it, and decay, of as many columns, overwritten. x and out: heads · head_dim
  // columns; b and c: groups · state_dim; dt: heads.
  virtual void state_space(const StateSpaceRule& rule, Tensor x, Tensor b, Tensor c, Tensor dt,
                           Tensor decay, const Batch& batch, Tensor out) = 0;

  // ---- experts: weights are [experts, rows, columns] ----
  // top_k choices for each row; valid until the next call.
  virtual std::span<const Choice> route(Tensor logits, const RouterRule& rule) = 0;
  // These experts of these weights will be used next, all weights of an expert together. What an
  // earlier request left over is forgotten.
  virtual void request(std::span<const Weight> weights, std::span<const ExpertGroup> experts) = 0;
  // Guesses, from what is known now, at what a later request will name, are worth making. A guess
  // may be wrong and costs reads; it changes no result.
  virtual bool wants_guesses() const { return false; }
  // Never waits. What was requested before goes first.
  virtual void guess(std::span<const Weight> /*weights*/, std::span<const Choice> /*choices*/) {}
  // Some of those requested that can be used now, until the next call; each is given once. Empty:
  // all were given, or reading failed, which the engine finds out after the step.
  virtual std::span<const ExpertGroup> next_experts() = 0;
  // out has a row per slot; x one per slot too, or one per row of the step when x_by_row, which is
  // the same in all calls for one request. Only the slots of the given groups are computed. A bias
  // has a row per expert.
  virtual void expert_matmul(Tensor x, bool x_by_row, const ExpertPlan& plan,
                             std::span<const ExpertGroup> groups,
                             std::span<const Product> products) = 0;
  // out[slot] = weight · x[row] of the choice that the slot is for.
  virtual void scale_slots(Tensor x, const ExpertPlan& plan, Tensor out) = 0;
  // activate() of the slots of these groups.
  virtual void activate_slots(const ActivationRule& rule, Tensor gate, Tensor up,
                              std::span<const ExpertGroup> groups) = 0;
  // out[row] = Σ weight · slots, in the order of ranks.
  virtual void weighted_sum(Tensor slots, const ExpertPlan& plan, Tensor out) = 0;

  // ---- results ----
  // Row-major; valid until the tensor is written again.
  virtual std::span<const float> read(Tensor x) = 0;
  virtual bool all_finite(Tensor x) = 0;
};

}  // namespace sluice::model
