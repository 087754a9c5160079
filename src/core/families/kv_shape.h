// What tokens leave in the caches of keys and values, for budgets: sizes alone.
#pragma once

#include <vector>

#include "families/recipe.h"

namespace sluice::families {

// Layers that keep alike: 2 · layers · kv_heads · head_dim numbers for each token that is kept.
struct KvShape {
  uint64_t layers = 0;
  uint64_t kv_heads = 0, head_dim = 0;
  uint64_t window = 0;  // the tokens that are kept; 0: all
  bool operator==(const KvShape&) const = default;
};

// Layers of linear attention and state spaces keep nothing. Latent attention keeps one latent and
// one rotary key for all heads: as much as keys and values of one head of half their width. Layers
// that see a window keep as much; where the configuration does not say which layers do, all of them
// count as seeing everything. Zeros for what it does not say at all.
std::vector<KvShape> kv_shapes(const io::Checkpoint& checkpoint, const ModelMap& map);

}  // namespace sluice::families
