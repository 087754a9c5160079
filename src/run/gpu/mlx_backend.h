// Backend over MLX: every operation adds to a graph, which is computed when a router's choice or a
// result is read, and when weights that take turns must be let go. A tensor is an f32 array;
// products are taken in the type of the weights, as MLX's own models do, unless f32 is asked for.
// Keys and values of a sequence are one array for each layer, which grows by blocks of tokens.
#pragma once

#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "gpu/mlx_weights.h"
#include "runtime/router.h"
#include "runtime/step_backend.h"

namespace sluice::gpu {

// Keys and values of a sequence, by layer: [1, heads, room, dim], in order of positions. Arrays are
// values: a fork shares them, and whoever writes has its own.
struct MlxKv : runtime::SequenceStore {
  struct Layer {
    std::optional<mx::array> keys, values;
  };
  std::vector<Layer> layers;
  bool lost = false;  // computing them failed
  std::unique_ptr<runtime::SequenceStore> fork() const override {
    return std::make_unique<MlxKv>(*this);
  }
};

// One recurrent state, by layer.
struct MlxState {
  struct Layer {
    std::map<uint32_t, mx::array> past;  // [taps - 1, channels] by the first channel
    std::optional<mx::array> matrix;     // [heads, rows, columns]
  };
  std::vector<Layer> layers;
};

class MlxBackend : public runtime::StepBackend {
 public:
  // store and memory must outlive it.
  MlxBackend(const runtime::WeightStore& store, const MlxMemory& memory, mx::Device device,
             bool precise, SimdLevel simd);

  uint64_t scratch_bytes(const runtime::StepLimits& limits) const override;
  uint64_t scratch_bytes_max() const override;
  void allocate(const runtime::StepLimits& limits) override;
  void begin(const model::Batch& batch, std::span<runtime::KvSequence* const> sequences,
             std::span<const runtime::StateStep* const> states = {}) override;
  const Status& status() const override { return status_; }

  model::Weight weight(std::string_view name) override;
  model::Weight weight_plus_one(std::string_view name) override;
  model::Tensor tensor(size_t columns, size_t copies) override;
  model::Tensor logits_tensor(size_t columns) override;
  model::RopeTable rope_table(const model::RopeRule& rule) override;

  void embed(model::Weight table, std::span<const uint32_t> tokens, model::Tensor out) override;
  void gather(model::Tensor x, std::span<const uint32_t> rows, model::Tensor out) override;
  void add(model::Tensor x, model::Tensor y) override;
  void scale(model::Tensor x, float factor) override;
  void scale_add(model::Tensor x, float factor, model::Tensor y) override;
  void softcap(model::Tensor x, float cap) override;
  void multiply(model::Tensor x, model::Weight factors) override;
  void scale_by_position(model::Tensor x, const model::PositionScale& rule,
                         const model::Batch& batch) override;
  void rms_norm(model::Tensor x, model::Weight weight, float epsilon, model::Tensor out) override;
  void rms_norm_first(model::Tensor x, model::Weight weight, float epsilon) override;
  void layer_norm(model::Tensor x, model::Weight weight, model::Weight bias, float epsilon,
                  model::Tensor out) override;
  void activate(const model::ActivationRule& rule, model::Tensor gate, model::Tensor up) override;
  void sigmoid_mul(model::Tensor gate, model::Tensor x) override;
  void take_columns(model::Tensor x, size_t parts, size_t first, model::Tensor out) override;
  void qmatmul(model::Tensor x, std::span<const model::Product> products) override;

  void head_matmul(model::Tensor x, const model::HeadProduct& product, model::Tensor out) override;
  void copy_heads(model::Tensor x, size_t heads, size_t first, size_t count, model::Tensor out,
                  size_t out_first) override;
  void rms_norm_heads(model::Tensor x, size_t heads, model::Weight weight, float epsilon) override;
  void rope(model::Tensor x, size_t heads, model::RopeTable table,
            const model::Batch& batch) override;
  void store_kv(const model::AttentionRule& rule, model::Tensor k, model::Tensor v,
                const model::Batch& batch) override;
  void select_keys(const model::IndexRule& rule, model::Tensor q, model::Tensor k,
                   model::Tensor weights, const model::Batch& batch) override;
  void attention(const model::AttentionRule& rule, model::Tensor q, const model::Batch& batch,
                 model::Tensor out) override;

  void convolve(const model::ConvolutionRule& rule, model::Tensor x,
                const model::Batch& batch) override;
  void delta(const model::DeltaRule& rule, model::Tensor q, model::Tensor k, model::Tensor v,
             model::Tensor b, model::Tensor a, const model::Batch& batch,
             model::Tensor out) override;
  void state_space(const model::StateSpaceRule& rule, model::Tensor x, model::Tensor b,
                   model::Tensor c, model::Tensor dt, model::Tensor decay,
                   const model::Batch& batch, model::Tensor out) override;

