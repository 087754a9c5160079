// Models of which there are no weights: the tensors that a known family's configuration calls for,
// so that everything that goes by shapes alone can be said of them, and an estimate for families
// without a table.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "families/recipe.h"
#include "io/model_outline.h"

namespace sluice::families {

// The checkpoint that config.json, and the index's names where there are any, describe: every
// tensor of the family's table in bfloat16, those that keep their type in float32 as their
// publishers have them, gpt-oss's experts in MXFP4 where the configuration says so; MLX's own and
// other packings as the values that they decode to. It has neither files nor bytes: for map_model()
// and sizes. Its configuration has no quantization_config: that the packing is not supported is
// found by map_model() with outline.config.
// Errors: kUnsupported for families without a table and settings that they do not know; kCorrupt
// for impossible numbers, or an index whose names are not those that the configuration calls for.
Result<std::shared_ptr<const io::Checkpoint>> outlined_checkpoint(const io::ModelOutline& outline);

// The experts that a token goes through, under any of the keys in use; 0: none, or not said.
uint64_t experts_per_token(const Json& config);

// Weights that take part in each token: of a layer's experts those that are chosen, of everything
// else all. experts_per_token 0: all of them.
uint64_t active_elements(const ModelMap& map, uint64_t experts_per_token);

// Of models that no table describes, from the keys that most configurations share. Norms, biases
// and what is peculiar to a family are left out: within some percent where layers are of the usual
// kinds.
struct SizeEstimate {
  uint64_t parameters = 0, active_parameters = 0;
  uint64_t layers = 0, experts = 0, experts_per_token = 0;
};
// Nothing where the configuration does not say how wide, how deep and of what vocabulary.
std::optional<SizeEstimate> estimate_size(const Json& config);

}  // namespace sluice::families
