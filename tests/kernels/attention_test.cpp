// Attention against a plain double-precision softmax, and its promise: a token's result is the same
// bits alone, in a batch, over other spans and on other threads.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/layer_ops.h"
#include "support/seed.h"

namespace sluice::kernels {
namespace {

struct Setting {
  KvType key_type = KvType::kF32, value_type = KvType::kF32;
  size_t group = 2, key_dim = 64, value_dim = 64;
  float softcap = 0;
  size_t window = 0, chunk = 0;
  bool sinks = false;
};

const Setting kSettings[] = {
    {},
    {.key_type = KvType::kF16,
     .value_type = KvType::kF16,
     .group = 5,
     .key_dim = 128,
     .value_dim = 128},
    {.group = 1, .key_dim = 20, .value_dim = 12},
    {.group = 3, .window = 1},
    {.group = 7, .window = 33, .sinks = true},
    {.key_type = KvType::kQ8, .value_type = KvType::kQ8, .group = 4, .softcap = 5, .window = 100},
    {.key_type = KvType::kQ4, .value_type = KvType::kF16, .chunk = 40, .sinks = true},
    {.group = 40, .key_dim = 96, .value_dim = 64},
};

// One kv head of a cache, its query tokens, and what is run over them.
class Case {
 public:
  Case(const LayerOps& ops, const Setting& s, size_t positions, uint64_t seed)
      : ops_(ops), setting_(s), positions_(positions), random_(seed) {
    key_bytes_ = kv_row_bytes(s.key_type, s.key_dim);
    value_bytes_ = kv_row_bytes(s.value_type, s.value_dim);
    keys_.resize(positions * key_bytes_);
    values_.resize(positions * value_bytes_);
    for (size_t i = 0; i < positions; ++i) {
      decoded_keys_.push_back(encode(s.key_type, s.key_dim, keys_, i * key_bytes_));
      decoded_values_.push_back(encode(s.value_type, s.value_dim, values_, i * value_bytes_));
    }
    q_ = normals(positions * s.group * s.key_dim, 2);
    sinks_ = normals(s.group, 2);
  }

  AttentionShape shape() const {
    const Setting& s = setting_;
    return {s.key_type, s.value_type, s.group,  s.key_dim, s.value_dim,
            0.17f,      s.softcap,    s.window, s.chunk,   s.sinks ? sinks_.data() : nullptr};
  }
  size_t out_stride() const { return setting_.group * setting_.value_dim; }
  size_t positions() const { return positions_; }

  // Rows [first, end) cut into pieces of span_rows.
  std::vector<KvSpan> spans(size_t first, size_t end, size_t span_rows) const {
    std::vector<KvSpan> out;
    for (size_t row = first; row < end; row += span_rows)
      out.push_back({reinterpret_cast<const uint8_t*>(keys_.data()) + row * key_bytes_,
                     reinterpret_cast<const uint8_t*>(values_.data()) + row * value_bytes_,
                     key_bytes_, value_bytes_, std::min(span_rows, end - row)});
    return out;
  }

  // Tokens [first, first + tokens) over keys from first_key on; into out's own places.
  void attend(size_t first, size_t tokens, size_t first_key, size_t span_rows, float* out) const {
    const AttentionShape attention = shape();
    std::vector<float> scratch(ops_.attend_scratch_bytes(attention) / 4, std::nanf(""));
    const size_t q_stride = setting_.group * setting_.key_dim;
    const AttentionQueries queries{q_.data() + first * q_stride, q_stride,    first, tokens,
                                   out + first * out_stride(),   out_stride()};
    ops_.attend(attention, spans(first_key, first + tokens, span_rows), first_key, queries,
                std::as_writable_bytes(std::span(scratch)));
  }

  std::vector<float> attend_all() const {
    std::vector<float> out(positions_ * out_stride());
    attend(0, positions_, 0, positions_, out.data());
    return out;
  }

  std::vector<double> reference() const {
    std::vector<double> out(positions_ * out_stride());
    for (size_t position = 0; position < positions_; ++position)
      for (size_t head = 0; head < setting_.group; ++head)
        reference_row(position, head,
                      out.data() + position * out_stride() + head * setting_.value_dim);
    return out;
  }

  void spoil_value(size_t position) {
    for (size_t i = 0; i < value_bytes_; ++i)
      values_[position * value_bytes_ + i] = std::byte{0xff};
  }

 private:
  std::vector<float> normals(size_t count, float size) {
    std::normal_distribution<float> normal(0, size);
    std::vector<float> x(count);
    for (float& value : x) value = normal(random_);
    return x;
  }

  std::vector<float> encode(KvType type, size_t dim, std::vector<std::byte>& rows, size_t at) {
    const std::span<std::byte> row(rows.data() + at, kv_row_bytes(type, dim));
    std::vector<float> back(dim);
    ops_.encode_kv(type, normals(dim, 1), row);
    ops_.decode_kv(type, row, back);
    return back;
  }

