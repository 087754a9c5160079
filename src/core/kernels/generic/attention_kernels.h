// Attention with a running softmax (Milakov and Gimelshein 2018) over tiles of keys. A tile is 32
// positions whose first is a multiple of 32, and each query row goes through the same operations in
// the same order whatever rows stand beside it; keys that it does not see are not multiplied by
// zero but left out.
#pragma once

#include "kernels/generic/kv_kernels.h"
#include "kernels/generic/layer_math.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

constexpr size_t kKeyTile = 2 * kWide;
constexpr size_t kQueryRows = 32;  // attend_tile in layer_ops.cpp cuts by the same number

inline size_t padded(size_t dim) { return (dim + kWide - 1) / kWide * kWide; }
inline size_t tile_tokens(size_t group) { return most_of(1, kQueryRows / group); }

// Views into scratch. Rows: token by token, its heads one after another; dims padded with zeros.
struct AttentionTile {
  size_t rows, key_dim, value_dim;
  float* q;       // [rows][key_dim]
  float* sums;    // [rows][value_dim], not yet divided by total
  float* scores;  // [rows][kKeyTile], then the weights
  float* top;     // [rows] the largest score so far
  float* total;   // [rows] Σ e^(score − top)
  float* keys;    // [kKeyTile][key_dim]
  float* values;  // [kKeyTile][value_dim]
};

size_t attend_scratch_floats(const AttentionShape* shape) {
  const size_t rows = tile_tokens(shape->group) * shape->group;
  const size_t dims = padded(shape->key_dim) + padded(shape->value_dim);
  return rows * (dims + kKeyTile + 2) + kKeyTile * dims;
}

AttentionTile make_tile(const AttentionShape& shape, size_t tokens, float* scratch) {
  AttentionTile t;
  t.rows = tokens * shape.group;
  t.key_dim = padded(shape.key_dim);
  t.value_dim = padded(shape.value_dim);
  t.q = scratch;
  t.sums = t.q + t.rows * t.key_dim;
  t.scores = t.sums + t.rows * t.value_dim;
  t.keys = t.scores + t.rows * kKeyTile;
  t.values = t.keys + kKeyTile * t.key_dim;
  t.top = t.values + kKeyTile * t.value_dim;
  t.total = t.top + t.rows;
  return t;
}

// A sink is a score without a value: the running softmax begins with it.
void begin_rows(const AttentionShape& shape, const AttentionQueries& queries, size_t first_token,
                AttentionTile& t) {
  memset(t.q, 0, t.rows * t.key_dim * 4);
  memset(t.sums, 0, t.rows * t.value_dim * 4);
  for (size_t row = 0; row < t.rows; ++row) {
    const size_t token = first_token + row / shape.group, head = row % shape.group;
    memcpy(t.q + row * t.key_dim, queries.q + token * queries.q_stride + head * shape.key_dim,
           shape.key_dim * 4);
    t.top[row] = shape.sinks != nullptr ? shape.sinks[head] : -kInf;
    t.total[row] = shape.sinks != nullptr ? 1 : 0;
  }
}

// The first key that a token at this position sees.
inline size_t first_seen(const AttentionShape& shape, size_t position, size_t first_key) {
  size_t first = first_key;
  if (shape.window > 0 && position + 1 > shape.window)
    first = most_of(first, position + 1 - shape.window);
  if (shape.chunk > 0) first = most_of(first, position / shape.chunk * shape.chunk);
  return first;
}

// ---- rows of the cache ----

struct KvCursor {
  const KvSpan* span;
  size_t row;
};

inline KvCursor cursor_at(const KvSpan* spans, size_t row) {
  while (row >= spans->rows) row -= (spans++)->rows;
  return {spans, row};
}

// Decodes count ≥ 1 rows from the cursor on; returns the cursor behind the last, which need not be
// a row.
template <class Decode>
inline KvCursor for_rows(KvCursor at, size_t count, Decode decode) {
  for (size_t i = 0; i < count; ++i) {
    while (at.row == at.span->rows) at = {at.span + 1, 0};
    decode(i, *at.span, at.row++);
  }
  return at;
}

// ---- scores ----

