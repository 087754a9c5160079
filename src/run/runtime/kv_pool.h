// Keys and values of sessions, in reference-counted blocks of kKvBlockTokens tokens, all layers of
// them. Forked sessions share blocks until one of them writes. What a row's bytes mean is
// LayerOps::encode_kv's business.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/layer_ops.h"
#include "runtime/page_memory.h"

namespace sluice::runtime {

// Small enough that a short session wastes little, and long enough that a head's rows in one block
// are read as a stream.
inline constexpr size_t kKvBlockTokens = 64;

struct KvShape {
  kernels::KvType type = kernels::KvType::kF16;
  size_t layers = 0, kv_heads = 0, head_dim = 0;

  size_t row_bytes() const { return kernels::kv_row_bytes(type, head_dim); }
  // Four bits are too few for the outlying channels of real keys and values: turned by a Hadamard
  // matrix, a head spreads them over all its elements. Scores stay when queries turn along, and the
  // output is turned back. Of what 4-bit keys and values cost SmolLM2-135M on WikiText-2 (0.091
  // nats a token), turning keys recovers 56 %, and values as well 71 %.
  bool turned() const { return type == kernels::KvType::kQ4 && std::has_single_bit(head_dim); }
  // Of one token: keys and values of all heads in all layers.
  uint64_t token_bytes() const { return uint64_t{2} * layers * kv_heads * row_bytes(); }
  uint64_t block_bytes() const { return token_bytes() * kKvBlockTokens; }
};

// A block holds, layer by layer and head by head, kKvBlockTokens rows of keys and as many of
// values. One thread.
class KvPool {
 public:
  // Address space for that many blocks; memory is taken as they are first written.
  static Result<std::shared_ptr<KvPool>> make(const KvShape& shape, size_t blocks);

  const KvShape& shape() const { return shape_; }
  size_t block_count() const { return references_.size(); }
  size_t free_blocks() const { return free_.size(); }

  // A block with one reference; kExhausted when all are taken.
  Result<uint32_t> take();
  void add_reference(uint32_t block) { ++references_[block]; }
  void drop_reference(uint32_t block);
  bool shared(uint32_t block) const { return references_[block] > 1; }

  // kKvBlockTokens rows of a head.
  std::byte* keys(uint32_t block, size_t layer, size_t kv_head) const {
    const size_t rows_of_one = kKvBlockTokens * row_bytes_;
    return memory_.data() + block * block_bytes_ +
           (layer * shape_.kv_heads + kv_head) * 2 * rows_of_one;
  }
  std::byte* values(uint32_t block, size_t layer, size_t kv_head) const {
    return keys(block, layer, kv_head) + kKvBlockTokens * row_bytes_;
  }
  void copy_block(uint32_t from, uint32_t to) const;

 private:
  KvPool() = default;
  KvShape shape_;
  size_t row_bytes_ = 0, block_bytes_ = 0;
  PageMemory memory_;
  std::vector<uint32_t> references_, free_;
};

// One session's blocks in order. Move-only; fork() shares. One thread, the pool's.
class KvSequence {
 public:
  explicit KvSequence(std::shared_ptr<KvPool> pool) : pool_(std::move(pool)) {}
  // The other one stays empty and of use: it keeps the pool.
  KvSequence(KvSequence&& other) noexcept : KvSequence(other.pool_) { *this = std::move(other); }
  KvSequence& operator=(KvSequence&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(blocks_, other.blocks_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~KvSequence() { truncate(0); }

  const KvPool& pool() const { return *pool_; }
  // Tokens whose keys and values are complete.
  size_t size() const { return size_; }
  const std::vector<uint32_t>& blocks() const { return blocks_; }

  // Makes positions [size(), size() + count) writable: takes blocks, and copies the last one where
  // it is shared. kExhausted: no blocks left; what could be had stays reserved.
  Status reserve(size_t count);
  // The reserved positions have been written.
  void commit(size_t count) { size_ += count; }
  void truncate(size_t count);
  KvSequence fork() const;

 private:
  std::shared_ptr<KvPool> pool_;
  std::vector<uint32_t> blocks_;
  size_t size_ = 0;
};

}  // namespace sluice::runtime
