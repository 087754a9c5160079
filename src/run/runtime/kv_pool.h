// Keys and values of sessions, in reference-counted blocks of kKvBlockTokens tokens, all layers of
// them, whose heads may differ in number and size. Forked sessions share blocks until one of them
// writes. What a row's bytes mean is LayerOps::encode_kv's business.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/layer_ops.h"
#include "model/backend.h"
#include "runtime/page_memory.h"

namespace sluice::runtime {

// Small enough that a short session wastes little, and long enough that a head's rows in one block
// are read as a stream.
inline constexpr size_t kKvBlockTokens = 64;

struct KvShape {
  kernels::KvType type = kernels::KvType::kF16;
  std::vector<model::KvDims> layers;

  // Of one head's key or value of a token; a value that lies in its key takes none.
  size_t key_bytes(size_t layer) const {
    return kernels::kv_row_bytes(type, layers[layer].key_dim);
  }
  size_t value_bytes(size_t layer) const {
    const model::KvDims& dims = layers[layer];
    return dims.values_in_keys ? 0 : kernels::kv_row_bytes(type, dims.value_dim);
  }
  // Four bits are too few for the outlying channels of real keys and values: turned by a Hadamard
  // matrix, a head spreads them over all its elements. Scores stay when queries turn along, and the
  // output is turned back. Of what 4-bit keys and values cost SmolLM2-135M on WikiText-2 (0.091
  // nats a token), turning keys recovers 56 %, and values as well 71 %. Where values lie in keys,
  // their part of a key is turned by itself and the rest by itself. All parts must be powers of
  // two.
  bool turned(size_t layer) const;
  // Of one token: keys and values of all heads in all layers.
  uint64_t token_bytes() const;
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

  // kKvBlockTokens rows of a head. Values that lie in keys begin where those do, and are as far
  // apart.
  std::byte* keys(uint32_t block, size_t layer, size_t kv_head) const {
    const Place& place = places_[layer];
    return memory_.data() + block * block_bytes_ + place.first +
           kv_head * (place.keys_bytes + place.values_bytes);
  }
  std::byte* values(uint32_t block, size_t layer, size_t kv_head) const {
    const Place& place = places_[layer];
    return keys(block, layer, kv_head) + (place.values_bytes > 0 ? place.keys_bytes : 0);
  }
  size_t key_stride(size_t layer) const { return places_[layer].keys_bytes / kKvBlockTokens; }
  size_t value_stride(size_t layer) const {
    const Place& place = places_[layer];
    return (place.values_bytes > 0 ? place.values_bytes : place.keys_bytes) / kKvBlockTokens;
  }
  void copy_block(uint32_t from, uint32_t to) const;

 private:
  // Of a layer in each block: where its first head begins, and the bytes of a head's keys and
  // values.
  struct Place {
    size_t first = 0, keys_bytes = 0, values_bytes = 0;
  };
  KvPool() = default;
  KvShape shape_;
  std::vector<Place> places_;
  size_t block_bytes_ = 0;
  PageMemory memory_;
  std::vector<uint32_t> references_, free_;
};

// What a back-end keeps of a sequence itself, where keys and values do not lie in blocks. Positions
// from the sequence's size on mean nothing.
class SequenceStore {
 public:
  virtual ~SequenceStore() = default;
  virtual std::unique_ptr<SequenceStore> fork() const = 0;
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
    std::swap(store_, other.store_);
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
  // The back-end's; truncate(0) lets go of it.
  std::unique_ptr<SequenceStore>& store() { return store_; }

 private:
  std::shared_ptr<KvPool> pool_;
  std::vector<uint32_t> blocks_;
  size_t size_ = 0;
  std::unique_ptr<SequenceStore> store_;
};

}  // namespace sluice::runtime
