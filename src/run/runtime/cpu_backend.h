// Backend on the processor: matrix products and layer maths of core/kernels over a thread pool, on
// weights that are there or come while it computes. Every tensor is a row-major f32 array. Products
// of one input share its prepared form; loops over rows run on the calling thread where there is
// one row, as in decoding.
#pragma once

#include <memory>
#include <vector>

#include "base/thread_pool.h"
#include "io/aligned_buffer.h"
#include "kernels/layer_ops.h"
#include "kernels/matmul.h"
#include "model/backend.h"
#include "runtime/perturbation.h"
#include "runtime/router.h"
#include "runtime/step_backend.h"

namespace sluice::runtime {

// Query heads that one work item of attention takes: as many rows as attend_tile() puts together.
inline constexpr size_t kHeadsTogether = 32;

// Nothing is allocated after allocate().
class CpuBackend : public StepBackend {
 public:
  // All must outlive it.
  CpuBackend(const WeightStore& weights, SimdLevel simd, ActivationChoice activations,
             ThreadPool& pool);

  uint64_t scratch_bytes(const StepLimits& limits) const override;
  void allocate(const StepLimits& limits) override;
  void begin(const model::Batch& batch, std::span<KvSequence* const> sequences,
             std::span<const StateStep* const> states = {}) override;

  // After allocate(), between steps. By index of the weight's entry.
  void perturb(std::unordered_map<uint32_t, RowChange> changes);

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
  bool wants_guesses() const override { return weights_.takes_guesses(); }
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

  // Engine::observe_inputs().
  void observe_inputs(OnInput on_input) { on_input_ = std::move(on_input); }
  const ProductCounts& products() const { return products_; }

  const Status& status() const override { return status_; }

 private:
  struct Buffer {
    size_t columns = 0, copies = 1;
    bool logits = false;  // sized by logits_rows instead of rows
    size_t rows = 0;      // in use
    std::span<float> values;
    std::span<float> row(size_t i) const { return values.subspan(i * columns, columns); }
  };
  // A vector of weights plus one; its handle has kPlusOne set. Filled when weights are there.
  struct PlusOne {
    uint32_t entry = 0;
    std::vector<float> values;
  };
  static constexpr uint32_t kPlusOne = 1u << 31;
  void fill(PlusOne& vector) const;

  struct Rope {
    model::RopeRule rule;
    size_t frequencies() const { return rule.frequencies.inv_freq.size(); }
    std::vector<float> cos, sin;  // [rows of the step][frequencies]
  };
  // A product with a weight, some rows of it, or one of its experts, for some rows of activations.
  struct Task {
    numerics::WeightView weight;
    kernels::Activations activations{};
    const std::byte* prepared = nullptr;
    size_t tokens = 0;
    const float* bias = nullptr;
    float* y = nullptr;
    size_t y_stride = 0;
    size_t row_work = 0;  // bytes of weights that a row reads, for each token
  };
  // Rows of one of tasks_.
  struct Item {
    size_t task = 0, first = 0, end = 0;
  };
  struct AttentionTile {
    size_t segment = 0, row = 0, tokens = 0;
    size_t position = 0;
    bool selected = false;  // one token, which looks at what was selected for it
  };
  // Some query heads that share a kv head.
  struct HeadSlice {
    size_t kv_head = 0, first_head = 0, heads = 0;
  };

  Buffer& buffer(model::Tensor tensor) { return buffers_[static_cast<uint32_t>(tensor)]; }
  std::span<const float> vector_of(model::Weight weight) const;
  const float* expert_bias(model::Weight bias, uint32_t expert) const;  // null where there is none
  kernels::Activations activations_of(uint32_t entry) const;
  size_t buffer_rows(const Buffer& buffer, const StepLimits& limits) const;
  struct ScratchBytes {
    size_t values = 0, prepared = 0, slot_prepared = 0, worker = 0, other = 0;
  };
  ScratchBytes scratch_parts(const StepLimits& limits) const;
  std::span<std::byte> scratch(size_t worker);

