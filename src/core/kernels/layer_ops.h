// The maths of a layer between its matrix products: norms, activations, softmax, positions, the KV
// cache's formats, attention. One table per instruction set, chosen once and passed down; all
// tables give the same bits, because generic/ fixes the order of every sum over sixteen lanes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/cpu.h"
#include "kernels/layer_types.h"

namespace sluice::kernels {

struct RawLayerOps;

// Immutable; thread-safe; functions are reentrant, do not allocate and need no alignment.
// Everything is f32. Spans of one call that belong together have equal sizes (SLUICE_CHECK); an
// output may be one of its inputs, but not overlap it otherwise. NaNs come out as NaNs, but argmax
// and top_k pass them over. Accuracy: bounds in tests/kernels/layer_ops_test.cpp.
class LayerOps {
 public:
  constexpr LayerOps(SimdLevel level, const RawLayerOps* ops) : level_(level), ops_(ops) {}

  // The set in use: the scalar one where the asked one was not built.
  SimdLevel level() const { return level_; }

  // out = x / sqrt(mean(x²) + epsilon) · weight; an empty weight counts as ones. |x| < 1e18.
  void rms_norm(std::span<const float> x, std::span<const float> weight, float epsilon,
                std::span<float> out) const;
  // out = (x − mean) / sqrt(variance + epsilon) · weight + bias; both may be empty.
  void layer_norm(std::span<const float> x, std::span<const float> weight,
                  std::span<const float> bias, float epsilon, std::span<float> out) const;

  float dot(std::span<const float> x, std::span<const float> y) const;
  void add(std::span<float> x, std::span<const float> y) const;                 // x += y
  void scale_add(std::span<float> x, float a, std::span<const float> y) const;  // x += a · y, fused

  // Within 1.1 ulp; 0 below −86.6, where results come near the subnormal numbers.
  void exp(std::span<const float> x, std::span<float> out) const;
  void sigmoid(std::span<const float> x, std::span<float> out) const;

  // out = silu(gate) · up, with silu(z) = z · sigmoid(z).
  void silu_mul(std::span<const float> gate, std::span<const float> up, std::span<float> out) const;
  // out = sigmoid(gate) · x.
  void sigmoid_mul(std::span<const float> gate, std::span<const float> x,
                   std::span<float> out) const;
  // out = gelu(gate) · up. kTanh: z/2 · (1 + tanh(√(2/π)(z + 0.044715 z³))); kErf: z/2 · (1 +
  // erf(z/√2)).
  void gelu_mul(std::span<const float> gate, std::span<const float> up, GeluForm form,
                std::span<float> out) const;
  // gpt-oss: g = min(gate, limit), u = clamp(up, ±limit), out = (u + 1) · g · sigmoid(alpha · g).
  void swiglu_clamped(std::span<const float> gate, std::span<const float> up, float alpha,
                      float limit, std::span<float> out) const;
  // x = cap · tanh(x / cap), cap > 0; off by at most 2e-7 · cap.
  void softcap(std::span<float> x, float cap) const;

  // In place; at least one element must be finite.
  void softmax(std::span<float> x) const;
  // The lowest index of the largest element; 0 if there is none above −∞. Not empty.
  size_t argmax(std::span<const float> x) const;
  // The indices of the k = indices.size() largest elements, largest first, the lower index first
  // among equals, NaNs last; k ≤ x.size(). Costs size · k at worst: for routers, not vocabularies.
  void top_k(std::span<const float> x, std::span<uint32_t> indices) const;

  // Turns the first 2 · cos.size() elements of each head by that position's angles; the rest stays.
  // x [heads · head_dim]; cos and sin: numerics::rope_angles.
  void rope(std::span<float> x, size_t head_dim, std::span<const float> cos,
            std::span<const float> sin, RopeStyle style) const;

  // x = H x / sqrt(size), size a power of two; its own inverse. Turning queries and keys by it
  // leaves their products unchanged and spreads outlying channels before 4-bit encoding; values so
  // turned come back by turning the attention's output.
  void hadamard(std::span<float> x) const;

  // One head's key or value of one position; out has kv_row_bytes(type, in.size()) bytes. kF16
  // saturates at ±65504, so that no infinity meets the weight 0 of a key that a token does not see.
  void encode_kv(KvType type, std::span<const float> in, std::span<std::byte> out) const;
  void decode_kv(KvType type, std::span<const std::byte> in, std::span<float> out) const;

  // Attention of query tokens to one kv head: softmax(scale · q · keys) · values over the keys that
  // each token sees, in f32. spans: the kv head's rows from position first_key on, which reach the
  // last token's position; rows before those that a token sees are passed over. Keys are taken in
  // tiles whose boundaries depend on absolute positions alone, so a token's result is the same bits
  // whichever tokens are asked along with it, however the rows are cut into spans, and whether or
  // not first_key lies before its window. A token that sees no key gets zeros.
  // scratch: attend_scratch_bytes(shape) bytes, aligned for float, one per calling thread.
  // Work items that keep all workers busy: (kv head, attend_tile(group) tokens).
  void attend(const AttentionShape& shape, std::span<const KvSpan> spans, size_t first_key,
              const AttentionQueries& queries, std::span<std::byte> scratch) const;
  size_t attend_scratch_bytes(const AttentionShape& shape) const;

  // ---- linear attention; docs/architecture.md, recurrent state ----
  // x = factor · x / sqrt(Σx² + epsilon).
  void l2_norm(std::span<float> x, float epsilon, float factor) const;
  // out = exp(−exp(a_log) · log(1 + exp(a + dt_bias))): what is left of a state after a token.
  void delta_decay(std::span<const float> a, std::span<const float> a_log,
                   std::span<const float> dt_bias, std::span<float> out) const;
  // out = clamp(log(1 + exp(x + bias)), low, high); high may be infinite.
  void softplus(std::span<const float> x, std::span<const float> bias, float low, float high,
                std::span<float> out) const;
  // out = exp(−exp(a_log) · steps): delta_decay of steps that are there already.
  void step_decay(std::span<const float> steps, std::span<const float> a_log,
                  std::span<float> out) const;
  // x[t] = silu(bias + Σ weight[j] · x[t − taps + 1 + j]), channel by channel, over the rows as
  // they were. However rows are cut into calls, results are the same bits.
  void convolve(const ConvolutionRows& rows) const;
  // For each row in turn, with the state S [key_dim, columns]:
  //   S = decay · S;  δ = beta · (v − Sᵀk);  S = S + k δᵀ;  out = Sᵀq
  // However rows are cut into calls, results are the same bits.
  void delta_rule(const DeltaRows& rows) const;
  // The state space of Mamba2, on the same state: S = decay · S + k (beta · v)ᵀ;  out = Sᵀq + skip
  // · v However rows are cut into calls, results are the same bits.
  void state_space(const DeltaRows& rows, float skip) const;

 private:
  SimdLevel level_;
  const RawLayerOps* ops_;
};

// level must be one that the processor offers (detect_cpu, parse_simd_level).
const LayerOps& layer_ops(SimdLevel level);

// Bytes of one head's key or value of one position.
size_t kv_row_bytes(KvType type, size_t dim);

// Query tokens that share the reading of a tile of keys; cut prefill into multiples of it.
size_t attend_tile(size_t group);

}  // namespace sluice::kernels
