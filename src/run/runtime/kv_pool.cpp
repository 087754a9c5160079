#include "runtime/kv_pool.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace sluice::runtime {

bool KvShape::turned(size_t layer) const {
  if (type != kernels::KvType::kQ4) return false;
  const model::KvDims& dims = layers[layer];
  const uint32_t rest = dims.values_in_keys ? dims.key_dim - dims.value_dim : dims.key_dim;
  return std::has_single_bit(dims.value_dim) && (rest == 0 || std::has_single_bit(rest));
}

uint64_t KvShape::token_bytes() const {
  uint64_t bytes = 0;
  for (size_t layer = 0; layer < layers.size(); ++layer)
    bytes += uint64_t{layers[layer].heads} * (key_bytes(layer) + value_bytes(layer));
  return bytes;
}

Result<std::shared_ptr<KvPool>> KvPool::make(const KvShape& shape, size_t blocks) {
  std::shared_ptr<KvPool> pool(new KvPool);
  pool->shape_ = shape;
  size_t first = 0;
  for (size_t layer = 0; layer < shape.layers.size(); ++layer) {
    const Place place{first, shape.key_bytes(layer) * kKvBlockTokens,
                      shape.value_bytes(layer) * kKvBlockTokens};
    first += shape.layers[layer].heads * (place.keys_bytes + place.values_bytes);
    pool->places_.push_back(place);
  }
  pool->block_bytes_ = static_cast<size_t>(shape.block_bytes());
  SLUICE_ASSIGN(pool->memory_, PageMemory::reserve(std::max<size_t>(blocks * pool->block_bytes_, 1),
                                                   "keys and values"));
  pool->references_.assign(blocks, 0);
  for (size_t i = blocks; i > 0; --i) pool->free_.push_back(static_cast<uint32_t>(i - 1));
  return pool;
}

Result<uint32_t> KvPool::take() {
  if (free_.empty())
    return fail(ErrorCode::kExhausted,
                "all {} blocks of keys and values are in use; end a session, or open the model for "
                "more of them",
                references_.size());
  const uint32_t block = free_.back();
  free_.pop_back();
  references_[block] = 1;
  return block;
}

void KvPool::drop_reference(uint32_t block) {
  SLUICE_DCHECK(references_[block] > 0);
  if (--references_[block] == 0) free_.push_back(block);
}

void KvPool::copy_block(uint32_t from, uint32_t to) const {
  std::memcpy(memory_.data() + to * block_bytes_, memory_.data() + from * block_bytes_,
              block_bytes_);
}

Status KvSequence::reserve(size_t count) {
  const size_t partial = size_ / kKvBlockTokens;
  if (partial < blocks_.size() && pool_->shared(blocks_[partial])) {
    SLUICE_ASSIGN(const uint32_t own, pool_->take());
    pool_->copy_block(blocks_[partial], own);
    pool_->drop_reference(blocks_[partial]);
    blocks_[partial] = own;
  }
  while (blocks_.size() * kKvBlockTokens < size_ + count) {
    SLUICE_ASSIGN(const uint32_t block, pool_->take());
    blocks_.push_back(block);
  }
  return {};
}

// Blocks that only later positions need go, so that what is left over from a reservation is never
// shared: a fork then owns what it writes.
void KvSequence::truncate(size_t count) {
  size_ = std::min(size_, count);
  if (count == 0) store_ = nullptr;
  const size_t needed = (size_ + kKvBlockTokens - 1) / kKvBlockTokens;
  while (blocks_.size() > needed) {
    pool_->drop_reference(blocks_.back());
    blocks_.pop_back();
  }
}

KvSequence KvSequence::fork() const {
  KvSequence copy(pool_);
  copy.size_ = size_;
  const size_t needed = (size_ + kKvBlockTokens - 1) / kKvBlockTokens;
  copy.blocks_.assign(blocks_.begin(), blocks_.begin() + static_cast<ptrdiff_t>(needed));
  for (const uint32_t block : copy.blocks_) pool_->add_reference(block);
  if (store_ != nullptr) copy.store_ = store_->fork();
  return copy;
}

}  // namespace sluice::runtime
