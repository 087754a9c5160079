// What chooses the tokens that a layer of latent attention looks at. Private to model.
#pragma once

#include "model/layer.h"

namespace sluice::model {

class Indexer {
 public:
  explicit Indexer(const LayerContext& context);

  // One more product of the normalised low-rank vector of the queries.
  const Product& query() const { return query_; }
  // x: the layer's normalised rows. After the product; before attention, whose rule's selected_max
  // is top_k().
  void run(Backend& backend, const Batch& batch, Tensor x) const;
  uint32_t top_k() const { return rule_.top_k; }

 private:
  const LatentSpace& space_;
  const IndexRule rule_;
  Product query_, key_, weights_;
  Weight norm_, norm_bias_;
  float epsilon_;
  RopeTable rope_;
};

}  // namespace sluice::model
