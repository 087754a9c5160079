// The CPU back-end's recurrences: convolutions by groups of channels, the delta rule by heads and
// tiles of their state. Each item goes through all rows of a sequence in order, so that what it
// needs of the state stays in the first cache, and results do not depend on how many rows there
// are.
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
                     .taps = rule.taps,
                     .before = before,
                     .after = piece.to + place,
                     .state_stride = shape.sizes.columns});
      before = piece.to + place;
      row += piece.rows;
    }
  });
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

  const StateShape& shape = limits_.state;
  const size_t tiles = shape.tiles(), items = rule.value_heads * tiles;
  const size_t group = rule.value_heads / rule.key_heads;
  pool_.run(batch.segments.size() * items, [&](size_t item, size_t) {
    const Segment& segment = batch.segments[item / items];
    const StateStep& step = *states_[static_cast<uint32_t>(segment.sequence)];
    const size_t head = item % items / tiles, tile = item % tiles;
    const size_t place = rule.layer * shape.layer_floats() + shape.past_floats() +
                         item % items * shape.tile_floats();
    const size_t column = tile * kernels::kDeltaColumns;
    const size_t key = head / group * rule.key_dim, value = head * rule.value_dim + column;
    const float* before = step.from == nullptr ? nullptr : step.from + place;
    size_t row = segment.first_row;
    for (const StatePiece& piece : step.pieces) {
      ops_.delta_rule({.q = queries.row(row).data() + key,
                       .k = keys.row(row).data() + key,
                       .qk_stride = queries.columns,
                       .v = values.row(row).data() + value,
                       .v_stride = values.columns,
                       .beta = betas.row(row).data() + head,
                       .decay = decays.row(row).data() + head,
                       .gate_stride = betas.columns,
                       .out = to.row(row).data() + value,
                       .out_stride = to.columns,
                       .rows = piece.rows,
                       .key_dim = rule.key_dim,
                       .columns = std::min<size_t>(kernels::kDeltaColumns, rule.value_dim - column),
                       .before = before,
                       .after = piece.to + place});
      before = piece.to + place;
      row += piece.rows;
    }
  });
}

}  // namespace sluice::runtime