  bool sees(size_t position, size_t key) const {
    const bool in_window = setting_.window == 0 || position - key < setting_.window;
    const bool in_chunk = setting_.chunk == 0 || position / setting_.chunk == key / setting_.chunk;
    return key <= position && in_window && in_chunk;
  }

  void reference_row(size_t position, size_t head, double* out) const {
    const float* q = q_.data() + (position * setting_.group + head) * setting_.key_dim;
    double total = setting_.sinks ? std::exp(double{sinks_[head]}) : 0;
    for (size_t key = 0; key <= position; ++key) {
      if (!sees(position, key)) continue;
      double score = 0;
      for (size_t i = 0; i < setting_.key_dim; ++i) score += double{q[i]} * decoded_keys_[key][i];
      score *= double{0.17f};
      if (setting_.softcap > 0) score = setting_.softcap * std::tanh(score / setting_.softcap);
      total += std::exp(score);
      for (size_t i = 0; i < setting_.value_dim; ++i)
        out[i] += std::exp(score) * decoded_values_[key][i];
    }
    for (size_t i = 0; i < setting_.value_dim; ++i) out[i] /= total;
  }

  const LayerOps& ops_;
  Setting setting_;
  size_t positions_, key_bytes_, value_bytes_;
  std::mt19937_64 random_;
  std::vector<std::byte> keys_, values_;
  std::vector<std::vector<float>> decoded_keys_, decoded_values_;
  std::vector<float> q_, sinks_;
};

class Attention : public testing::TestWithParam<size_t> {
 protected:
  Case make(size_t positions) const { return {ops_, kSettings[GetParam()], positions, seed_}; }

  const uint64_t seed_ = test::seed();
  const LayerOps& ops_ = layer_ops(detect_cpu().simd);
};

TEST_P(Attention, AgreesWithThePlainFormula) {
  for (const size_t positions : {1, 31, 32, 33, 64, 130}) {
    const Case c = make(positions);
    const auto got = c.attend_all();
    const auto want = c.reference();
    for (size_t i = 0; i < got.size(); ++i)
      ASSERT_NEAR(got[i], want[i], 3e-5 * std::max(1.0, std::abs(want[i]))) << "at " << i;
  }
}

// Token by token, as decoding does, against all at once, as a prompt does.
TEST_P(Attention, DecodeEqualsPrefillBitForBit) {
  const Case c = make(150);
  const auto at_once = c.attend_all();
  std::vector<float> one_by_one(at_once.size());
  for (size_t token = 0; token < c.positions(); ++token)
    c.attend(token, 1, 0, token + 1, one_by_one.data());
  EXPECT_EQ(at_once, one_by_one);
}

TEST_P(Attention, ChunksAndSpansDoNotMatter) {
  const Case c = make(150);
  const auto at_once = c.attend_all();
  for (const size_t chunk : {2, 7, 33, 64})
    for (const size_t span_rows : {1, 16, 50}) {
      std::vector<float> got(at_once.size());
      for (size_t first = 0; first < c.positions(); first += chunk)
        c.attend(first, std::min(chunk, c.positions() - first), 0, span_rows, got.data());
      ASSERT_EQ(at_once, got) << "chunks of " << chunk << ", spans of " << span_rows;
    }
}

// A cache may have dropped what the window no longer reaches.
TEST_P(Attention, DroppedKeysDoNotMatter) {
  const Setting& s = kSettings[GetParam()];
  const Case c = make(150);
  const auto at_once = c.attend_all();
  std::vector<float> got(at_once.size());
  for (size_t token = 0; token < c.positions(); ++token) {
    size_t first = 0;
    if (s.window > 0 && token + 1 > s.window) first = token + 1 - s.window;
    if (s.chunk > 0) first = std::max(first, token / s.chunk * s.chunk);
    c.attend(token, 1, first, 16, got.data());
  }
  EXPECT_EQ(at_once, got);
}

TEST_P(Attention, ThreadsDoNotMatter) {
  const Case c = make(150);
  const auto at_once = c.attend_all();
  const size_t tile = attend_tile(kSettings[GetParam()].group);
  ThreadPool pool(4);
  std::vector<float> got(at_once.size());
  pool.run((c.positions() + tile - 1) / tile, [&](size_t item, size_t) {
    const size_t first = item * tile;
    c.attend(first, std::min(tile, c.positions() - first), 0, 32, got.data());
  });
  EXPECT_EQ(at_once, got);
}

// What comes later must not reach earlier tokens, not even as a NaN times zero.
TEST_P(Attention, LaterTokensLeaveEarlierOnesAlone) {
  Case c = make(100);
  const auto before = c.attend_all();
  c.spoil_value(50);
  const auto after = c.attend_all();
  const long unchanged = static_cast<long>(50 * c.out_stride());
  EXPECT_TRUE(std::equal(before.begin(), before.begin() + unchanged, after.begin()));
}

INSTANTIATE_TEST_SUITE_P(Settings, Attention, testing::Range<size_t>(0, std::size(kSettings)));

}  // namespace
}  // namespace sluice::kernels
