// The operations on heads: norms, rotation, keys and values, attention to them.
#include <algorithm>

#include "base/checked.h"
#include "gpu/mlx_backend.h"

namespace sluice::gpu {

using model::AttentionRule;
using model::Batch;
using model::Segment;
using model::Tensor;

namespace {

// Tokens that room for keys and values grows by: a copy of what is there, then none for as many.
constexpr size_t kGrowTokens = 256;

mx::Dtype kv_dtype(runtime::KvType type) {
  return type == runtime::KvType::kF32 ? mx::float32 : mx::float16;
}

}  // namespace

void MlxBackend::head_matmul(Tensor x, const model::HeadProduct& product, Tensor out) {
  attempt([&] {
    const auto entry = static_cast<uint32_t>(product.weight);
    const size_t columns = weights_.store().entries()[entry].columns;
    // Heads need rows from all over it.
    const Result<MlxMatrix> found =
        weights_.store().stays(entry) ? weights_.whole(entry) : weights_.assemble(entry);
    if (!found) {
      status_ = std::unexpected(found.error());
      return;
    }
    const MlxMatrix& whole = *found;
    const mx::array x_heads = mx::swapaxes(heads_of(x, product.heads), 0, 1, device_);
    std::vector<mx::array> results;
    for (size_t head = 0; head < product.heads; ++head) {
      const auto own = [&](const mx::array& part) {
        return rows_between(part, head * product.head_rows + product.first_row, product.rows);
      };
      MlxMatrix matrix = whole;
      matrix.weight = own(whole.weight);
      if (whole.scales) matrix.scales = own(*whole.scales);
      if (whole.biases) matrix.biases = own(*whole.biases);
      const mx::array input = mx::squeeze(rows_between(x_heads, head, 1), 0, device_);
      results.push_back(
          weights_.multiply(columns_between(input, 0, product.transposed ? product.rows : columns),
                            matrix, !product.transposed));
    }
    const size_t count = static_cast<size_t>(results[0].shape(1)), rows = value(x).rows;
    const size_t width = value(out).columns / product.heads;
    mx::array result = mx::stack(results, 1, device_);  // [rows, heads, count]
    if (count < width) {
      const bool there = value(out).rows_of && value(out).rows == rows;
      const mx::array before =
          there ? heads_of(out, product.heads)
                : mx::zeros({dim(rows), dim(product.heads), dim(width)}, mx::float32, device_);
      result = mx::concatenate({result, columns_between(before, count, width - count)}, 2, device_);
    }
    set(out, mx::reshape(result, {dim(rows), dim(value(out).columns)}, device_));
  });
}

void MlxBackend::copy_heads(Tensor x, size_t heads, size_t first, size_t count, Tensor out,
                            size_t out_first) {
  attempt([&] {
    const size_t rows = value(x).rows, width = value(out).columns / heads;
    const bool there = value(out).rows_of && value(out).rows == rows;
    const mx::array before =
        there ? heads_of(out, heads)
              : mx::zeros({dim(rows), dim(heads), dim(width)}, mx::float32, device_);
    const mx::array copied = columns_between(heads_of(x, heads), first, count);
    const mx::array all =
        mx::slice_update(before, copied, mx::Shape{0, 0, dim(out_first)},
                         mx::Shape{dim(rows), dim(heads), dim(out_first + count)}, device_);
    set(out, mx::reshape(all, {dim(rows), dim(value(out).columns)}, device_));
  });
}

void MlxBackend::rms_norm_heads(Tensor x, size_t heads, model::Weight weight, float epsilon) {
  attempt([&] {
    std::optional<mx::array> scale;
    if (weight != model::Weight::kNone) scale = vector_of(weight);
    const mx::array normed = mx::fast::rms_norm(heads_of(x, heads), scale, epsilon, device_);
    set(x, mx::reshape(normed, at(x).shape(), device_));
  });
}

// The angles come from the host, in f64 and once for a step: in f32 they would be off by a
// thousandth at positions in the ten thousands.
void MlxBackend::rope(Tensor x, size_t heads, model::RopeTable table, const Batch& batch) {
  Rope& rope = ropes_[static_cast<uint32_t>(table)];
  const size_t count = rope.rule.frequencies.inv_freq.size(), first = rope.rule.first;
  attempt([&] {
    if (!rope.cos) {
      std::vector<float> cos(rows_ * count), sin(rows_ * count);
      for (const Segment& segment : batch.segments)
        for (size_t i = 0; i < segment.rows; ++i)
          numerics::rope_angles(rope.rule.frequencies, segment.first_position + i,
                                std::span(cos).subspan((segment.first_row + i) * count, count),
                                std::span(sin).subspan((segment.first_row + i) * count, count));
      const mx::Shape shape{dim(rows_), 1, dim(count)};
      rope.cos = mx::array(cos.begin(), shape, mx::float32);
      rope.sin = mx::array(sin.begin(), shape, mx::float32);
    }
    const mx::array whole = heads_of(x, heads);
    const bool half = rope.rule.style == model::RopeStyle::kHalf;
    const size_t width = static_cast<size_t>(whole.shape(2)), end = first + 2 * count;
    const auto part = [&](size_t which) {
      if (half) return columns_between(whole, first + which * count, count);
      return mx::slice(whole, {0, 0, dim(first + which)}, {dim(rows_), dim(heads), dim(end)},
                       {1, 1, 2}, device_);
    };
    const mx::array a = part(0), b = part(1);
    const auto times = [&](const mx::array& u, const mx::array& v) {
      return mx::multiply(u, v, device_);
    };
    std::vector<mx::array> turned{mx::subtract(times(a, *rope.cos), times(b, *rope.sin), device_),
                                  mx::add(times(b, *rope.cos), times(a, *rope.sin), device_)};
    std::vector<mx::array> parts;
    if (first > 0) parts.push_back(columns_between(whole, 0, first));
    if (half)
      parts.insert(parts.end(), turned.begin(), turned.end());
    else
      parts.push_back(mx::reshape(mx::stack(turned, 3, device_),
                                  {dim(rows_), dim(heads), dim(2 * count)}, device_));
    if (end < width) parts.push_back(columns_between(whole, end, width - end));
    set(x, mx::reshape(mx::concatenate(parts, 2, device_), at(x).shape(), device_));
  });
}

MlxKv& MlxBackend::kv_of(const Segment& segment) {
  auto& store = sequences_[static_cast<uint32_t>(segment.sequence)]->store();
  if (store == nullptr) {
    auto made = std::make_unique<MlxKv>();
    made->layers.resize(limits_.kv.layers.size());
    store = std::move(made);
  }
  return static_cast<MlxKv&>(*store);
}

// rows [tokens, heads · dim] behind what is there, from that position on.
mx::array MlxBackend::appended(const std::optional<mx::array>& before, const mx::array& rows,
                               size_t heads, size_t width, size_t position) const {
  const auto count = static_cast<size_t>(rows.shape(0));
  const mx::Dtype dtype = kv_dtype(limits_.kv.type);
  const mx::array added = mx::expand_dims(
      mx::swapaxes(
          mx::reshape(astype(rows, dtype, device_), {dim(count), dim(heads), dim(width)}, device_),
          0, 1, device_),
      0, device_);
  const size_t end = position + count;
  const size_t room = before ? static_cast<size_t>(before->shape(2)) : 0;
  std::optional<mx::array> roomy = before;
  if (end > room) {
    const size_t more = align_up(end, kGrowTokens) - room;
    const mx::array zeros = mx::zeros({1, dim(heads), dim(more), dim(width)}, dtype, device_);
    roomy = before ? mx::concatenate({*before, zeros}, 2, device_) : zeros;
  }
  return mx::slice_update(*roomy, added, mx::Shape{0, 0, dim(position), 0},
                          mx::Shape{1, dim(heads), dim(end), dim(width)}, device_);
}

void MlxBackend::store_kv(const AttentionRule& rule, Tensor k, Tensor v, const Batch& batch) {
  attempt([&] {
    for (const Segment& segment : batch.segments) {
      MlxKv::Layer& layer = kv_of(segment).layers[rule.layer];
      const auto append = [&](std::optional<mx::array>& part, Tensor from, size_t width) {
        const mx::array rows = rows_between(at(from), segment.first_row, segment.rows);
        // Moved out, so that MLX may write where it lies.
        const std::optional<mx::array> before = std::exchange(part, std::nullopt);
        part = appended(before, rows, rule.kv.heads, width, segment.first_position);
        keep(*part);
      };
      append(layer.keys, k, rule.kv.key_dim);
      if (!rule.kv.values_in_keys) append(layer.values, v, rule.kv.value_dim);
    }
  });
}

// Which of the keys from first on a segment's rows look at: [rows, keys].
mx::array MlxBackend::visible(const AttentionRule& rule, const Segment& segment,
                              size_t first) const {
  const int position = dim(segment.first_position), end = position + dim(segment.rows);
  const mx::array q = mx::expand_dims(mx::arange(position, end, 1, device_), 1, device_);
  const mx::array k = mx::expand_dims(mx::arange(dim(first), end, 1, device_), 0, device_);
  mx::array seen = mx::less_equal(k, q, device_);
  if (rule.window > 0)
    seen = mx::logical_and(
        seen, mx::less(mx::subtract(q, k, device_), mx::array(dim(rule.window)), device_), device_);
  if (rule.chunk > 0) {
    const mx::array chunk(dim(rule.chunk));
    seen = mx::logical_and(seen,
                           mx::equal(mx::floor_divide(q, chunk, device_),
                                     mx::floor_divide(k, chunk, device_), device_),
                           device_);
  }
  return seen;
}

void MlxBackend::select_keys(const model::IndexRule& rule, Tensor q, Tensor k, Tensor weights,
                             const Batch& batch) {
  const model::KvDims dims{1, rule.key_dim, 0, true};
  store_kv({.layer = rule.cache, .kv = dims}, k, k, batch);
  attempt([&] {
    for (size_t i = 0; i < batch.segments.size(); ++i) {
      const Segment& segment = batch.segments[i];
      const size_t end = segment.first_position + segment.rows;
      selected_[i] = std::nullopt;
      if (end <= rule.top_k) continue;
      const mx::array queries = rows_between(heads_of(q, rule.heads), segment.first_row,
                                             segment.rows);  // [rows, heads, dim]
      const mx::array& cache = *kv_of(segment).layers[rule.cache].keys;
      const mx::array keys = astype(
          mx::reshape(mx::slice(cache, {0, 0, 0, 0}, {1, 1, dim(end), dim(rule.key_dim)}, device_),
                      {dim(end), dim(rule.key_dim)}, device_),
          mx::float32, device_);
      const mx::array products = mx::maximum(
          mx::matmul(queries, mx::transpose(keys, device_), device_), mx::array(0.0f), device_);
      const mx::array factors =
          mx::expand_dims(rows_between(at(weights), segment.first_row, segment.rows), 2, device_);
      const mx::array scores = mx::sum(mx::multiply(products, factors, device_), 1, false, device_);
      const mx::array seen = visible({}, segment, 0);
      // Ties go to the lowest position, as the order of equal elements stays.
      const mx::array costs =
          mx::where(seen, mx::negative(scores, device_), mx::array(HUGE_VALF), device_);
      const mx::array ranks = mx::argsort(mx::argsort(costs, 1, device_), 1, device_);
      selected_[i] =
          mx::logical_and(seen, mx::less(ranks, mx::array(rule.top_k), device_), device_);
    }
  });
}

// Scores that are capped, which the fast path does not know. q [1, heads, rows, dim].
mx::array MlxBackend::attend_capped(const AttentionRule& rule, const mx::array& q,
                                    const mx::array& k, const mx::array& v,
                                    const std::optional<mx::array>& mask) {
  const int heads = dim(rule.kv.heads), group = dim(rule.heads / rule.kv.heads), rows = q.shape(2);
  const auto f32 = [&](const mx::array& x) { return astype(x, mx::float32, device_); };
  const mx::array queries = mx::reshape(f32(q), {heads, group, rows, q.shape(3)}, device_);
  const auto of_head = [&](const mx::array& x) {  // [heads, 1, keys, dim]
    return mx::reshape(f32(x), {heads, 1, x.shape(2), x.shape(3)}, device_);
  };
  mx::array scores =
      mx::multiply(mx::matmul(queries, mx::swapaxes(of_head(k), 2, 3, device_), device_),
                   mx::array(rule.scale), device_);
  const mx::array cap(rule.softcap);
  scores = mx::multiply(mx::tanh(mx::divide(scores, cap, device_), device_), cap, device_);
  if (mask) scores = mx::where(*mask, scores, mx::array(-HUGE_VALF), device_);
  const int keys = scores.shape(3);
  if (rule.sinks != model::Weight::kNone) {
    const mx::array sinks = mx::reshape(vector_of(rule.sinks), {heads, group, 1, 1}, device_);
    scores = mx::concatenate({scores, mx::broadcast_to(sinks, {heads, group, rows, 1}, device_)}, 3,
                             device_);
  }
  const mx::array weights =
      columns_between(mx::softmax(scores, 3, true, device_), 0, static_cast<size_t>(keys));
  const mx::array out = mx::matmul(weights, of_head(v), device_);
  return mx::reshape(out, {1, heads * group, rows, v.shape(3)}, device_);
}

mx::array MlxBackend::attend(const AttentionRule& rule, const Segment& segment, size_t index,
                             const mx::array& q) {
  const MlxKv::Layer& layer = kv_of(segment).layers[rule.layer];
  const size_t end = segment.first_position + segment.rows;
  const bool selecting = rule.selected_max > 0 && selected_[index].has_value();
  const size_t first = selecting ? 0 : rule.first_seen(segment.first_position);
  const auto keys_of = [&](const mx::array& x, size_t width) {
    return mx::slice(x, {0, 0, dim(first), 0}, {1, dim(rule.kv.heads), dim(end), dim(width)},
                     device_);
  };
  const mx::array k = keys_of(*layer.keys, rule.kv.key_dim);
  const mx::array v =
      keys_of(rule.kv.values_in_keys ? *layer.keys : *layer.values, rule.kv.value_dim);
  const mx::array queries =
      astype(mx::expand_dims(mx::swapaxes(q, 0, 1, device_), 0, device_), k.dtype(), device_);
  std::optional<mx::array> mask;
  const bool one_chunk =
      rule.chunk == 0 || segment.first_position / rule.chunk == (end - 1) / rule.chunk;
  const bool causal = one_chunk && (rule.window == 0 || end - first <= rule.window);
  if (selecting)
    mask = *selected_[index];
  else if (segment.rows > 1 && (!causal || rule.softcap > 0))
    mask = visible(rule, segment, first);
  if (rule.softcap > 0) return attend_capped(rule, queries, k, v, mask);
  std::optional<mx::array> sinks;
  if (rule.sinks != model::Weight::kNone) sinks = astype(vector_of(rule.sinks), k.dtype(), device_);
  const bool by_position = segment.rows > 1 && !mask;
  return mx::fast::scaled_dot_product_attention(
      queries, k, v, rule.scale, by_position ? "causal" : "", mask, sinks, false, device_);
}

void MlxBackend::attention(const AttentionRule& rule, Tensor q, const Batch& batch, Tensor out) {
  attempt([&] {
    const mx::array queries = heads_of(q, rule.heads);
    std::vector<mx::array> results;
    for (size_t i = 0; i < batch.segments.size(); ++i) {
      const Segment& segment = batch.segments[i];
      const mx::array own = rows_between(queries, segment.first_row, segment.rows);
      const mx::array attended =
          mx::swapaxes(mx::squeeze(attend(rule, segment, i, own), 0, device_), 0, 1, device_);
      results.push_back(mx::reshape(astype(attended, mx::float32, device_),
                                    {dim(segment.rows), dim(value(out).columns)}, device_));
    }
    set(out, results.size() == 1 ? results[0] : mx::concatenate(results, 0, device_));
  });
}

}  // namespace sluice::gpu
