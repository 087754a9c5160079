// Blocks of keys and values: counted, shared, copied when written.
#include "runtime/kv_pool.h"

#include <gmock/gmock.h>

namespace sluice::runtime {
namespace {

using kernels::KvType;

KvShape even_shape() { return {KvType::kF16, std::vector<model::KvDims>(3, {2, 32, 32})}; }

std::shared_ptr<KvPool> pool_of(size_t blocks, const KvShape& shape = even_shape()) {
  auto pool = KvPool::make(shape, blocks);
  SLUICE_CHECK(pool.has_value());
  return *pool;
}

void extend(KvSequence& sequence, size_t count) {
  ASSERT_TRUE(sequence.reserve(count).has_value());
  sequence.commit(count);
}

TEST(KvPool, RowsDoNotOverlap) {
  const auto pool = pool_of(2);
  EXPECT_EQ(even_shape().token_bytes(), 3u * 2 * 2 * 64);
  const size_t rows = kKvBlockTokens * even_shape().key_bytes(0);
  const std::byte* next = pool->keys(0, 0, 0);
  for (uint32_t block = 0; block < 2; ++block)
    for (size_t layer = 0; layer < 3; ++layer)
      for (size_t head = 0; head < 2; ++head) {
        EXPECT_EQ(pool->keys(block, layer, head), next);
        EXPECT_EQ(pool->values(block, layer, head), next + rows);
        next += 2 * rows;
      }
}

// A layer with values of another size, one that keeps nothing, one whose values lie in its keys,
// and one of keys alone.
TEST(KvPool, LayersOfDifferentShapes) {
  const KvShape shape{KvType::kF16, {{2, 32, 48}, {}, {1, 80, 64, true}, {1, 16, 0}, {3, 8, 8}}};
  EXPECT_EQ(shape.token_bytes(), 2u * (2 * (32 + 48) + 80 + 16 + 3 * (8 + 8)));
  const auto pool = pool_of(2, shape);
  const std::byte* next = pool->keys(0, 0, 0);
  for (uint32_t block = 0; block < 2; ++block)
    for (size_t layer = 0; layer < shape.layers.size(); ++layer)
      for (uint32_t head = 0; head < shape.layers[layer].heads; ++head) {
        EXPECT_EQ(pool->keys(block, layer, head), next);
        next += kKvBlockTokens * shape.key_bytes(layer);
        const bool own = shape.value_bytes(layer) > 0;
        EXPECT_EQ(pool->values(block, layer, head), own ? next : pool->keys(block, layer, head));
        next += kKvBlockTokens * shape.value_bytes(layer);
      }
  EXPECT_EQ(pool->keys(0, 2, 0) + shape.block_bytes(), pool->keys(1, 2, 0));
  EXPECT_EQ(pool->key_stride(2), 160u);
  EXPECT_EQ(pool->value_stride(2), 160u);
  EXPECT_EQ(pool->value_stride(0), 96u);
}

TEST(KvPool, WhatIsTurned) {
  const std::vector<model::KvDims> layers = {{1, 64, 64},       {1, 48, 48},
                                             {1, 64, 48},       {1, 576, 512, true},
                                             {1, 96, 96, true}, {1, 608, 512, true}};
  const bool expected[] = {true, false, false, true, false, false};
  const KvShape four_bits{KvType::kQ4, layers}, eight_bits{KvType::kQ8, layers};
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    EXPECT_EQ(four_bits.turned(layer), expected[layer]) << layer;
    EXPECT_FALSE(eight_bits.turned(layer));
  }
}

TEST(KvPool, BlocksComeBack) {
  const auto pool = pool_of(4);
  {
    KvSequence a(pool);
    extend(a, 1);
    EXPECT_EQ(pool->free_blocks(), 3u);
    extend(a, kKvBlockTokens);
    EXPECT_EQ(pool->free_blocks(), 2u);
    a.truncate(kKvBlockTokens);
    EXPECT_EQ(pool->free_blocks(), 3u);
    EXPECT_EQ(a.size(), kKvBlockTokens);
    KvSequence moved = std::move(a);
    EXPECT_EQ(moved.size(), kKvBlockTokens);
    EXPECT_FALSE(moved.reserve(4 * kKvBlockTokens).has_value());
    moved.truncate(moved.size());
    EXPECT_EQ(pool->free_blocks(), 3u);
  }
  EXPECT_EQ(pool->free_blocks(), 4u);
}

TEST(KvPool, ForksCopyWhatTheyWrite) {
  const auto pool = pool_of(8);
  KvSequence a(pool);
  extend(a, kKvBlockTokens + 10);
  *pool->keys(a.blocks()[1], 2, 1) = std::byte{7};
  KvSequence b = a.fork();
  EXPECT_EQ(pool->free_blocks(), 6u);
  EXPECT_EQ(b.blocks(), a.blocks());
  extend(b, 1);
  EXPECT_EQ(pool->free_blocks(), 5u);
  EXPECT_EQ(b.blocks()[0], a.blocks()[0]);
  EXPECT_NE(b.blocks()[1], a.blocks()[1]);
  EXPECT_EQ(*pool->keys(b.blocks()[1], 2, 1), std::byte{7});
  extend(a, 1);  // its own now
  EXPECT_EQ(pool->free_blocks(), 5u);
  b.truncate(5);
  extend(b, 1);  // the first block is still a's
  EXPECT_NE(b.blocks()[0], a.blocks()[0]);
}

// A fork at the end of a block shares nothing that either will write.
TEST(KvPool, ForksAtABoundary) {
  const auto pool = pool_of(4);
  KvSequence a(pool);
  extend(a, kKvBlockTokens);
  KvSequence b = a.fork();
  extend(a, 1);
  extend(b, 1);
  EXPECT_EQ(a.blocks()[0], b.blocks()[0]);
  EXPECT_NE(a.blocks()[1], b.blocks()[1]);
  EXPECT_EQ(pool->free_blocks(), 1u);
}

}  // namespace
}  // namespace sluice::runtime
