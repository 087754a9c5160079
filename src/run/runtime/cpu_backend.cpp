// Handles, scratch memory, and the operations on rows; products are in cpu_products.cpp, routers in
// cpu_router.cpp, attention and positions in cpu_attention.cpp.
#include "runtime/cpu_backend.h"

#include <algorithm>
#include <cmath>

#include "runtime/cpu_rows.h"

namespace sluice::runtime {

using families::Role;
using kernels::Activations;
using model::Tensor;
using model::Weight;

CpuBackend::CpuBackend(const WeightStore& weights, SimdLevel simd, ActivationChoice activations,
                       ThreadPool& pool)
    : weights_(weights),
      matmul_(kernels::matmul_table(simd)),
      ops_(kernels::layer_ops(simd)),
      activations_(activations),
      pool_(pool),
      router_(ops_),
      perturbed_(matmul_, pool) {}

Weight CpuBackend::weight(std::string_view name) {
  const auto entry = weights_.find(name);
  return entry ? Weight{*entry} : Weight::kNone;
}

Weight CpuBackend::weight_plus_one(std::string_view name) {
  const auto entry = weights_.find(name);
  SLUICE_CHECK(entry.has_value() && weights_.entries()[*entry].vector());
  plus_one_.push_back({.entry = *entry, .values = {}});
  if (limits_.rows > 0) fill(plus_one_.back());
  return Weight{kPlusOne | static_cast<uint32_t>(plus_one_.size() - 1)};
}

void CpuBackend::fill(PlusOne& vector) const {
  const std::span<const float> stored = vector_of(Weight{vector.entry});
  vector.values.assign(stored.begin(), stored.end());
  for (float& value : vector.values) value += 1;
}

Tensor CpuBackend::tensor(size_t columns, size_t copies) {
  copies_max_ = std::max(copies_max_, copies);
  buffers_.push_back({.columns = columns, .copies = copies, .values = {}});
  return Tensor{static_cast<uint32_t>(buffers_.size() - 1)};
}

Tensor CpuBackend::logits_tensor(size_t columns) {
  buffers_.push_back({.columns = columns, .logits = true, .values = {}});
  return Tensor{static_cast<uint32_t>(buffers_.size() - 1)};
}

model::RopeTable CpuBackend::rope_table(const model::RopeRule& rule) {
  ropes_.push_back({rule, {}, {}});
  return model::RopeTable{static_cast<uint32_t>(ropes_.size() - 1)};
}

// By format and role alone, so that precision never depends on what is computed together. Routers
// decide between experts and the head between tokens, and the gates of a recurrence (of no role of
// their own) are exponents: all these are precise.
Activations CpuBackend::activations_of(uint32_t entry) const {
  const WeightEntry& e = weights_.entries()[entry];
  const bool precise = e.role == Role::kHead || e.role == Role::kEmbedding ||
                       e.role == Role::kRouter || e.role == Role::kOther;
  switch (activations_) {
    case ActivationChoice::kF32: return Activations::kF32;
    case ActivationChoice::kI8: return Activations::kI8;
    case ActivationChoice::kAuto: return kernels::auto_activations(e.format, precise);
  }
  SLUICE_CHECK(false);
}

size_t CpuBackend::buffer_rows(const Buffer& buffer, const StepLimits& limits) const {
  return buffer.logits ? limits.logits_rows : limits.rows * buffer.copies;
}

CpuBackend::ScratchBytes CpuBackend::scratch_parts(const StepLimits& limits) const {
  ScratchBytes bytes;
  for (const Buffer& buffer : buffers_)
    bytes.values += buffer_rows(buffer, limits) * buffer.columns * sizeof(float);
  for (const model::KvDims& dims : limits.kv.layers) {
    bytes.worker = std::max(bytes.worker, dims.key_dim * sizeof(float));  // a decoded key
    if (dims.heads == 0 || dims.value_dim == 0) continue;
    const kernels::AttentionShape attention{
        .key_type = limits.kv.type,
        .value_type = limits.kv.type,
        .group = std::min(kHeadsTogether, limits.heads / dims.heads),
        .key_dim = dims.key_dim,
        .value_dim = dims.value_dim,
        .scale = 1};
    bytes.worker = std::max(bytes.worker, ops_.attend_scratch_bytes(attention));
  }
  for (uint32_t i = 0; i < weights_.entries().size(); ++i) {
    const WeightEntry& e = weights_.entries()[i];
    if (e.role == Role::kNorm || e.role == Role::kBias) continue;
    const auto columns = static_cast<size_t>(e.columns);
    const Activations activations = activations_of(i);
    const size_t row = matmul_.prepared_bytes(e.format, activations, columns);
    const size_t rows = limits.rows * (e.experts > 1 ? copies_max_ : 1);
    bytes.prepared = std::max(bytes.prepared, row * rows);
    if (e.experts > 1) bytes.slot_prepared = std::max(bytes.slot_prepared, row * rows);
    bytes.worker =
        std::max({bytes.worker, matmul_.scratch_bytes(e.format, activations, columns, limits.rows),
                  columns * sizeof(float)});  // a decoded row
  }
  bytes.worker = align_up(bytes.worker, io::kDirectAlignment);
  const size_t spans = limits.selected_max + limits.context / kKvBlockTokens + 2;
  bytes.other = pool_.threads() * spans * sizeof(kernels::KvSpan);
  bytes.other += limits.rows * limits.selected_max * sizeof(uint32_t);
  if (limits.selected_max > 0) bytes.other += limits.context * (sizeof(float) + sizeof(uint32_t));
  for (const Rope& rope : ropes_)
    bytes.other += 2 * limits.rows * rope.frequencies() * sizeof(float);
  for (const PlusOne& vector : plus_one_)
    bytes.other += static_cast<size_t>(weights_.entries()[vector.entry].columns) * sizeof(float);
  return bytes;
}

uint64_t CpuBackend::scratch_bytes(const StepLimits& limits) const {
  const ScratchBytes bytes = scratch_parts(limits);
  return bytes.values + bytes.prepared + bytes.slot_prepared + bytes.other +
         pool_.threads() * bytes.worker;
}

void CpuBackend::allocate(const StepLimits& limits) {
  limits_ = limits;
  for (PlusOne& vector : plus_one_) fill(vector);
  const ScratchBytes bytes = scratch_parts(limits);
  values_ = std::make_unique_for_overwrite<float[]>(bytes.values / sizeof(float));
  float* next = values_.get();
  for (Buffer& buffer : buffers_) {
    buffer.values = {next, buffer_rows(buffer, limits) * buffer.columns};
    next += buffer.values.size();
  }
  prepared_ = prepared_memory_.place(bytes.prepared, 0);
  slot_prepared_ = slot_memory_.place(bytes.slot_prepared, 0);
  scratch_ = scratch_memory_.place(bytes.worker * pool_.threads(), 0);
  scratch_stride_ = bytes.worker;
  for (Rope& rope : ropes_) {
    rope.cos.resize(limits.rows * rope.frequencies());
    rope.sin.resize(rope.cos.size());
  }
  spans_.resize(pool_.threads());
  for (auto& spans : spans_)
    spans.reserve(limits.selected_max + limits.context / kKvBlockTokens + 2);
  selected_.resize(limits.rows * limits.selected_max);
  if (limits.selected_max > 0) {
    key_scores_.resize(limits.context);
    candidates_.reserve(limits.context);
  }
  router_.reserve(limits.rows * copies_max_);
}

void CpuBackend::perturb(std::unordered_map<uint32_t, RowChange> changes) {
  SLUICE_CHECK(limits_.rows > 0);
  uint64_t columns_max = 0;
  for (const auto& [entry, change] : changes)
    columns_max = std::max(columns_max, weights_.entries()[entry].columns);
  perturbed_.set(std::move(changes), static_cast<size_t>(columns_max), limits_.rows);
}

std::span<std::byte> CpuBackend::scratch(size_t worker) {
  return scratch_.subspan(worker * scratch_stride_, scratch_stride_);
}

// Vectors are small and stay under every policy. None is an empty one.
std::span<const float> CpuBackend::vector_of(Weight weight) const {
  if (weight == Weight::kNone) return {};
  if ((static_cast<uint32_t>(weight) & kPlusOne) != 0)
    return plus_one_[static_cast<uint32_t>(weight) & ~kPlusOne].values;
  const numerics::WeightView view = weights_.view(static_cast<uint32_t>(weight));
  SLUICE_DCHECK(view.rows == 1);
  return {reinterpret_cast<const float*>(view.weight), view.columns};
}

void CpuBackend::embed(Weight table, std::span<const uint32_t> tokens, Tensor out) {
  Buffer& to = buffer(out);
  to.rows = tokens.size();
  const auto entry = static_cast<uint32_t>(table);
  if (weights_.stays(entry)) {
    const numerics::WeightView view = weights_.view(entry);
    for_rows(pool_, tokens.size(),
             [&](size_t row) { numerics::decode_row(view, tokens[row], to.row(row)); });
  } else {
    for (size_t row = 0; row < tokens.size() && status_; ++row)
      status_ = weights_.decode_row(entry, tokens[row], to.row(row));
  }
  if (perturbed_.empty()) return;
  for (size_t row = 0; row < tokens.size(); ++row)
    perturbed_.apply(entry, tokens[row], to.row(row));
}

void CpuBackend::gather(Tensor x, std::span<const uint32_t> rows, Tensor out) {
  const Buffer& from = buffer(x);
  Buffer& to = buffer(out);
  SLUICE_DCHECK(rows.size() * to.columns <= to.values.size());
  to.rows = rows.size();
  for (size_t row = 0; row < rows.size(); ++row)
    std::ranges::copy(from.row(rows[row]), to.row(row).begin());
}

void CpuBackend::add(Tensor x, Tensor y) {
  Buffer& to = buffer(x);
  const Buffer& from = buffer(y);
  for_rows(pool_, to.rows, [&](size_t row) { ops_.add(to.row(row), from.row(row)); });
}

void CpuBackend::rms_norm(Tensor x, Weight weight, float epsilon, Tensor out) {
  const Buffer& from = buffer(x);
  Buffer& to = buffer(out);
  to.rows = from.rows;
  const std::span<const float> scale = vector_of(weight);
  for_rows(pool_, from.rows,
           [&](size_t row) { ops_.rms_norm(from.row(row), scale, epsilon, to.row(row)); });
}

void CpuBackend::rms_norm_first(Tensor x, Weight weight, float epsilon) {
  const Buffer& b = buffer(x);
  const std::span<const float> scale = vector_of(weight);
  for_rows(pool_, b.rows, [&](size_t row) {
    const auto values = b.row(row).first(scale.size());
    ops_.rms_norm(values, scale, epsilon, values);
  });
}

void CpuBackend::layer_norm(Tensor x, Weight weight, Weight bias, float epsilon, Tensor out) {
  const Buffer& from = buffer(x);
  Buffer& to = buffer(out);
  to.rows = from.rows;
  const std::span<const float> scale = vector_of(weight);
  const std::span<const float> shift =
      bias == Weight::kNone ? std::span<const float>() : vector_of(bias);
  for_rows(pool_, from.rows,
           [&](size_t row) { ops_.layer_norm(from.row(row), scale, shift, epsilon, to.row(row)); });
}

void CpuBackend::scale(Tensor x, float factor) {
  Buffer& to = buffer(x);
  for_rows(pool_, to.rows, [&](size_t row) {
    for (float& value : to.row(row)) value *= factor;
  });
}

void CpuBackend::scale_add(Tensor x, float factor, Tensor y) {
  Buffer& to = buffer(x);
  const Buffer& from = buffer(y);
  for_rows(pool_, to.rows, [&](size_t row) { ops_.scale_add(to.row(row), factor, from.row(row)); });
}

void CpuBackend::softcap(Tensor x, float cap) {
  Buffer& to = buffer(x);
  for_rows(pool_, to.rows, [&](size_t row) { ops_.softcap(to.row(row), cap); });
}

void CpuBackend::multiply(Tensor x, Weight factors) {
  Buffer& to = buffer(x);
  const std::span<const float> values = vector_of(factors);
  SLUICE_DCHECK(values.size() == 1 || values.size() == to.columns);
  for_rows(pool_, to.rows, [&](size_t row) {
    const std::span<float> out = to.row(row);
    for (size_t i = 0; i < out.size(); ++i) out[i] *= values[values.size() == 1 ? 0 : i];
  });
}

void CpuBackend::scale_by_position(Tensor x, const model::PositionScale& rule,
                                   const model::Batch& batch) {
  Buffer& to = buffer(x);
  for (const model::Segment& segment : batch.segments)
    for_rows(pool_, segment.rows, [&](size_t i) {
      const float grown = rule.at(segment.first_position + i);
      for (float& value : to.row(segment.first_row + i)) value *= grown;
    });
}

void CpuBackend::activate_row(const model::ActivationRule& rule, std::span<float> gate,
                              std::span<const float> up) const {
  switch (rule.kind) {
    case model::Activation::kSilu: return ops_.silu_mul(gate, up, gate);
    case model::Activation::kGeluTanh:
      return ops_.gelu_mul(gate, up, kernels::GeluForm::kTanh, gate);
    case model::Activation::kClampedSwiglu:
      return ops_.swiglu_clamped(gate, up, rule.alpha, rule.limit, gate);
    case model::Activation::kRelu2:
      for (float& value : gate) {
        value = std::max(value, 0.0f);  // in this order NaN stays
        value *= value;
      }
      return;
  }
}

void CpuBackend::activate(const model::ActivationRule& rule, Tensor gate, Tensor up) {
  Buffer& to = buffer(gate);
  const Buffer& factor = buffer(up);
  for_rows(pool_, to.rows, [&](size_t row) { activate_row(rule, to.row(row), factor.row(row)); });
}

void CpuBackend::sigmoid_mul(Tensor gate, Tensor x) {
  Buffer& from = buffer(gate);
  Buffer& to = buffer(x);
  for_rows(pool_, to.rows, [&](size_t row) {
    if (from.columns > 1) return ops_.sigmoid_mul(from.row(row), to.row(row), to.row(row));
    ops_.sigmoid(from.row(row), from.row(row));
    for (float& value : to.row(row)) value *= from.row(row)[0];
  });
}

void CpuBackend::take_columns(Tensor x, size_t parts, size_t first, Tensor out) {
  const Buffer& from = buffer(x);
  Buffer& to = buffer(out);
  to.rows = from.rows;
  const size_t part = from.columns / parts, taken = to.columns / parts;
  SLUICE_CHECK(first + taken <= part);
  for_rows(pool_, from.rows, [&](size_t row) {
    for (size_t i = 0; i < parts; ++i)
      std::ranges::copy(from.row(row).subspan(i * part + first, taken),
                        to.row(row).subspan(i * taken).begin());
  });
}

std::span<const model::Choice> CpuBackend::route(Tensor logits, const model::RouterRule& rule) {
  const Buffer& b = buffer(logits);
  return router_.choose(b.values.first(b.rows * b.columns), rule,
                        {vector_of(rule.correction), vector_of(rule.expert_scale)});
}

std::span<const float> CpuBackend::read(Tensor x) {
  const Buffer& from = buffer(x);
  return from.values.first(from.rows * from.columns);
}

bool CpuBackend::all_finite(Tensor x) {
  return std::ranges::all_of(read(x), [](float value) { return std::isfinite(value); });
}

}  // namespace sluice::runtime
