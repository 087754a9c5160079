// Handles, evaluation, and the operations on rows.
#include "gpu/mlx_backend.h"

#include <algorithm>
#include <cmath>

#include "kernels/layer_ops.h"

namespace sluice::gpu {

using model::Tensor;
using model::Weight;

namespace {

// Steps of some hundred rows keep a GPU busy; its scratch may be larger than a processor's.
constexpr uint64_t kScratchBytesMax = 256'000'000;
// Graphs hold some values of a layer at a time, not all tensors; twice is what was seen at most.
constexpr uint64_t kValuesAtATime = 2;
// The sizes of heads for which MLX's attention never holds the scores.
constexpr uint32_t kFusedHeads[] = {64, 80, 128};

bool fused(const model::KvDims& dims) {
  return dims.key_dim == dims.value_dim &&
         std::ranges::find(kFusedHeads, dims.key_dim) != std::end(kFusedHeads);
}

}  // namespace

MlxBackend::MlxBackend(const runtime::WeightStore& store, const MlxMemory& memory,
                       mx::Device device, bool precise, SimdLevel simd)
    : device_(device),
      precise_(precise),
      weights_(store, memory, device, precise),
      router_(kernels::layer_ops(simd)) {}

uint64_t MlxBackend::scratch_bytes_max() const { return kScratchBytesMax; }

uint64_t MlxBackend::scratch_bytes(const runtime::StepLimits& limits) const {
  uint64_t values = 0, scores = 0, scales = 0;
  for (const Value& v : values_) values += uint64_t{v.columns} * v.copies * sizeof(float);
  for (const model::KvDims& dims : limits.kv.layers)
    if (dims.heads > 0 && (device_ == mx::Device::cpu || !fused(dims)))
      scores = uint64_t{limits.heads} * limits.context * sizeof(float);
  // Weights, or their scales, that are multiplied in f32 are copies for a moment.
  if (precise_)
    for (const runtime::WeightEntry& e : weights_.store().entries())
      if (!e.vector())
        scales = std::max(scales, e.format.quant.mode == numerics::QuantMode::kFloat
                                      ? e.elements() * sizeof(float)
                                      : e.elements() / e.format.quant.group_size * 8);
  return limits.rows * kValuesAtATime * (values + scores) + scales +
         uint64_t{limits.logits_rows} * sizeof(float);
}

void MlxBackend::allocate(const runtime::StepLimits& limits) {
  limits_ = limits;
  // What MLX keeps for the next step counts as scratch.
  mx::set_cache_limit(static_cast<size_t>(scratch_bytes(limits)));
}

void MlxBackend::begin(const model::Batch& batch, std::span<runtime::KvSequence* const> sequences,
                       std::span<const runtime::StateStep* const> states) {
  status_ = {};
  rows_ = batch.tokens.size();
  segments_.assign(batch.segments.begin(), batch.segments.end());
  sequences_ = sequences;
  states_ = states;
  kept_.clear();
  waiting_.clear();
  selected_.assign(batch.segments.size(), std::nullopt);
  for (Rope& rope : ropes_) rope.cos = rope.sin = std::nullopt;
  for (const model::Segment& segment : batch.segments) {
    if (segment.first_position == 0)
      sequences[static_cast<uint32_t>(segment.sequence)]->store() = nullptr;
    if (kv_of(segment).lost)
      status_ = fail(ErrorCode::kExhausted,
                     "the keys and values of this session were lost when computing them failed; "
                     "it has to begin anew");
  }
}

void MlxBackend::fail_step(const char* what) {
  status_ = fail(ErrorCode::kExhausted, "the GPU's library could not compute a step: {}", what);
  for (const model::Segment& segment : segments_) kv_of(segment).lost = true;
  kept_.clear();
  waiting_.clear();
}

Weight MlxBackend::weight(std::string_view name) {
  const auto entry = weights_.store().find(name);
  return entry ? Weight{*entry} : Weight::kNone;
}

Weight MlxBackend::weight_plus_one(std::string_view name) {
  const auto entry = weights_.store().find(name);
  SLUICE_CHECK(entry.has_value());
  plus_one_.push_back(*entry);
  return Weight{kPlusOne | static_cast<uint32_t>(plus_one_.size() - 1)};
}

Tensor MlxBackend::tensor(size_t columns, size_t copies) {
  values_.push_back({.columns = columns, .copies = copies, .rows_of = {}, .pieces = {}});
  return Tensor{static_cast<uint32_t>(values_.size() - 1)};
}

Tensor MlxBackend::logits_tensor(size_t columns) { return tensor(columns, 1); }

model::RopeTable MlxBackend::rope_table(const model::RopeRule& rule) {
  ropes_.push_back({rule, {}, {}});
  return model::RopeTable{static_cast<uint32_t>(ropes_.size() - 1)};
}

void MlxBackend::set(Tensor tensor, mx::array rows) {
  Value& v = value(tensor);
  v.rows = static_cast<size_t>(rows.shape(0));
  v.rows_of = std::move(rows);
  v.pieces.clear();
}

mx::array MlxBackend::vector_of(Weight weight) {
  const auto index = static_cast<uint32_t>(weight);
  if ((index & kPlusOne) == 0) return weights_.floats(index);
  return mx::add(weights_.floats(plus_one_[index & ~kPlusOne]), mx::array(1.0f), device_);
}

// Of a vector that no norm takes: none is one plus something.
std::span<const float> MlxBackend::host_vector(Weight weight) {
  if (weight == Weight::kNone) return {};
  const numerics::WeightView view = weights_.store().view(static_cast<uint32_t>(weight));
  return {reinterpret_cast<const float*>(view.weight), view.columns};
}

mx::array MlxBackend::indices(std::span<const uint32_t> values) const {
  return mx::array(values.begin(), {dim(values.size())}, mx::uint32);
}

mx::array MlxBackend::heads_of(Tensor x, size_t heads) {
  const Value& v = value(x);
  return mx::reshape(*v.rows_of, {dim(v.rows), dim(heads), dim(v.columns / heads)}, device_);
}

mx::array MlxBackend::rows_between(const mx::array& x, size_t first, size_t count) const {
  if (first == 0 && count == static_cast<size_t>(x.shape(0))) return x;
  mx::Shape start(x.ndim(), 0), stop = x.shape();
  start[0] = dim(first);
  stop[0] = dim(first + count);
  return mx::slice(x, start, stop, device_);
}

mx::array MlxBackend::columns_between(const mx::array& x, size_t first, size_t count) const {
  mx::Shape start(x.ndim(), 0), stop = x.shape();
  start[x.ndim() - 1] = dim(first);
  stop[x.ndim() - 1] = dim(first + count);
  return mx::slice(x, start, stop, device_);
}

void MlxBackend::evaluate(std::vector<mx::array> wanted) {
  wanted.insert(wanted.end(), kept_.begin(), kept_.end());
  kept_.clear();
  mx::eval(std::move(wanted));
}

void MlxBackend::embed(Weight table, std::span<const uint32_t> tokens, Tensor out) {
  const auto entry = static_cast<uint32_t>(table);
  Value& to = value(out);
  to.rows = tokens.size();
  attempt([&] {
    if (weights_.store().stays(entry))
      return set(out, weights_.decode(weights_.whole(entry), indices(tokens)));
    host_.resize(tokens.size() * to.columns);
    for (size_t row = 0; row < tokens.size() && status_; ++row)
      status_ = weights_.store().decode_row(entry, tokens[row],
                                            std::span(host_).subspan(row * to.columns, to.columns));
    set(out, mx::array(host_.begin(), {dim(tokens.size()), dim(to.columns)}, mx::float32));
  });
}

void MlxBackend::gather(Tensor x, std::span<const uint32_t> rows, Tensor out) {
  value(out).rows = rows.size();
  attempt([&] { set(out, mx::take(at(x), indices(rows), 0, device_)); });
}

void MlxBackend::add(Tensor x, Tensor y) {
  attempt([&] { set(x, mx::add(at(x), at(y), device_)); });
}

void MlxBackend::scale(Tensor x, float factor) {
  attempt([&] { set(x, mx::multiply(at(x), mx::array(factor), device_)); });
}

void MlxBackend::scale_add(Tensor x, float factor, Tensor y) {
  attempt(
      [&] { set(x, mx::add(at(x), mx::multiply(at(y), mx::array(factor), device_), device_)); });
}

void MlxBackend::softcap(Tensor x, float cap) {
  attempt([&] {
    const mx::array limit(cap);
    set(x, mx::multiply(mx::tanh(mx::divide(at(x), limit, device_), device_), limit, device_));
  });
}

void MlxBackend::multiply(Tensor x, Weight factors) {
  attempt([&] { set(x, mx::multiply(at(x), vector_of(factors), device_)); });
}

void MlxBackend::scale_by_position(Tensor x, const model::PositionScale& rule,
                                   const model::Batch& batch) {
  attempt([&] {
    std::vector<float> grown;
    for (const model::Segment& segment : batch.segments)
      for (uint32_t i = 0; i < segment.rows; ++i)
        grown.push_back(rule.at(uint64_t{segment.first_position} + i));
    const mx::array factors(grown.begin(), {dim(grown.size()), 1}, mx::float32);
    set(x, mx::multiply(at(x), factors, device_));
  });
}

void MlxBackend::rms_norm(Tensor x, Weight weight, float epsilon, Tensor out) {
  value(out).rows = value(x).rows;
  attempt([&] { set(out, mx::fast::rms_norm(at(x), vector_of(weight), epsilon, device_)); });
}

void MlxBackend::rms_norm_first(Tensor x, Weight weight, float epsilon) {
  attempt([&] {
    const mx::array scale = vector_of(weight);
    const size_t count = scale.size(), columns = value(x).columns;
    mx::array first = mx::fast::rms_norm(columns_between(at(x), 0, count), scale, epsilon, device_);
    if (count < columns)
      first = mx::concatenate({first, columns_between(at(x), count, columns - count)}, 1, device_);
    set(x, first);
  });
}

void MlxBackend::layer_norm(Tensor x, Weight weight, Weight bias, float epsilon, Tensor out) {
  value(out).rows = value(x).rows;
  attempt([&] {
    std::optional<mx::array> shift;
    if (bias != Weight::kNone) shift = vector_of(bias);
    set(out, mx::fast::layer_norm(at(x), vector_of(weight), shift, epsilon, device_));
  });
}

mx::array MlxBackend::activated(const model::ActivationRule& rule, const mx::array& gate,
                                const mx::array& up) const {
  const auto times = [&](const mx::array& a, const mx::array& b) {
    return mx::multiply(a, b, device_);
  };
  switch (rule.kind) {
    case model::Activation::kSilu: return times(times(gate, mx::sigmoid(gate, device_)), up);
    case model::Activation::kGeluTanh: {
      // ½ g (1 + tanh(√(2/π) (g + 0.044715 g³)))
      const mx::array cube = times(times(gate, gate), times(gate, mx::array(0.044715f)));
      const mx::array inner = times(mx::add(gate, cube, device_), mx::array(0.7978845608f));
      const mx::array one = mx::add(mx::tanh(inner, device_), mx::array(1.0f), device_);
      return times(times(times(gate, mx::array(0.5f)), one), up);
    }
    case model::Activation::kClampedSwiglu: {
      const mx::array g = mx::minimum(gate, mx::array(rule.limit), device_);
      const mx::array u = mx::clip(up, mx::array(-rule.limit), mx::array(rule.limit), device_);
      const mx::array swish = times(g, mx::sigmoid(times(g, mx::array(rule.alpha)), device_));
      return times(mx::add(u, mx::array(1.0f), device_), swish);
    }
    case model::Activation::kRelu2: {
      const mx::array positive = mx::maximum(gate, mx::array(0.0f), device_);
      return times(positive, positive);
    }
  }
  SLUICE_CHECK(false);
}

void MlxBackend::activate(const model::ActivationRule& rule, Tensor gate, Tensor up) {
  attempt([&] { set(gate, activated(rule, at(gate), at(up))); });
}

void MlxBackend::sigmoid_mul(Tensor gate, Tensor x) {
  attempt([&] { set(x, mx::multiply(mx::sigmoid(at(gate), device_), at(x), device_)); });
}

void MlxBackend::take_columns(Tensor x, size_t parts, size_t first, Tensor out) {
  attempt([&] {
    const size_t columns = value(out).columns;
    const mx::array taken = columns_between(heads_of(x, parts), first, columns / parts);
    set(out, mx::reshape(taken, {dim(value(x).rows), dim(columns)}, device_));
  });
}

mx::array MlxBackend::whole_product(const mx::array& x, uint32_t entry) {
  return weights_.store().stays(entry) ? weights_.multiply(x, weights_.whole(entry))
                                       : windowed_product(x, entry);
}

// A window's frame is read into again once the next window is asked for.
mx::array MlxBackend::windowed_product(const mx::array& x, uint32_t entry) {
  std::vector<mx::array> parts;
  const auto [first, end] = weights_.store().windows(entry);
  for (size_t window = first; window < end; ++window) {
    const auto view = weights_.store().take(window);
    if (!view) {
      status_ = std::unexpected(view.error());
      break;
    }
    parts.push_back(weights_.multiply(x, weights_.matrix(entry, *view)));
    evaluate({parts.back()});
  }
  return parts.empty() ? x : mx::concatenate(parts, -1, device_);
}

void MlxBackend::qmatmul(Tensor x, std::span<const model::Product> products) {
  for (const model::Product& product : products) value(product.out).rows = value(x).rows;
  attempt([&] {
    const mx::array input = at(x);
    for (const model::Product& product : products) {
      mx::array y = whole_product(input, static_cast<uint32_t>(product.weight));
      if (!status_) return;
      if (product.bias != Weight::kNone) y = mx::add(y, vector_of(product.bias), device_);
      set(product.out, y);
    }
  });
}

std::span<const float> MlxBackend::read(Tensor x) {
  const size_t count = value(x).rows * value(x).columns;
  attempt([&] {
    host_array_ = mx::contiguous(at(x), false, device_);
    evaluate({*host_array_});
  });
  if (status_) return {host_array_->data<float>(), count};
  host_.assign(count, 0);
  return host_;
}

// Computed with the logits already, as a rule: what is left is to look.
bool MlxBackend::all_finite(Tensor x) {
  attempt([&] { evaluate({at(x)}); });
  if (!status_) return true;  // nobody looks at values of a step that failed
  const mx::array& rows = at(x);
  const bool plain = rows.flags().row_contiguous;
  return plain ? std::ranges::all_of(std::span(rows.data<float>(), rows.size()),
                                     [](float v) { return std::isfinite(v); })
               : std::ranges::all_of(read(x), [](float v) { return std::isfinite(v); });
}

}  // namespace sluice::gpu
