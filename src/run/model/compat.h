// Whose formula holds where mlx_lm departs from transformers. docs/families.md lists the
// differences.
#pragma once

#include <cstdint>

namespace sluice::model {

enum class Compat : uint8_t { kTransformers, kMlx };

}  // namespace sluice::model
