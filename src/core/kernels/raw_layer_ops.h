// What a file of layer maths compiled for one instruction set exports; as raw_ops.h, without inline
// functions.
#pragma once

#include "kernels/layer_types.h"

namespace sluice::kernels {

// Arguments as in LayerOps, already checked. Null pointers stand for empty spans.
struct RawLayerOps {
  void (*rms_norm)(const float* x, const float* weight, size_t count, float epsilon, float* out);
  void (*layer_norm)(const float* x, const float* weight, const float* bias, size_t count,
                     float epsilon, float* out);
  float (*dot)(const float* x, const float* y, size_t count);
  void (*add)(float* x, const float* y, size_t count);
  void (*scale_add)(float* x, float a, const float* y, size_t count);
  void (*exp)(const float* x, size_t count, float* out);
  void (*sigmoid)(const float* x, size_t count, float* out);
  void (*silu_mul)(const float* gate, const float* up, size_t count, float* out);
  void (*sigmoid_mul)(const float* gate, const float* x, size_t count, float* out);
  void (*gelu_mul)(const float* gate, const float* up, size_t count, GeluForm form, float* out);
  void (*swiglu_clamped)(const float* gate, const float* up, size_t count, float alpha, float limit,
                         float* out);
  void (*softcap)(float* x, size_t count, float cap);
  void (*softmax)(float* x, size_t count);
  size_t (*argmax)(const float* x, size_t count);
  void (*rope)(float* x, size_t heads, size_t head_dim, size_t rotary_dim, const float* cos,
               const float* sin, RopeStyle style);
  void (*hadamard)(float* x, size_t count);
  void (*encode_kv)(KvType type, const float* in, size_t count, uint8_t* out);
  void (*decode_kv)(KvType type, const uint8_t* in, size_t count, float* out);
  size_t (*attend_scratch_floats)(const AttentionShape* shape);
  void (*attend)(const AttentionShape* shape, const KvSpan* spans, size_t first_key,
                 const AttentionQueries* queries, float* scratch);
  void (*l2_norm)(float* x, size_t count, float epsilon, float factor);
  void (*delta_decay)(const float* a, const float* a_log, const float* dt_bias, size_t count,
                      float* out);
  void (*softplus)(const float* x, const float* bias, size_t count, float low, float high,
                   float* out);
  void (*step_decay)(const float* steps, const float* a_log, size_t count, float* out);
  void (*convolve)(const ConvolutionRows* rows);
  void (*delta_rule)(const DeltaRows* rows);
  void (*state_space)(const DeltaRows* rows, float skip);
};

// Null where the set was not built.
const RawLayerOps* scalar_layer_ops();
const RawLayerOps* neon_layer_ops();
const RawLayerOps* avx2_layer_ops();
const RawLayerOps* avx512_layer_ops();

}  // namespace sluice::kernels
