#include "kernels/layer_ops.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "kernels/raw_layer_ops.h"

namespace sluice::kernels {
namespace {

constexpr size_t kKvGroup = 32;
constexpr size_t kQueryRows = 32;  // as in generic/attention_kernels.h

const float* data_or_null(std::span<const float> x) { return x.empty() ? nullptr : x.data(); }

const uint8_t* raw_bytes(std::span<const std::byte> bytes) {
  return reinterpret_cast<const uint8_t*>(bytes.data());
}

void check_attention(const AttentionShape& shape, std::span<const KvSpan> spans, size_t first_key,
                     const AttentionQueries& queries) {
  SLUICE_CHECK(shape.group > 0 && shape.key_dim > 0 && shape.value_dim > 0);
  SLUICE_CHECK(queries.first_position >= first_key);
  SLUICE_CHECK(queries.q_stride >= shape.group * shape.key_dim || queries.tokens == 1);
  SLUICE_CHECK(queries.out_stride >= shape.group * shape.value_dim || queries.tokens == 1);
  size_t rows = 0;
  for (const KvSpan& span : spans) rows += span.rows;
  SLUICE_CHECK(queries.first_position + queries.tokens <= first_key + rows);
}

LayerOps make_ops(SimdLevel level, const RawLayerOps* ops) {
  if (ops == nullptr) return {SimdLevel::kScalar, scalar_layer_ops()};
  return {level, ops};
}

}  // namespace

void LayerOps::rms_norm(std::span<const float> x, std::span<const float> weight, float epsilon,
                        std::span<float> out) const {
  SLUICE_CHECK(x.size() == out.size() && (weight.empty() || weight.size() == x.size()));
  ops_->rms_norm(x.data(), data_or_null(weight), x.size(), epsilon, out.data());
}

void LayerOps::layer_norm(std::span<const float> x, std::span<const float> weight,
                          std::span<const float> bias, float epsilon, std::span<float> out) const {
  SLUICE_CHECK(x.size() == out.size() && (weight.empty() || weight.size() == x.size()));
  SLUICE_CHECK(bias.empty() || bias.size() == x.size());
  ops_->layer_norm(x.data(), data_or_null(weight), data_or_null(bias), x.size(), epsilon,
                   out.data());
}

float LayerOps::dot(std::span<const float> x, std::span<const float> y) const {
  SLUICE_CHECK(x.size() == y.size());
  return ops_->dot(x.data(), y.data(), x.size());
}

void LayerOps::add(std::span<float> x, std::span<const float> y) const {
  SLUICE_CHECK(x.size() == y.size());
  ops_->add(x.data(), y.data(), x.size());
}

void LayerOps::scale_add(std::span<float> x, float a, std::span<const float> y) const {
  SLUICE_CHECK(x.size() == y.size());
  ops_->scale_add(x.data(), a, y.data(), x.size());
}

void LayerOps::exp(std::span<const float> x, std::span<float> out) const {
  SLUICE_CHECK(x.size() == out.size());
  ops_->exp(x.data(), x.size(), out.data());
}

void LayerOps::sigmoid(std::span<const float> x, std::span<float> out) const {
  SLUICE_CHECK(x.size() == out.size());
  ops_->sigmoid(x.data(), x.size(), out.data());
}

void LayerOps::silu_mul(std::span<const float> gate, std::span<const float> up,
                        std::span<float> out) const {
  SLUICE_CHECK(gate.size() == out.size() && up.size() == out.size());
  ops_->silu_mul(gate.data(), up.data(), out.size(), out.data());
}

void LayerOps::sigmoid_mul(std::span<const float> gate, std::span<const float> x,
                           std::span<float> out) const {
  SLUICE_CHECK(gate.size() == out.size() && x.size() == out.size());
  ops_->sigmoid_mul(gate.data(), x.data(), out.size(), out.data());
}

void LayerOps::gelu_mul(std::span<const float> gate, std::span<const float> up, GeluForm form,
                        std::span<float> out) const {
  SLUICE_CHECK(gate.size() == out.size() && up.size() == out.size());
  ops_->gelu_mul(gate.data(), up.data(), out.size(), form, out.data());
}

void LayerOps::swiglu_clamped(std::span<const float> gate, std::span<const float> up, float alpha,
                              float limit, std::span<float> out) const {
  SLUICE_CHECK(gate.size() == out.size() && up.size() == out.size());
  ops_->swiglu_clamped(gate.data(), up.data(), out.size(), alpha, limit, out.data());
}

void LayerOps::softcap(std::span<float> x, float cap) const {
  SLUICE_CHECK(cap > 0);
  ops_->softcap(x.data(), x.size(), cap);
}

void LayerOps::softmax(std::span<float> x) const { ops_->softmax(x.data(), x.size()); }

size_t LayerOps::argmax(std::span<const float> x) const {
  SLUICE_CHECK(!x.empty());
  return ops_->argmax(x.data(), x.size());
}

// Keeps the best so far in order; an element moves those that it beats down by one.
void LayerOps::top_k(std::span<const float> x, std::span<uint32_t> indices) const {
  SLUICE_CHECK(indices.size() <= x.size());
  const auto key = [x](size_t i) {
    return std::isnan(x[i]) ? -std::numeric_limits<float>::infinity() : x[i];
  };
  size_t filled = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    size_t place = filled;
    while (place > 0 && key(i) > key(indices[place - 1])) --place;
    if (place == indices.size()) continue;
    filled = std::min(filled + 1, indices.size());
    for (size_t j = filled - 1; j > place; --j) indices[j] = indices[j - 1];
    indices[place] = static_cast<uint32_t>(i);
  }
}

