// Recurrences, token by token as everywhere in this program, so that a state does not depend on how
// a text was cut. States are arrays; where the host would keep one is its name.
#include <cmath>

#include "gpu/mlx_backend.h"

namespace sluice::gpu {

using model::Batch;
using model::Segment;
using model::Tensor;

const runtime::StateStep& MlxBackend::step_of(const Segment& segment) const {
  return *states_[static_cast<uint32_t>(segment.sequence)];
}

MlxState::Layer* MlxBackend::state_at(const float* slot, uint32_t layer) {
  if (slot == nullptr) return nullptr;
  MlxState& state = recurrent_[slot];
  if (state.layers.size() <= layer) state.layers.resize(limits_.state.sizes.layers);
  return &state.layers[layer];
}

void MlxBackend::convolve(const model::ConvolutionRule& rule, Tensor x, const Batch& batch) {
  attempt([&] {
    const size_t past = rule.taps - 1, channels = value(x).columns;
    const auto own = [&](const mx::array& all) {
      return rows_between(all, rule.first_channel, channels);
    };
    const mx::array filters =
        mx::transpose(own(weights_.floats(static_cast<uint32_t>(rule.weight))), device_);
    std::vector<mx::array> results;
    for (const Segment& segment : batch.segments) {
      const runtime::StateStep& step = step_of(segment);
      const mx::array rows = rows_between(at(x), segment.first_row, segment.rows);
      const MlxState::Layer* from = state_at(step.from, rule.layer);
      const mx::array before = from != nullptr
                                   ? from->past.at(rule.first_channel)
                                   : mx::zeros({dim(past), dim(channels)}, mx::float32, device_);
      const mx::array all = mx::concatenate({before, rows}, 0, device_);
      mx::array sum = mx::zeros({dim(segment.rows), dim(channels)}, mx::float32, device_);
      if (rule.bias != model::Weight::kNone) sum = mx::add(sum, own(vector_of(rule.bias)), device_);
      for (size_t tap = 0; tap < rule.taps; ++tap)
        sum = mx::add(sum,
                      mx::multiply(rows_between(all, tap, segment.rows),
                                   rows_between(filters, tap, 1), device_),
                      device_);
      results.push_back(mx::multiply(sum, mx::sigmoid(sum, device_), device_));
      size_t end = 0;
      for (const runtime::StatePiece& piece : step.pieces) {
        end += piece.rows;
        // A copy: a part would hold on to all rows of the step.
        mx::array kept = mx::contiguous(
            mx::add(rows_between(all, end, past), mx::array(0.0f), device_), false, device_);
        keep(kept);
        state_at(piece.to, rule.layer)->past.insert_or_assign(rule.first_channel, kept);
      }
    }
    set(x, results.size() == 1 ? results[0] : mx::concatenate(results, 0, device_));
  });
}

mx::array MlxBackend::matrix_before(const runtime::StateStep& step, uint32_t layer, size_t heads,
                                    size_t rows, size_t columns) {
  const MlxState::Layer* from = state_at(step.from, layer);
  if (from != nullptr) return *from->matrix;
  return mx::zeros({dim(heads), dim(rows), dim(columns)}, mx::float32, device_);
}

namespace {

// log(1 + e^x)
mx::array softplus(const mx::array& x, mx::Device device) {
  return mx::logaddexp(x, mx::array(0.0f), device);
}

// Each of the heads again for those that share it. x [rows, shared, dim] to [rows, heads, dim].
mx::array shared_out(const mx::array& x, size_t heads, bool tiled, mx::Device device) {
  const int shared = x.shape(1), times = dim(heads) / shared;
  const int axis = tiled ? 1 : 2;
  mx::Shape shape{x.shape(0), shared, shared, x.shape(2)};
  shape[axis] = times;
  return mx::reshape(mx::broadcast_to(mx::expand_dims(x, axis, device), shape, device),
                     {x.shape(0), dim(heads), x.shape(2)}, device);
}

}  // namespace

void MlxBackend::delta(const model::DeltaRule& rule, Tensor q, Tensor k, Tensor v, Tensor b,
                       Tensor a, const Batch& batch, Tensor out) {
  attempt([&] {
    const auto times = [&](const mx::array& x, const mx::array& y) {
      return mx::multiply(x, y, device_);
    };
    const auto unit = [&](Tensor x) {
      const mx::array heads = heads_of(x, rule.key_heads);
      const mx::array squares = mx::sum(times(heads, heads), 2, true, device_);
      const mx::array length =
          mx::rsqrt(mx::add(squares, mx::array(rule.epsilon), device_), device_);
      return shared_out(times(heads, length), rule.value_heads, rule.tiled_heads, device_);
    };
    const mx::array queries =
        times(unit(q), mx::array(1 / std::sqrt(static_cast<float>(rule.key_dim))));
    const mx::array keys = unit(k), values = heads_of(v, rule.value_heads);
    const mx::array betas = mx::sigmoid(at(b), device_);
    const mx::array rates = mx::exp(vector_of(rule.a_log), device_);
    const mx::array steps = softplus(mx::add(at(a), vector_of(rule.dt_bias), device_), device_);
    const mx::array decays = mx::exp(mx::negative(times(rates, steps), device_), device_);
    const auto row_of = [&](const mx::array& x, size_t row, mx::Shape shape) {
      return mx::reshape(rows_between(x, row, 1), std::move(shape), device_);
    };
    const int heads = dim(rule.value_heads);
    std::vector<mx::array> results;
    for (const Segment& segment : batch.segments) {
      const runtime::StateStep& step = step_of(segment);
      mx::array state =
          matrix_before(step, rule.layer, rule.value_heads, rule.key_dim, rule.value_dim);
      size_t row = segment.first_row;
      for (const runtime::StatePiece& piece : step.pieces) {
        for (const size_t end = row + piece.rows; row < end; ++row) {
          state = times(state, row_of(decays, row, {heads, 1, 1}));
          const mx::array key = row_of(keys, row, {heads, 1, dim(rule.key_dim)});
          const mx::array seen = mx::matmul(key, state, device_);
          const mx::array change = times(
              row_of(betas, row, {heads, 1, 1}),
              mx::subtract(row_of(values, row, {heads, 1, dim(rule.value_dim)}), seen, device_));
          state = mx::add(state, times(mx::swapaxes(key, 1, 2, device_), change), device_);
          const mx::array query = row_of(queries, row, {heads, 1, dim(rule.key_dim)});
          results.push_back(mx::reshape(mx::matmul(query, state, device_),
                                        {1, dim(value(out).columns)}, device_));
        }
        keep(state);
        state_at(piece.to, rule.layer)->matrix = state;
      }
    }
    set(out, mx::concatenate(results, 0, device_));
  });
}

void MlxBackend::state_space(const model::StateSpaceRule& rule, Tensor x, Tensor b, Tensor c,
                             Tensor dt, Tensor, const Batch& batch, Tensor out) {
  attempt([&] {
    const auto times = [&](const mx::array& u, const mx::array& v) {
      return mx::multiply(u, v, device_);
    };
    const mx::array steps =
        mx::clip(softplus(mx::add(at(dt), vector_of(rule.dt_bias), device_), device_),
                 mx::array(rule.step_min), mx::array(rule.step_max), device_);
    const mx::array rates = mx::exp(vector_of(rule.a_log), device_);
    const mx::array decays = mx::exp(mx::negative(times(rates, steps), device_), device_);
    const mx::array inputs = heads_of(x, rule.heads);
    const mx::array keys = shared_out(heads_of(b, rule.groups), rule.heads, false, device_);
    const mx::array queries = shared_out(heads_of(c, rule.groups), rule.heads, false, device_);
    const mx::array scaled = times(inputs, mx::expand_dims(steps, 2, device_));
    const auto row_of = [&](const mx::array& v, size_t row, mx::Shape shape) {
      return mx::reshape(rows_between(v, row, 1), std::move(shape), device_);
    };
    const int heads = dim(rule.heads), size = dim(rule.state_dim);
    std::vector<mx::array> results;
    for (const Segment& segment : batch.segments) {
      const runtime::StateStep& step = step_of(segment);
      mx::array state = matrix_before(step, rule.layer, rule.heads, rule.state_dim, rule.head_dim);
      size_t row = segment.first_row;
      for (const runtime::StatePiece& piece : step.pieces) {
        for (const size_t end = row + piece.rows; row < end; ++row) {
          const mx::array added = times(row_of(keys, row, {heads, size, 1}),
                                        row_of(scaled, row, {heads, 1, dim(rule.head_dim)}));
          state = mx::add(times(state, row_of(decays, row, {heads, 1, 1})), added, device_);
          results.push_back(
              mx::reshape(mx::matmul(row_of(queries, row, {heads, 1, size}), state, device_),
                          {1, heads, dim(rule.head_dim)}, device_));
        }
        keep(state);
        state_at(piece.to, rule.layer)->matrix = state;
      }
    }
    const mx::array skip = mx::reshape(vector_of(rule.skip), {heads, 1}, device_);
    const mx::array y = mx::add(mx::concatenate(results, 0, device_), times(inputs, skip), device_);
    set(out, mx::reshape(y, {dim(rows_), dim(value(out).columns)}, device_));
  });
}

}  // namespace sluice::gpu
