// Refuses values that no format can hold. Upstream's behaviour on them is undefined, so they are an
// error that names the place rather than a silently wrong model.
#pragma once

#include <cstddef>
#include <span>

#include "stream/stream.h"

namespace sluice::stream {

// Returns the index of the first value that is no finite number, or row.size().
using FindFunction = size_t (*)(std::span<const float> row);

// Every value must be finite and, where the output type is narrower than f32, stay finite in it.
// find: numerics::find_unencodable or a kernel equal to it. Errors: kCorrupt naming tensor, row,
// column and value.
Status check_values(const io::Checkpoint& checkpoint, const RowBlock& block,
                    numerics::DType output_dtype, FindFunction find);

}  // namespace sluice::stream
