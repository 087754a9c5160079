// The CPU back-end's operations on heads: norms, rotation, the KV blocks and attention to them.
#include <algorithm>

#include "runtime/cpu_backend.h"
#include "runtime/cpu_rows.h"

namespace sluice::runtime {

using kernels::AttentionShape;
using model::AttentionRule;
using model::Batch;
using model::Segment;
using model::Tensor;

namespace {

kernels::RopeStyle style_of(model::RopeStyle style) {
  return style == model::RopeStyle::kHalf ? kernels::RopeStyle::kHalf
                                          : kernels::RopeStyle::kInterleaved;
}

AttentionShape shape_of(const AttentionRule& rule, kernels::KvType type) {
  return {.key_type = type,
          .value_type = type,
          .group = rule.heads / rule.kv_heads,
          .key_dim = rule.head_dim,
          .value_dim = rule.head_dim,
          .scale = rule.scale,
          .window = rule.window};
}

void turn_heads(const kernels::LayerOps& ops, std::span<float> row, size_t head_dim) {
  for (size_t at = 0; at < row.size(); at += head_dim) ops.hadamard(row.subspan(at, head_dim));
}

}  // namespace

// The angles of all rows: the same in every layer, so once per step.
void CpuBackend::begin(const Batch& batch, std::span<KvSequence* const> sequences) {
  status_ = {};
  SLUICE_CHECK(batch.tokens.size() <= limits_.rows);
  sequences_ = sequences;
  for (Rope& rope : ropes_) {
    const size_t count = rope.frequencies();
    for (const Segment& segment : batch.segments)
      for (size_t i = 0; i < segment.rows; ++i) {
        const size_t at = (segment.first_row + i) * count;
        numerics::rope_angles(rope.rule.frequencies, segment.first_position + i,
                              std::span(rope.cos).subspan(at, count),
                              std::span(rope.sin).subspan(at, count));
      }
  }
}

void CpuBackend::rms_norm_heads(Tensor x, size_t heads, model::Weight weight, float epsilon) {
  Buffer& b = buffer(x);
  const size_t head_dim = b.columns / heads;
  const std::span<const float> scale = vector_of(weight);
  for_rows(pool_, b.rows, [&](size_t row) {
    for (size_t head = 0; head < heads; ++head) {
      const auto values = b.row(row).subspan(head * head_dim, head_dim);
      ops_.rms_norm(values, scale, epsilon, values);
    }
  });
}

void CpuBackend::rope(Tensor x, size_t heads, model::RopeTable table, const Batch&) {
  Buffer& b = buffer(x);
  const Rope& rope = ropes_[static_cast<uint32_t>(table)];
  const size_t count = rope.frequencies();
  for_rows(pool_, b.rows, [&](size_t row) {
    ops_.rope(b.row(row), b.columns / heads, std::span(rope.cos).subspan(row * count, count),
              std::span(rope.sin).subspan(row * count, count), style_of(rope.rule.style));
  });
}

void CpuBackend::store_kv(const AttentionRule& rule, Tensor k, Tensor v, const Batch& batch) {
  const Buffer& keys = buffer(k);
  const Buffer& values = buffer(v);
  const size_t head_dim = rule.head_dim;
  for (const Segment& segment : batch.segments) {
    const KvSequence& sequence = *sequences_[static_cast<uint32_t>(segment.sequence)];
    const KvPool& pool = sequence.pool();
    const size_t row_bytes = pool.shape().row_bytes();
    const kernels::KvType type = pool.shape().type;
    const bool turning = pool.shape().turned();
    for_rows(pool_, segment.rows, [&](size_t i) {
      if (turning) {
        turn_heads(ops_, keys.row(segment.first_row + i), head_dim);
        turn_heads(ops_, values.row(segment.first_row + i), head_dim);
      }
      const size_t position = segment.first_position + i;
      const uint32_t block = sequence.blocks()[position / kKvBlockTokens];
      const size_t at = position % kKvBlockTokens * row_bytes;
      for (size_t head = 0; head < rule.kv_heads; ++head) {
        const size_t first = head * head_dim;
        ops_.encode_kv(type, keys.row(segment.first_row + i).subspan(first, head_dim),
                       {pool.keys(block, rule.layer, head) + at, row_bytes});
        ops_.encode_kv(type, values.row(segment.first_row + i).subspan(first, head_dim),
                       {pool.values(block, rule.layer, head) + at, row_bytes});
      }
    });
  }
}

void CpuBackend::attend_tile(const AttentionRule& rule, const AttentionTile& tile, size_t kv_head,
                             const Batch& batch, const Buffer& q, const Buffer& out,
                             size_t worker) {
  const Segment& segment = batch.segments[tile.segment];
  const KvSequence& sequence = *sequences_[static_cast<uint32_t>(segment.sequence)];
  const KvPool& pool = sequence.pool();
  const AttentionShape shape = shape_of(rule, pool.shape().type);
  const size_t row_bytes = pool.shape().row_bytes();

  const size_t end = tile.position + tile.tokens;
  const size_t seen_from =
      rule.window > 0 && tile.position >= rule.window ? tile.position + 1 - rule.window : 0;
  const size_t first_key = seen_from / kKvBlockTokens * kKvBlockTokens;
  std::vector<kernels::KvSpan>& spans = spans_[worker];
  spans.clear();
  for (size_t at = first_key; at < end; at += kKvBlockTokens) {
    const uint32_t block = sequence.blocks()[at / kKvBlockTokens];
    spans.push_back(
        {.keys = reinterpret_cast<const uint8_t*>(pool.keys(block, rule.layer, kv_head)),
         .values = reinterpret_cast<const uint8_t*>(pool.values(block, rule.layer, kv_head)),
         .key_stride = row_bytes,
         .value_stride = row_bytes,
         .rows = std::min(kKvBlockTokens, end - at)});
  }
  const size_t first = kv_head * shape.group * rule.head_dim;
  const kernels::AttentionQueries queries{.q = q.row(tile.row).data() + first,
                                          .q_stride = q.columns,
                                          .first_position = tile.position,
                                          .tokens = tile.tokens,
                                          .out = out.row(tile.row).data() + first,
                                          .out_stride = out.columns};
  ops_.attend(shape, spans, first_key, queries, scratch(worker));
}

void CpuBackend::attention(const AttentionRule& rule, Tensor q, const Batch& batch, Tensor out) {
  const Buffer& from = buffer(q);
  Buffer& to = buffer(out);
  to.rows = from.rows;
  const size_t step = kernels::attend_tile(rule.heads / rule.kv_heads);
  tiles_.clear();
  for (size_t s = 0; s < batch.segments.size(); ++s) {
    const Segment& segment = batch.segments[s];
    for (size_t i = 0; i < segment.rows; i += step)
      tiles_.push_back({s, segment.first_row + i, std::min<size_t>(step, segment.rows - i),
                        segment.first_position + i});
  }
  const bool turning = limits_.kv.turned();
  if (turning)
    for_rows(pool_, from.rows, [&](size_t row) { turn_heads(ops_, from.row(row), rule.head_dim); });
  // The last tiles see the most keys: they are begun first.
  pool_.run(tiles_.size() * rule.kv_heads, [&](size_t item, size_t worker) {
    const AttentionTile& tile = tiles_[tiles_.size() - 1 - item / rule.kv_heads];
    attend_tile(rule, tile, item % rule.kv_heads, batch, from, to, worker);
  });
  if (turning)
    for_rows(pool_, to.rows, [&](size_t row) { turn_heads(ops_, to.row(row), rule.head_dim); });
}

}  // namespace sluice::runtime