  // Prepares count rows of x from first on, into their places of prepared_, in the form that the
  // weight multiplies with; returns the bytes of each.
  size_t prepare_rows(uint32_t entry, const Buffer& x, size_t first, size_t count);
  bool prepared_alike(uint32_t a, uint32_t b) const;
  void add_task(const numerics::WeightView& weight, uint32_t entry, const std::byte* prepared,
                size_t tokens, const float* bias, float* y, size_t y_stride);
  void activate_row(const model::ActivationRule& rule, std::span<float> gate,
                    std::span<const float> up) const;
  // Rows of a head's tile of the state, in all pieces of a step. rows: of the segment's first row,
  // whose pointers move on with the rows; run: one of LayerOps' recurrences.
  template <class Run>
  void run_tile(const model::Segment& segment, uint32_t layer, size_t item, kernels::DeltaRows rows,
                Run&& run);
  void multiply_windows(const model::Product& product, const Buffer& from);
  void multiply_experts(model::Tensor x, bool x_by_row, const model::ExpertPlan& plan,
                        std::span<const model::ExpertGroup> groups,
                        std::span<const model::Product> products);
  void show_input(const Buffer& x, size_t first, size_t rows,
                  std::span<const model::Product> products, std::optional<uint32_t> expert);
  void cut_tasks();
  void run_tasks();
  void run_item(const Item& item, size_t worker);
  void attend_tile(const model::AttentionRule& rule, const AttentionTile& tile,
                   const HeadSlice& slice, const model::Batch& batch, const Buffer& q,
                   const Buffer& out, size_t worker);
  void append_range(const KvSequence& sequence, size_t layer, size_t kv_head, size_t first,
                    size_t end, std::vector<kernels::KvSpan>& out) const;
  void append_selected(const KvSequence& sequence, size_t layer, size_t kv_head,
                       std::span<const uint32_t> positions,
                       std::vector<kernels::KvSpan>& out) const;
  std::span<uint32_t> selected_of(size_t row);
  void score_keys(const model::IndexRule& rule, const KvSequence& sequence, size_t first,
                  size_t end, std::span<const float> q, std::span<const float> weights,
                  std::span<float> key);
  void select_best(size_t visible, std::span<uint32_t> out);
  void multiply_heads(const model::HeadProduct& product, const numerics::WeightView& view,
                      uint64_t first_row, const Buffer& x, Buffer& out);
  void multiply_heads_transposed(const model::HeadProduct& product,
                                 const numerics::WeightView& view, uint64_t first_row,
                                 const Buffer& x, Buffer& out);
  // What perturbed weights add to a product, and to rows of it.
  void add_perturbed(const model::Product& product, const numerics::WeightView& view,
                     uint64_t first_row, const Buffer& x);
  void add_perturbed_experts(const Buffer& x, bool x_by_row, const model::ExpertPlan& plan,
                             std::span<const model::ExpertGroup> groups,
                             std::span<const model::Product> products);

  const WeightStore& weights_;
  const kernels::MatmulTable& matmul_;
  const kernels::LayerOps& ops_;
  const ActivationChoice activations_;
  ThreadPool& pool_;

  std::vector<PlusOne> plus_one_;
  std::vector<Buffer> buffers_;
  std::vector<Rope> ropes_;
  size_t copies_max_ = 1;  // of a tensor: chosen experts of a row
  StepLimits limits_;

  std::unique_ptr<float[]> values_;
  io::AlignedBuffer prepared_memory_, slot_memory_, scratch_memory_;
  std::span<std::byte> prepared_, slot_prepared_, scratch_;
  size_t scratch_stride_ = 0;
  std::vector<std::vector<kernels::KvSpan>> spans_;  // per worker
  std::vector<Task> tasks_;
  std::vector<Item> items_;
  std::vector<AttentionTile> tiles_;
  std::vector<HeadSlice> slices_;
  std::vector<uint32_t> selected_;    // [rows of the step][selected_max] positions, ascending
  std::vector<uint32_t> candidates_;  // of a row
  std::vector<float> key_scores_;     // by position
  Router router_;
  std::span<KvSequence* const> sequences_;
  std::span<const StateStep* const> states_;
  Status status_;
  PerturbedProducts perturbed_;
  // Of the last request: slot_prepared_ holds all its rows, in the form of that entry.
  std::optional<uint32_t> slots_prepared_for_;
  size_t slot_bytes_ = 0;
  ProductCounts products_;
  OnInput on_input_;
  bool shown_ = false;  // what all experts of the last request take their rows of
};

}  // namespace sluice::runtime
