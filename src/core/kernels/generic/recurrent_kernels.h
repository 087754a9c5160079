// The recurrences of linear attention over sixteen lanes: causal convolutions of single channels,
// the gated delta rule, and Mamba2's state space. Lanes are channels or columns of the state, each
// with its own sums in the order of the rows: a result depends on nothing but the rows before it.
#pragma once

#include "kernels/generic/layer_math.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

// log(1 + e^x) as max(x, 0) + log(1 + e^-|x|), the logarithm by the series of 2 artanh(t / (2 +
// t)), whose argument is a third at most: the first term left out is 1e-10 of the first.
inline F softplus_lanes(F x) {
  const F t = exp_lanes(neg(abs_(x)));
  const F s = t / (t + splat(2));
  const F u = s * s;
  F p = splat(1.0f / 17);
  for (int denominator = 15; denominator > 1; denominator -= 2)
    p = fma(p, u, splat(1.0f / static_cast<float>(denominator)));
  p = fma(p, u, splat(1));
  return fma(s + s, p, max_(splat(0), x));  // in this order NaN stays
}

void delta_decay(const float* a, const float* a_log, const float* dt_bias, size_t count,
                 float* out) {
  for_lanes(
      count, out,
      [](F x, F log, F bias) { return exp_lanes(neg(exp_lanes(log) * softplus_lanes(x + bias))); },
      a, a_log, dt_bias);
}

void softplus(const float* x, const float* bias, size_t count, float low, float high, float* out) {
  const F bottom = splat(low), top = splat(high);
  for_lanes(
      count, out,
      [&](F a, F b) { return min_(top, max_(bottom, softplus_lanes(a + b))); },  // NaN stays
      x, bias);
}

void step_decay(const float* steps, const float* a_log, size_t count, float* out) {
  for_lanes(
      count, out, [](F step, F log) { return exp_lanes(neg(exp_lanes(log) * step)); }, steps,
      a_log);
}

void l2_norm(float* x, size_t count, float epsilon, float factor) {
  const float sum = sum_lanes(count, [](F s, F a) { return fma(a, a, s); }, x);
  const F scale = splat(factor / __builtin_sqrtf(sum + epsilon));
  for_lanes(count, x, [&](F a) { return a * scale; }, x);
}

inline F load_up_to(const float* p, size_t count) {
  return count == kWide ? load(p) : load_some(p, count);
}
inline void store_up_to(float* p, F x, size_t count) {
  if (count == kWide)
    store(p, x);
  else
    store_some(p, x, count);
}

void convolve(const ConvolutionRows* c) {
  const size_t past_rows = c->taps - 1;
  for (size_t first = 0; first < c->channels; first += kWide) {
    const size_t count = least_of(kWide, c->channels - first);
    const auto read = [&](const float* p) { return load_up_to(p, count); };
    const auto write = [&](float* p, F value) { store_up_to(p, value, count); };
    F weight[kConvolutionTapsMax] = {}, past[kConvolutionTapsMax] = {};
    for (size_t tap = 0; tap < c->taps; ++tap) {
      float lanes[kWide] = {};
      for (size_t i = 0; i < count; ++i) lanes[i] = c->weight[(first + i) * c->taps + tap];
      weight[tap] = load(lanes);
    }
    const F bias = c->bias == nullptr ? splat(0) : read(c->bias + first);
    for (size_t i = 0; i < past_rows; ++i)
      past[i] = c->before == nullptr ? splat(0) : read(c->before + i * c->state_stride + first);
    for (size_t row = 0; row < c->rows; ++row) {
      float* const at = c->x + row * c->stride + first;
      const F now = read(at);
      F sum = bias;
      for (size_t i = 0; i < past_rows; ++i) sum = fma(past[i], weight[i], sum);
      sum = fma(now, weight[past_rows], sum);
      write(at, sum * sigmoid_lanes(sum));
      for (size_t i = 0; i + 1 < past_rows; ++i) past[i] = past[i + 1];
      past[past_rows - 1] = now;
    }
    for (size_t i = 0; i < past_rows; ++i) write(c->after + i * c->state_stride + first, past[i]);
  }
}