void LayerOps::rope(std::span<float> x, size_t head_dim, std::span<const float> cos,
                    std::span<const float> sin, RopeStyle style) const {
  SLUICE_CHECK(head_dim > 0 && x.size() % head_dim == 0);
  SLUICE_CHECK(cos.size() == sin.size() && 2 * cos.size() <= head_dim);
  ops_->rope(x.data(), x.size() / head_dim, head_dim, 2 * cos.size(), cos.data(), sin.data(),
             style);
}

void LayerOps::hadamard(std::span<float> x) const {
  SLUICE_CHECK(std::has_single_bit(x.size()));
  ops_->hadamard(x.data(), x.size());
}

void LayerOps::encode_kv(KvType type, std::span<const float> in, std::span<std::byte> out) const {
  SLUICE_CHECK(out.size() == kv_row_bytes(type, in.size()));
  ops_->encode_kv(type, in.data(), in.size(), reinterpret_cast<uint8_t*>(out.data()));
}

void LayerOps::decode_kv(KvType type, std::span<const std::byte> in, std::span<float> out) const {
  SLUICE_CHECK(in.size() == kv_row_bytes(type, out.size()));
  ops_->decode_kv(type, raw_bytes(in), out.size(), out.data());
}

void LayerOps::attend(const AttentionShape& shape, std::span<const KvSpan> spans, size_t first_key,
                      const AttentionQueries& queries, std::span<std::byte> scratch) const {
  if (queries.tokens == 0) return;
  check_attention(shape, spans, first_key, queries);
  SLUICE_CHECK(scratch.size() >= attend_scratch_bytes(shape));
  ops_->attend(&shape, spans.data(), first_key, &queries, reinterpret_cast<float*>(scratch.data()));
}

size_t LayerOps::attend_scratch_bytes(const AttentionShape& shape) const {
  return ops_->attend_scratch_floats(&shape) * sizeof(float);
}

void LayerOps::l2_norm(std::span<float> x, float epsilon, float factor) const {
  ops_->l2_norm(x.data(), x.size(), epsilon, factor);
}

void LayerOps::delta_decay(std::span<const float> a, std::span<const float> a_log,
                           std::span<const float> dt_bias, std::span<float> out) const {
  SLUICE_CHECK(a.size() == out.size() && a_log.size() == out.size());
  SLUICE_CHECK(dt_bias.size() == out.size());
  ops_->delta_decay(a.data(), a_log.data(), dt_bias.data(), out.size(), out.data());
}

void LayerOps::softplus(std::span<const float> x, std::span<const float> bias, float low,
                        float high, std::span<float> out) const {
  SLUICE_CHECK(x.size() == out.size() && bias.size() == out.size());
  ops_->softplus(x.data(), bias.data(), out.size(), low, high, out.data());
}

void LayerOps::step_decay(std::span<const float> steps, std::span<const float> a_log,
                          std::span<float> out) const {
  SLUICE_CHECK(steps.size() == out.size() && a_log.size() == out.size());
  ops_->step_decay(steps.data(), a_log.data(), out.size(), out.data());
}

void LayerOps::convolve(const ConvolutionRows& rows) const {
  SLUICE_CHECK(rows.taps >= 2 && rows.taps <= kConvolutionTapsMax);
  SLUICE_CHECK(rows.state_stride >= rows.channels);
  ops_->convolve(&rows);
}

void LayerOps::delta_rule(const DeltaRows& rows) const {
  SLUICE_CHECK(rows.columns > 0 && rows.columns <= kDeltaColumns);
  ops_->delta_rule(&rows);
}

void LayerOps::state_space(const DeltaRows& rows, float skip) const {
  SLUICE_CHECK(rows.columns > 0 && rows.columns <= kDeltaColumns);
  ops_->state_space(&rows, skip);
}

const LayerOps& layer_ops(SimdLevel level) {
  static const LayerOps kScalar = make_ops(SimdLevel::kScalar, scalar_layer_ops());
  static const LayerOps kNeon = make_ops(SimdLevel::kNeon, neon_layer_ops());
  static const LayerOps kAvx2 = make_ops(SimdLevel::kAvx2, avx2_layer_ops());
  static const LayerOps kAvx512 = make_ops(SimdLevel::kAvx512, avx512_layer_ops());
  switch (level) {
    case SimdLevel::kScalar: break;
    case SimdLevel::kNeon: return kNeon;
    case SimdLevel::kAvx2: return kAvx2;
    case SimdLevel::kAvx512: return kAvx512;
  }
  return kScalar;
}

size_t kv_row_bytes(KvType type, size_t dim) {
  const size_t groups = (dim + kKvGroup - 1) / kKvGroup;
  switch (type) {
    case KvType::kF32: return dim * 4;
    case KvType::kF16: return dim * 2;
    case KvType::kQ8: return groups * (2 + kKvGroup);
    case KvType::kQ4: return groups * (2 + kKvGroup / 2);
  }
  return 0;
}

size_t attend_tile(size_t group) { return std::max<size_t>(1, kQueryRows / group); }

}  // namespace sluice::kernels
