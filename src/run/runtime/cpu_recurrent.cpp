// The CPU back-end's recurrences: convolutions by groups of channels, the delta rule and
// the state space by heads and tiles of their state. Each item goes through all rows of a sequence
// in order, so that what it needs of the state stays in the first cache, and results do not depend
// on how many rows there are.
#include <algorithm>
#include <cmath>

#include "runtime/cpu_backend.h"
#include "runtime/cpu_rows.h"

namespace sluice::runtime {

using model::Batch;
using model::Segment;
using model::Tensor;

namespace {

// Enough that starting an item costs little, and few enough that a layer has some for every thread.
constexpr size_t kChannelsOfItem = 256;

}  // namespace

void CpuBackend::convolve(const model::ConvolutionRule& rule, Tensor x, const Batch& batch) {
  Buffer& b = buffer(x);
  const StateShape& shape = limits_.state;
  const numerics::WeightView weight = weights_.view(static_cast<uint32_t>(rule.weight));
  SLUICE_DCHECK(weight.columns == rule.taps && weight.rows >= rule.first_channel + rule.channels);
  const std::span<const float> bias = vector_of(rule.bias);
  const size_t items = (rule.channels + kChannelsOfItem - 1) / kChannelsOfItem;
  pool_.run(batch.segments.size() * items, [&](size_t item, size_t) {
    const Segment& segment = batch.segments[item / items];
    const StateStep& step = *states_[static_cast<uint32_t>(segment.sequence)];
    const size_t first = item % items * kChannelsOfItem;
    const size_t place = rule.layer * shape.layer_floats() + rule.first_channel + first;
    const float* before = step.from == nullptr ? nullptr : step.from + place;
    size_t row = segment.first_row;
    for (const StatePiece& piece : step.pieces) {
      ops_.convolve({.x = b.row(row).data() + first,
                     .stride = b.columns,
                     .rows = piece.rows,
                     .channels = std::min<size_t>(kChannelsOfItem, rule.channels - first),
                     .weight = reinterpret_cast<const float*>(weight.weight) +
                               (rule.first_channel + first) * rule.taps,
                     .bias = bias.empty() ? nullptr : bias.data() + rule.first_channel + first,
                     .taps = rule.taps,
                     .before = before,
                     .after = piece.to + place,
                     .state_stride = shape.sizes.columns});
      before = piece.to + place;
      row += piece.rows;
    }
  });
}

template <class Run>
void CpuBackend::run_tile(const Segment& segment, uint32_t layer, size_t item,
                          kernels::DeltaRows rows, Run&& run) {
  const StateShape& shape = limits_.state;
  const StateStep& step = *states_[static_cast<uint32_t>(segment.sequence)];
  const size_t place =
      layer * shape.layer_floats() + shape.past_floats() + item * shape.tile_floats();
  rows.before = step.from == nullptr ? nullptr : step.from + place;
  for (const StatePiece& piece : step.pieces) {
    rows.rows = piece.rows;
    rows.after = piece.to + place;
    run(rows);
    rows.before = rows.after;
    rows.q += piece.rows * rows.qk_stride;
    rows.k += piece.rows * rows.qk_stride;
    rows.v += piece.rows * rows.v_stride;
    rows.beta += piece.rows * rows.gate_stride;
    rows.decay += piece.rows * rows.gate_stride;
    rows.out += piece.rows * rows.out_stride;
  }
}

void CpuBackend::delta(const model::DeltaRule& rule, Tensor q, Tensor k, Tensor v, Tensor b,
                       Tensor a, const Batch& batch, Tensor out) {
  Buffer &queries = buffer(q), &keys = buffer(k), &betas = buffer(b), &decays = buffer(a);
  const Buffer& values = buffer(v);
  Buffer& to = buffer(out);
  to.rows = queries.rows;
  const std::span<const float> a_log = vector_of(rule.a_log), bias = vector_of(rule.dt_bias);
  const float scale = 1 / std::sqrt(static_cast<float>(rule.key_dim));
  for_rows(pool_, queries.rows, [&](size_t row) {
    for (size_t head = 0; head < rule.key_heads; ++head) {
      const size_t at = head * rule.key_dim;
      ops_.l2_norm(queries.row(row).subspan(at, rule.key_dim), rule.epsilon, scale);
      ops_.l2_norm(keys.row(row).subspan(at, rule.key_dim), rule.epsilon, 1);
    }
    ops_.sigmoid(betas.row(row), betas.row(row));
    ops_.delta_decay(decays.row(row), a_log, bias, decays.row(row));
  });

  const size_t tiles = limits_.state.tiles(), items = rule.value_heads * tiles;
  const size_t group = rule.value_heads / rule.key_heads;
  pool_.run(batch.segments.size() * items, [&](size_t item, size_t) {
    const Segment& segment = batch.segments[item / items];
    const size_t head = item % items / tiles, row = segment.first_row;
    const size_t column = item % tiles * kernels::kDeltaColumns;
    const size_t key_head = rule.tiled_heads ? head % rule.key_heads : head / group;
    const size_t key = key_head * rule.key_dim, value = head * rule.value_dim + column;
    run_tile(segment, rule.layer, item % items,
             {.q = queries.row(row).data() + key,
              .k = keys.row(row).data() + key,
              .qk_stride = queries.columns,
              .v = values.row(row).data() + value,
              .v_stride = values.columns,
              .beta = betas.row(row).data() + head,
              .decay = decays.row(row).data() + head,
              .gate_stride = betas.columns,
              .out = to.row(row).data() + value,
              .out_stride = to.columns,
              .rows = 0,
              .key_dim = rule.key_dim,
              .columns = std::min<size_t>(kernels::kDeltaColumns, rule.value_dim - column),
              .before = nullptr,
              .after = nullptr},
             [&](const kernels::DeltaRows& rows) { ops_.delta_rule(rows); });
  });
}

void CpuBackend::state_space(const model::StateSpaceRule& rule, Tensor x, Tensor b, Tensor c,
                             Tensor dt, Tensor decay, const Batch& batch, Tensor out) {
  const Buffer &values = buffer(x), &keys = buffer(b), &queries = buffer(c);
  Buffer &steps = buffer(dt), &decays = buffer(decay), &to = buffer(out);
  to.rows = decays.rows = values.rows;
  const std::span<const float> a_log = vector_of(rule.a_log), bias = vector_of(rule.dt_bias);
  const std::span<const float> skip = vector_of(rule.skip);
  for_rows(pool_, values.rows, [&](size_t row) {
    ops_.softplus(steps.row(row), bias, rule.step_min, rule.step_max, steps.row(row));
    ops_.step_decay(steps.row(row), a_log, decays.row(row));
  });

  const size_t tiles = limits_.state.tiles(), items = rule.heads * tiles;
  const size_t group = rule.heads / rule.groups;
  pool_.run(batch.segments.size() * items, [&](size_t item, size_t) {
    const Segment& segment = batch.segments[item / items];
    const size_t head = item % items / tiles, row = segment.first_row;
    const size_t column = item % tiles * kernels::kDeltaColumns;
    const size_t key = head / group * rule.state_dim, value = head * rule.head_dim + column;
    run_tile(segment, rule.layer, item % items,
             {.q = queries.row(row).data() + key,
              .k = keys.row(row).data() + key,
              .qk_stride = keys.columns,
              .v = values.row(row).data() + value,
              .v_stride = values.columns,
              .beta = steps.row(row).data() + head,
              .decay = decays.row(row).data() + head,
              .gate_stride = steps.columns,
              .out = to.row(row).data() + value,
              .out_stride = to.columns,
              .rows = 0,
              .key_dim = rule.state_dim,
              .columns = std::min<size_t>(kernels::kDeltaColumns, rule.head_dim - column),
              .before = nullptr,
              .after = nullptr},
             [&](const kernels::DeltaRows& rows) { ops_.state_space(rows, skip[head]); });
  });
}

}  // namespace sluice::runtime
