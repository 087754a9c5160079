// The one place that includes MLX.
#pragma once

#include <mlx/mlx.h>

namespace sluice::gpu {

namespace mx = ::mlx::core;

// A dimension of an array; sizes have been checked against int32 by whoever opened the model.
inline int dim(size_t size) { return static_cast<int>(size); }

}  // namespace sluice::gpu
