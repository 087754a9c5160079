// A model's configuration as its forward pass needs it: config.json in the spellings of
// transformers 4 and 5, every number range-checked, every setting that would change the mathematics
// either understood or refused by name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "families/family.h"
#include "model/backend.h"

namespace sluice::model {

struct ModelConfig {
  std::string family;  // model_type
  families::ModelDims dims;
  bool tied = false;     // the head is the embedding
  bool qk_norm = false;  // each head of q and k is normalised before it is rotated
  float rms_norm_eps = 0;
  numerics::RopeScaling rope;
  std::vector<uint32_t> windows;  // per layer; 0: the whole context
  uint32_t experts_per_token = 0;
  bool norm_topk_prob = false;
  uint64_t max_position_embeddings = 0;  // 0: not said

  bool sparse() const { return dims.experts > 0; }
};

// Whether there is a forward pass for this model_type.
bool has_forward_pass(std::string_view model_type);

// label: of config.json, for messages. kUnsupported for other families, activation functions and
// rope scalings; kCorrupt for missing or impossible numbers.
Result<ModelConfig> read_config(const io::Checkpoint& checkpoint, const families::ModelMap& map);

// The rotation of heads of head_dim from rope_theta and rope_scaling, or rope_parameters, of a
// configuration; its numbers are possible ones.
Result<numerics::RopeScaling> read_rope(const Json& config, uint64_t head_dim, double theta_default,
                                        const std::string& label);

// For sequences of up to so many positions: the keys of a cache must all be turned alike, so that
// the two scalings that depend on a sequence's length (dynamic, longrope) take the most it can
// hold.
RopeRule rope_rule(const numerics::RopeScaling& scaling, size_t context);

}  // namespace sluice::model
