// The CPU back-end's operations on heads: norms, rotation, the KV blocks and attention to them.
#include <algorithm>
#include <cmath>
#include <numeric>

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

// Below this, sharing a kv head's query heads out among workers costs more than it gains: each of
// them decodes the same keys.
constexpr size_t kHeadsMin = 4;

AttentionShape shape_of(const AttentionRule& rule, kernels::KvType type, size_t heads) {
  return {.key_type = type,
          .value_type = type,
          .group = heads,
          .key_dim = rule.kv.key_dim,
          .value_dim = rule.kv.value_dim,
          .scale = rule.scale,
          .softcap = rule.softcap,
          .window = rule.window,
          .chunk = rule.chunk};
}

// Each head of a row, by itself, or its first elements by themselves and the rest likewise.
void turn_heads(const kernels::LayerOps& ops, std::span<float> row, size_t head_dim, size_t first) {
  for (size_t at = 0; at < row.size(); at += head_dim) {
    ops.hadamard(row.subspan(at, first));
    if (first < head_dim) ops.hadamard(row.subspan(at + first, head_dim - first));
  }
}

// How many of a segment's first rows see at most that many keys.
size_t rows_that_see_all(const Segment& segment, size_t keys) {
  return segment.first_position >= keys
             ? 0
             : std::min<size_t>(segment.rows, keys - segment.first_position);
}

// What of a key or query is turned by itself.
size_t turned_first(const model::KvDims& dims) {
  return dims.values_in_keys ? dims.value_dim : dims.key_dim;
}

}  // namespace