// Rows and keys [R] × [K] of sums over the dimensions; strides are dim and kKeyTile.
template <size_t R, size_t K>
inline void score_block(const float* q, const float* keys, size_t dim, float* scores) {
  F sum[R][K];
  for (size_t r = 0; r < R; ++r)
    for (size_t k = 0; k < K; ++k) sum[r][k] = splat(0);
  for (size_t i = 0; i < dim; i += kWide) {
    F key[K];
    for (size_t k = 0; k < K; ++k) key[k] = load(keys + k * dim + i);
    for (size_t r = 0; r < R; ++r) {
      const F a = load(q + r * dim + i);
      for (size_t k = 0; k < K; ++k) sum[r][k] = fma(a, key[k], sum[r][k]);
    }
  }
  for (size_t r = 0; r < R; ++r)
    for (size_t k = 0; k < K; ++k) scores[r * kKeyTile + k] = fold_sum(sum[r][k]);
}

template <size_t R, size_t K>
inline void score_rows(const AttentionTile& t, size_t row, size_t from, size_t to) {
  const float* q = t.q + row * t.key_dim;
  float* scores = t.scores + row * kKeyTile;
  size_t key = from;
  for (; key + K <= to; key += K)
    score_block<R, K>(q, t.keys + key * t.key_dim, t.key_dim, scores + key);
  for (; key < to; ++key) score_block<R, 1>(q, t.keys + key * t.key_dim, t.key_dim, scores + key);
}

// ---- softmax ----

// Turns the scores of the keys [from, to) of the tile into weights, zero elsewhere, and brings what
// is summed so far to the new maximum.
void weigh_row(const AttentionShape& shape, const AttentionTile& t, size_t row, size_t from,
               size_t to) {
  float* scores = t.scores + row * kKeyTile;
  F s[2];
  for (size_t half = 0; half < 2; ++half) {
    s[half] = load(scores + half * kWide) * splat(shape.scale);
    if (shape.softcap > 0)
      s[half] = splat(shape.softcap) * tanh_lanes(s[half] / splat(shape.softcap));
    store(scores + half * kWide, s[half]);
  }
  for (size_t key = 0; key < from; ++key) scores[key] = -kInf;
  for (size_t key = to; key < kKeyTile; ++key) scores[key] = -kInf;
  for (size_t half = 0; half < 2; ++half) s[half] = load(scores + half * kWide);

  const float tile_top = fold_max(max_(s[0], max_(s[1], splat(-kInf))));
  const float old_top = t.top[row], top = tile_top > old_top ? tile_top : old_top;
  for (size_t half = 0; half < 2; ++half) {
    s[half] = exp_lanes(s[half] - splat(top));
    store(scores + half * kWide, s[half]);
  }
  const float added = fold_sum(s[0] + s[1]);
  if (top != old_top) {
    float shrink[kWide];
    store(shrink, exp_lanes(splat(old_top - top)));
    t.total[row] *= shrink[0];
    float* sums = t.sums + row * t.value_dim;
    for (size_t i = 0; i < t.value_dim; i += kWide)
      store(sums + i, load(sums + i) * splat(shrink[0]));
    t.top[row] = top;
  }
  t.total[row] += added;
}

// ---- values ----

// Adds weight · value for the keys [from, to) of the tile, to R rows and C · 16 dimensions.
template <size_t R, size_t C>
inline void add_values_block(const float* weights, const float* values, size_t dim, size_t from,
                             size_t to, float* sums) {
  F sum[R][C];
  for (size_t r = 0; r < R; ++r)
    for (size_t c = 0; c < C; ++c) sum[r][c] = load(sums + r * dim + c * kWide);
  for (size_t key = from; key < to; ++key) {
    F value[C];
    for (size_t c = 0; c < C; ++c) value[c] = load(values + key * dim + c * kWide);
    for (size_t r = 0; r < R; ++r) {
      const F weight = splat(weights[r * kKeyTile + key]);
      for (size_t c = 0; c < C; ++c) sum[r][c] = fma(weight, value[c], sum[r][c]);
    }
  }
  for (size_t r = 0; r < R; ++r)
    for (size_t c = 0; c < C; ++c) store(sums + r * dim + c * kWide, sum[r][c]);
}

template <size_t R, size_t C>
inline void add_values(const AttentionTile& t, size_t row, size_t from, size_t to) {
  if (from >= to) return;
  const float* weights = t.scores + row * kKeyTile;
  float* sums = t.sums + row * t.value_dim;
  size_t i = 0;
  for (; i + C * kWide <= t.value_dim; i += C * kWide)
    add_values_block<R, C>(weights, t.values + i, t.value_dim, from, to, sums + i);
  for (; i < t.value_dim; i += kWide)
    add_values_block<R, 1>(weights, t.values + i, t.value_dim, from, to, sums + i);
}

// ---- a tile of queries against all its keys ----