  std::span<const model::Choice> route(model::Tensor logits,
                                       const model::RouterRule& rule) override;
  void request(std::span<const model::Weight> weights,
               std::span<const model::ExpertGroup> experts) override;
  bool wants_guesses() const override { return weights_.store().takes_guesses(); }
  void guess(std::span<const model::Weight> weights,
             std::span<const model::Choice> choices) override;
  std::span<const model::ExpertGroup> next_experts() override;
  void expert_matmul(model::Tensor x, bool x_by_row, const model::ExpertPlan& plan,
                     std::span<const model::ExpertGroup> groups,
                     std::span<const model::Product> products) override;
  void scale_slots(model::Tensor x, const model::ExpertPlan& plan, model::Tensor out) override;
  void activate_slots(const model::ActivationRule& rule, model::Tensor gate, model::Tensor up,
                      std::span<const model::ExpertGroup> groups) override;
  void weighted_sum(model::Tensor slots, const model::ExpertPlan& plan, model::Tensor out) override;

  std::span<const float> read(model::Tensor x) override;
  bool all_finite(model::Tensor x) override;

 private:
  // Some slots' rows, of one wave of experts.
  struct Piece {
    std::vector<uint32_t> slots;
    mx::array rows;  // [slots, columns]
  };
  struct Value {
    size_t columns = 0, copies = 1;
    size_t rows = 0;                   // in use
    std::optional<mx::array> rows_of;  // [rows, columns]
    std::vector<Piece> pieces;         // or these, of slots, wave after wave
    size_t wave = 0;                   // where the last one begins
  };
  struct Rope {
    model::RopeRule rule;
    std::optional<mx::array> cos, sin;  // [rows of the step, 1, frequencies]; made when wanted
  };
  // Slots that are computed together: of one expert, or one each of several.
  struct Together {
    std::vector<uint32_t> slots, experts;
    bool gathered = false;
  };

  static constexpr uint32_t kPlusOne = 1u << 31;

  // Runs compute unless something failed before; what it throws ends the step.
  template <class Compute>
  void attempt(Compute&& compute) {
    if (!status_) return;
    try {
      compute();
    } catch (const std::exception& error) {
      fail_step(error.what());
    }
  }
  void fail_step(const char* what);
  Value& value(model::Tensor tensor) { return values_[static_cast<uint32_t>(tensor)]; }
  const mx::array& at(model::Tensor tensor) { return *value(tensor).rows_of; }
  void set(model::Tensor tensor, mx::array rows);
  mx::array vector_of(model::Weight weight);
  std::span<const float> host_vector(model::Weight weight);
  mx::array heads_of(model::Tensor x, size_t heads);  // [rows, heads, dim]
  mx::array indices(std::span<const uint32_t> values) const;
  // With what the step leaves behind: keys, values and states.
  void evaluate(std::vector<mx::array> wanted);
  mx::array whole_product(const mx::array& x, uint32_t entry);
  mx::array windowed_product(const mx::array& x, uint32_t entry);
  mx::array activated(const model::ActivationRule& rule, const mx::array& gate,
                      const mx::array& up) const;
  mx::array rows_between(const mx::array& x, size_t first, size_t count) const;
  mx::array columns_between(const mx::array& x, size_t first, size_t count) const;  // last axis

  MlxKv& kv_of(const model::Segment& segment);
  mx::array appended(const std::optional<mx::array>& before, const mx::array& rows, size_t heads,
                     size_t dim, size_t position) const;
  mx::array attend(const model::AttentionRule& rule, const model::Segment& segment, size_t index,
                   const mx::array& q);
  mx::array visible(const model::AttentionRule& rule, const model::Segment& segment,
                    size_t first) const;
  mx::array attend_capped(const model::AttentionRule& rule, const mx::array& q, const mx::array& k,
                          const mx::array& v, const std::optional<mx::array>& mask);

  const runtime::StateStep& step_of(const model::Segment& segment) const;
  // Of a layer in the state that lies there; null: in none.
  MlxState::Layer* state_at(const float* slot, uint32_t layer);
  mx::array matrix_before(const runtime::StateStep& step, uint32_t layer, size_t heads, size_t rows,
                          size_t columns);
  void keep(mx::array& array) { kept_.push_back(array); }

  std::vector<Together> split_groups(std::span<const model::ExpertGroup> groups,
                                     uint32_t entry) const;
  mx::array rows_of_slots(model::Tensor x, bool x_by_row, const model::ExpertPlan& plan,
                          const Together& together, size_t piece);
  mx::array all_slots(model::Tensor x, const model::ExpertPlan& plan);

  const mx::Device device_;
  const bool precise_;
  MlxWeights weights_;
  runtime::Router router_;
  runtime::StepLimits limits_;
  std::vector<uint32_t> plus_one_;  // entries
  std::vector<std::vector<float>> host_plus_one_;
  std::vector<Value> values_;
  std::vector<Rope> ropes_;

  // Of the step.
  Status status_;
  size_t rows_ = 0;
  std::vector<model::Segment> segments_;
  std::span<runtime::KvSequence* const> sequences_;
  std::span<const runtime::StateStep* const> states_;
  std::vector<mx::array> kept_;                     // to be computed with whatever is read next
  std::vector<mx::array> waiting_;                  // read weights that the next wave may replace
  std::vector<std::optional<mx::array>> selected_;  // by segment: [rows, keys], true: looked at
  std::vector<float> host_;                         // what was read last
  std::optional<mx::array> host_array_;
  std::vector<model::Choice> no_choices_;

  // Recurrent states, by where the host keeps room for them.
  std::unordered_map<const float*, MlxState> recurrent_;
};

}  // namespace sluice::gpu
