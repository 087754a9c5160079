// Refuses values that no format can hold. Upstream's behaviour on them is undefined, so they are an
// error that names the place rather than a silently wrong model.
#pragma once

#include <cstddef>
#include <functional>
#include <span>

#include "stream/stream.h"

namespace sluice::stream {

// Returns the index of the first value that is no finite number, or row.size().
using FindFunction = std::function<size_t(std::span<const float> row)>;

// Every value must be finite and, where the output type is narrower than f32, stay finite in it.
// find: numerics::find_unencodable or a kernel equal to it. Errors: kCorrupt naming tensor, row,
// column and value.
Status check_values(const io::Checkpoint& checkpoint, const RowBlock& block,
                    numerics::DType output_dtype, const FindFunction& find);

// The block's values as a model of the given dtype holds them, which is what MLX's quantizer sees
// and what errors of quantized tensors are measured against. The block's own values where rounding
// changes nothing, else rounded ones in buffer.
std::span<const float> values_in_dtype(const RowBlock& block, numerics::DType dtype,
                                       std::vector<float>& buffer);

}  // namespace sluice::stream