// The angles of all rows: the same in every layer, so once per step.
void CpuBackend::begin(const Batch& batch, std::span<KvSequence* const> sequences,
                       std::span<const StateStep* const> states) {
  status_ = {};
  SLUICE_CHECK(batch.tokens.size() <= limits_.rows);
  sequences_ = sequences;
  states_ = states;
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

void CpuBackend::copy_heads(Tensor x, size_t heads, size_t first, size_t count, Tensor out,
                            size_t out_first) {
  const Buffer& from = buffer(x);
  Buffer& to = buffer(out);
  to.rows = from.rows;
  for_rows(pool_, from.rows, [&](size_t row) {
    for (size_t head = 0; head < heads; ++head)
      std::ranges::copy(
          from.row(row).subspan(head * (from.columns / heads) + first, count),
          to.row(row).begin() + static_cast<ptrdiff_t>(head * (to.columns / heads) + out_first));
  });
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
  const size_t count = rope.frequencies(), head_dim = b.columns / heads, first = rope.rule.first;
  const kernels::RopeStyle style = style_of(rope.rule.style);
  for_rows(pool_, b.rows, [&](size_t row) {
    const auto cos = std::span(rope.cos).subspan(row * count, count);
    const auto sin = std::span(rope.sin).subspan(row * count, count);
    if (first == 0) return ops_.rope(b.row(row), head_dim, cos, sin, style);
    for (size_t at = first; at < b.columns; at += head_dim)
      ops_.rope(b.row(row).subspan(at, head_dim - first), head_dim - first, cos, sin, style);
  });
}

void CpuBackend::store_kv(const AttentionRule& rule, Tensor k, Tensor v, const Batch& batch) {
  const Buffer& keys = buffer(k);
  const Buffer& values = buffer(v);
  const model::KvDims& dims = rule.kv;
  for (const Segment& segment : batch.segments) {
    const KvSequence& sequence = *sequences_[static_cast<uint32_t>(segment.sequence)];
    const KvPool& pool = sequence.pool();
    SLUICE_DCHECK(pool.shape().layers[rule.layer] == dims);
    const size_t key_bytes = pool.key_stride(rule.layer);
    const size_t value_bytes = pool.value_stride(rule.layer);
    const kernels::KvType type = pool.shape().type;
    const bool turning = pool.shape().turned(rule.layer);
    for_rows(pool_, segment.rows, [&](size_t i) {
      const std::span<float> key = keys.row(segment.first_row + i);
      if (turning) turn_heads(ops_, key, dims.key_dim, turned_first(dims));
      const size_t position = segment.first_position + i;
      const uint32_t block = sequence.blocks()[position / kKvBlockTokens];
      const size_t at = position % kKvBlockTokens;
      for (size_t head = 0; head < dims.heads; ++head)
        ops_.encode_kv(type, key.subspan(head * dims.key_dim, dims.key_dim),
                       {pool.keys(block, rule.layer, head) + at * key_bytes, key_bytes});
      if (dims.values_in_keys) return;
      const std::span<float> value = values.row(segment.first_row + i);
      if (turning) turn_heads(ops_, value, dims.value_dim, dims.value_dim);
      for (size_t head = 0; head < dims.heads; ++head)
        ops_.encode_kv(type, value.subspan(head * dims.value_dim, dims.value_dim),
                       {pool.values(block, rule.layer, head) + at * value_bytes, value_bytes});
    });
  }
}

void CpuBackend::append_range(const KvSequence& sequence, size_t layer, size_t kv_head,
                              size_t first, size_t end, std::vector<kernels::KvSpan>& out) const {
  const KvPool& pool = sequence.pool();
  while (first < end) {
    const uint32_t block = sequence.blocks()[first / kKvBlockTokens];
    const size_t row = first % kKvBlockTokens, rows = std::min(kKvBlockTokens - row, end - first);
    const size_t key = row * pool.key_stride(layer), value = row * pool.value_stride(layer);
    out.push_back(
        {.keys = reinterpret_cast<const uint8_t*>(pool.keys(block, layer, kv_head) + key),
         .values = reinterpret_cast<const uint8_t*>(pool.values(block, layer, kv_head) + value),
         .key_stride = pool.key_stride(layer),
         .value_stride = pool.value_stride(layer),
         .rows = rows});
    first += rows;
  }
}

void CpuBackend::append_selected(const KvSequence& sequence, size_t layer, size_t kv_head,
                                 std::span<const uint32_t> positions,
                                 std::vector<kernels::KvSpan>& out) const {
  for (size_t i = 0, end = 0; i < positions.size(); i = end) {
    while (end < positions.size() && positions[end] == positions[i] + (end - i)) ++end;
    append_range(sequence, layer, kv_head, positions[i], positions[i] + (end - i), out);
  }
}

std::span<uint32_t> CpuBackend::selected_of(size_t row) {
  return std::span(selected_).subspan(row * limits_.selected_max, limits_.selected_max);
}

// Scores of the keys of one block of the cache.
void CpuBackend::score_keys(const model::IndexRule& rule, const KvSequence& sequence, size_t first,
                            size_t end, std::span<const float> q, std::span<const float> weights,
                            std::span<float> key) {
  const KvPool& pool = sequence.pool();
  const size_t bytes = pool.key_stride(rule.cache);
  const std::byte* keys = pool.keys(sequence.blocks()[first / kKvBlockTokens], rule.cache, 0);
  for (size_t position = first; position < end; ++position) {
    ops_.decode_kv(pool.shape().type, {keys + position % kKvBlockTokens * bytes, bytes}, key);
    float score = 0;
    for (size_t head = 0; head < rule.heads; ++head) {
      const float product = ops_.dot(q.subspan(head * rule.key_dim, rule.key_dim), key);
      score += weights[head] * std::max(product, 0.0f);
    }
    // A number that is none would have no place in the order.
    key_scores_[position] = std::isnan(score) ? -HUGE_VALF : score;
  }
}

// The positions of the largest of the first `visible` scores, in order.
void CpuBackend::select_best(size_t visible, std::span<uint32_t> out) {
  candidates_.resize(visible);
  std::iota(candidates_.begin(), candidates_.end(), 0u);
  const auto last = candidates_.begin() + static_cast<ptrdiff_t>(out.size());
  std::nth_element(candidates_.begin(), last - 1, candidates_.end(), [&](uint32_t a, uint32_t b) {
    return key_scores_[a] > key_scores_[b] || (key_scores_[a] == key_scores_[b] && a < b);
  });
  std::copy(candidates_.begin(), last, out.begin());
  std::ranges::sort(out);
}

void CpuBackend::select_keys(const model::IndexRule& rule, Tensor q, Tensor k, Tensor weights,
                             const Batch& batch) {
  store_kv({.layer = rule.cache, .kv = {1, rule.key_dim, 0, true}}, k, k, batch);
  const Buffer& queries = buffer(q);
  const Buffer& factors = buffer(weights);
  for (const Segment& segment : batch.segments) {
    const KvSequence& sequence = *sequences_[static_cast<uint32_t>(segment.sequence)];
    for (size_t i = rows_that_see_all(segment, rule.top_k); i < segment.rows; ++i) {
      const size_t row = segment.first_row + i, visible = segment.first_position + i + 1;
      pool_.run((visible + kKvBlockTokens - 1) / kKvBlockTokens, [&](size_t item, size_t worker) {
        const size_t first = item * kKvBlockTokens;
        const std::span<float> key(reinterpret_cast<float*>(scratch(worker).data()), rule.key_dim);
        score_keys(rule, sequence, first, std::min(visible, first + kKvBlockTokens),
                   queries.row(row), factors.row(row), key);
      });
      select_best(visible, selected_of(row));
    }
  }
}

void CpuBackend::attend_tile(const AttentionRule& rule, const AttentionTile& tile,
                             const HeadSlice& slice, const Batch& batch, const Buffer& q,
                             const Buffer& out, size_t worker) {
  const Segment& segment = batch.segments[tile.segment];
  const KvSequence& sequence = *sequences_[static_cast<uint32_t>(segment.sequence)];
  const KvPool& pool = sequence.pool();
  AttentionShape shape = shape_of(rule, pool.shape().type, slice.heads);
  if (rule.sinks != model::Weight::kNone)
    shape.sinks = vector_of(rule.sinks).data() + slice.first_head;

  const size_t end = tile.position + tile.tokens;
  size_t first_key = rule.first_seen(tile.position) / kKvBlockTokens * kKvBlockTokens;
  std::vector<kernels::KvSpan>& spans = spans_[worker];
  spans.clear();
  if (tile.selected) {
    // What was selected is all that there is: the token is the last of it.
    first_key = 0;
    append_selected(sequence, rule.layer, slice.kv_head, selected_of(tile.row), spans);
  } else {
    append_range(sequence, rule.layer, slice.kv_head, first_key, end, spans);
  }
  const kernels::AttentionQueries queries{
      .q = q.row(tile.row).data() + slice.first_head * shape.key_dim,
      .q_stride = q.columns,
      .first_position = tile.selected ? limits_.selected_max - 1 : tile.position,
      .tokens = tile.tokens,
      .out = out.row(tile.row).data() + slice.first_head * shape.value_dim,
      .out_stride = out.columns};
  ops_.attend(shape, spans, first_key, queries, scratch(worker));
}

void CpuBackend::attention(const AttentionRule& rule, Tensor q, const Batch& batch, Tensor out) {
  const Buffer& from = buffer(q);
  Buffer& to = buffer(out);
  to.rows = from.rows;
  const size_t group = rule.heads / rule.kv.heads;
  size_t together = std::min(kHeadsTogether, group);
  const size_t step = kernels::attend_tile(together);
  tiles_.clear();
  for (size_t s = 0; s < batch.segments.size(); ++s) {
    const Segment& segment = batch.segments[s];
    // Rows that see more keys than are selected come last, each with its own.
    const size_t rows =
        rule.selected_max == 0 ? segment.rows : rows_that_see_all(segment, rule.selected_max);
    for (size_t i = 0; i < rows; i += step)
      tiles_.push_back(
          {s, segment.first_row + i, std::min<size_t>(step, rows - i), segment.first_position + i});
    for (size_t i = rows; i < segment.rows; ++i)
      tiles_.push_back({s, segment.first_row + i, 1, segment.first_position + i, true});
  }
  // Where all heads share one key, a single token would keep a single worker busy.
  while (together >= 2 * kHeadsMin &&
         tiles_.size() * rule.kv.heads * ((group + together - 1) / together) < pool_.threads())
    together = (together + 1) / 2;
  slices_.clear();
  for (size_t kv_head = 0; kv_head < rule.kv.heads; ++kv_head)
    for (size_t head = 0; head < group; head += together)
      slices_.push_back({kv_head, kv_head * group + head, std::min(together, group - head)});
  const bool turning = limits_.kv.turned(rule.layer);
  if (turning)
    for_rows(pool_, from.rows, [&](size_t row) {
      turn_heads(ops_, from.row(row), rule.kv.key_dim, turned_first(rule.kv));
    });
  // The last tiles see the most keys: they are begun first.
  pool_.run(tiles_.size() * slices_.size(), [&](size_t item, size_t worker) {
    const AttentionTile& tile = tiles_[tiles_.size() - 1 - item / slices_.size()];
    attend_tile(rule, tile, slices_[item % slices_.size()], batch, from, to, worker);
  });
  if (turning)
    for_rows(pool_, to.rows, [&](size_t row) {
      turn_heads(ops_, to.row(row), rule.kv.value_dim, rule.kv.value_dim);
    });
}

}  // namespace sluice::runtime