// Of a query row, in a tile of keys: [from, to), empty if from == to.
struct Seen {
  size_t from, to;
};

inline Seen seen_in_tile(const AttentionShape& shape, size_t position, size_t first_key,
                         size_t tile) {
  const size_t first = first_seen(shape, position, first_key), end = position + 1;
  const size_t from = first > tile ? least_of(first - tile, kKeyTile) : 0;
  const size_t to = end > tile ? least_of(end - tile, kKeyTile) : 0;
  return {least_of(from, to), to};
}

// Two rows share the keys that both see; a row's keys come in order all the same.
void add_two_rows(const AttentionTile& t, size_t row, Seen a, Seen b) {
  const Seen common = {most_of(a.from, b.from), least_of(a.to, b.to)};
  if (common.from >= common.to) {
    add_values<1, 4>(t, row, a.from, a.to);
    add_values<1, 4>(t, row + 1, b.from, b.to);
    return;
  }
  add_values<1, 4>(t, row, a.from, common.from);
  add_values<1, 4>(t, row + 1, b.from, common.from);
  add_values<2, 2>(t, row, common.from, common.to);
  add_values<1, 4>(t, row, common.to, a.to);
  add_values<1, 4>(t, row + 1, common.to, b.to);
}

void score_tile(const AttentionTile& t, size_t from, size_t to) {
  size_t row = 0;
  for (; row + 2 <= t.rows; row += 2) score_rows<2, 2>(t, row, from, to);
  if (row < t.rows) score_rows<1, 4>(t, row, from, to);
}

// first_position: of the tile's first row.
void add_tile(const AttentionShape& shape, const AttentionTile& t, size_t first_position,
              size_t first_key, size_t tile) {
  const auto seen = [&](size_t row) {
    return seen_in_tile(shape, first_position + row / shape.group, first_key, tile);
  };
  for (size_t row = 0; row < t.rows; ++row) {
    const Seen keys = seen(row);
    if (keys.from < keys.to) weigh_row(shape, t, row, keys.from, keys.to);
  }
  size_t row = 0;
  for (; row + 2 <= t.rows; row += 2) add_two_rows(t, row, seen(row), seen(row + 1));
  if (row < t.rows) add_values<1, 4>(t, row, seen(row).from, seen(row).to);
}

void end_rows(const AttentionShape& shape, const AttentionTile& t, const AttentionQueries& queries,
              size_t first_token) {
  for (size_t row = 0; row < t.rows; ++row) {
    const size_t token = first_token + row / shape.group, head = row % shape.group;
    const F total = splat(t.total[row] == 0 ? 1 : t.total[row]);
    for_lanes(
        shape.value_dim, queries.out + token * queries.out_stride + head * shape.value_dim,
        [&](F sum) { return sum / total; }, t.sums + row * t.value_dim);
  }
}

void attend_tokens(const AttentionShape& shape, const KvSpan* spans, size_t first_key,
                   const AttentionQueries& queries, size_t first_token, size_t tokens,
                   float* scratch) {
  AttentionTile t = make_tile(shape, tokens, scratch);
  begin_rows(shape, queries, first_token, t);
  const size_t position = queries.first_position + first_token, end = position + tokens;
  size_t key = first_seen(shape, position, first_key);
  KvCursor cursor = cursor_at(spans, key - first_key);
  while (key < end) {
    const size_t tile = key / kKeyTile * kKeyTile, from = key - tile;
    const size_t count = least_of(tile + kKeyTile, end) - key;
    for_rows(cursor, count, [&](size_t i, const KvSpan& span, size_t row) {
      decode_padded(shape.key_type, span.keys + row * span.key_stride, shape.key_dim,
                    t.keys + (from + i) * t.key_dim);
    });
    score_tile(t, from, from + count);
    cursor = for_rows(cursor, count, [&](size_t i, const KvSpan& span, size_t row) {
      decode_padded(shape.value_type, span.values + row * span.value_stride, shape.value_dim,
                    t.values + (from + i) * t.value_dim);
    });
    add_tile(shape, t, position, first_key, tile);
    key += count;
  }
  end_rows(shape, t, queries, first_token);
}

void attend(const AttentionShape* shape, const KvSpan* spans, size_t first_key,
            const AttentionQueries* queries, float* scratch) {
  const size_t step = tile_tokens(shape->group);
  for (size_t token = 0; token < queries->tokens; token += step)
    attend_tokens(*shape, spans, first_key, *queries, token,
                  least_of(step, queries->tokens - token), scratch);
}

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