// Of S, decayed by g: m = Sᵀk and Sᵀq in one pass, from the state as it was; then S + k δᵀ with
// δ = β (v − m), whose product with q is Sᵀq + δ (k·q).
void delta_rule(const DeltaRows* d) {
  static_assert(kDeltaColumns == 2 * kWide);
  const float* state = d->before;
  for (size_t row = 0; row < d->rows; ++row) {
    const float* const q = d->q + row * d->qk_stride;
    const float* const k = d->k + row * d->qk_stride;
    const float* const v = d->v + row * d->v_stride;
    float* const out = d->out + row * d->out_stride;
    const F decay = splat(d->decay[row * d->gate_stride]);
    const F beta = splat(d->beta[row * d->gate_stride]);
    F m0 = splat(0), m1 = splat(0), r0 = splat(0), r1 = splat(0);
    if (state != nullptr) {
      for (size_t i = 0; i < d->key_dim; ++i) {
        const F s0 = load(state + i * kDeltaColumns), s1 = load(state + i * kDeltaColumns + kWide);
        const F key = splat(k[i]), query = splat(q[i]);
        m0 = fma(s0, key, m0);
        m1 = fma(s1, key, m1);
        r0 = fma(s0, query, r0);
        r1 = fma(s1, query, r1);
      }
    }
    const F agreement = splat(dot(k, q, d->key_dim));
    const size_t count0 = least_of(d->columns, kWide), count1 = d->columns - count0;
    const F delta0 = beta * (load_up_to(v, count0) - decay * m0);
    const F delta1 = beta * (load_up_to(v + count0, count1) - decay * m1);
    store_up_to(out, fma(delta0, agreement, decay * r0), count0);
    store_up_to(out + count0, fma(delta1, agreement, decay * r1), count1);
    for (size_t i = 0; i < d->key_dim; ++i) {
      const size_t at = i * kDeltaColumns;
      const F s0 = state == nullptr ? splat(0) : load(state + at);
      const F s1 = state == nullptr ? splat(0) : load(state + at + kWide);
      const F key = splat(k[i]);
      store(d->after + at, fma(key, delta0, decay * s0));
      store(d->after + at + kWide, fma(key, delta1, decay * s1));
    }
    state = d->after;
  }
}

void state_space(const DeltaRows* d, float skip) {
  const float* state = d->before;
  const F through = splat(skip);
  const size_t count0 = least_of(d->columns, kWide), count1 = d->columns - count0;
  for (size_t row = 0; row < d->rows; ++row) {
    const float* const q = d->q + row * d->qk_stride;
    const float* const k = d->k + row * d->qk_stride;
    const float* const v = d->v + row * d->v_stride;
    float* const out = d->out + row * d->out_stride;
    const F decay = splat(d->decay[row * d->gate_stride]);
    const F step = splat(d->beta[row * d->gate_stride]);
    const F v0 = load_up_to(v, count0), v1 = load_up_to(v + count0, count1);
    const F in0 = step * v0, in1 = step * v1;
    F r0 = splat(0), r1 = splat(0);
    for (size_t i = 0; i < d->key_dim; ++i) {
      const size_t at = i * kDeltaColumns;
      const F key = splat(k[i]), query = splat(q[i]);
      F s0 = key * in0, s1 = key * in1;
      if (state != nullptr) {
        s0 = fma(decay, load(state + at), s0);
        s1 = fma(decay, load(state + at + kWide), s1);
      }
      store(d->after + at, s0);
      store(d->after + at + kWide, s1);
      r0 = fma(s0, query, r0);
      r1 = fma(s1, query, r1);
    }
    store_up_to(out, fma(through, v0, r0), count0);
    store_up_to(out + count0, fma(through, v1, r1), count1);
    state = d->after;
  }
}

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
