// Joins the tensors that make up packed ones: codes, scales and biases of MLX's quantized folders,
// and 8-bit floats with a scale per block. After it, a checkpoint lists each of them once, under
// the name and shape that the model knows.
#pragma once

#include "io/checkpoint.h"

namespace sluice::io {

// Sorts the tensors by name and builds the lookup. Errors: kCorrupt for a name that occurs twice,
// or no tensors at all.
Status index_tensors(Checkpoint& checkpoint);

// What config.json calls packed: `quantization` as mlx_lm writes it, or a `quantization_config` of
// quant_method fp8 with a weight_block_size, or of mxfp4 as gpt-oss has it. Other methods are left
// as they are, for whoever maps the model to refuse. The tensors must be indexed. Errors: kCorrupt
// for parts that do not fit together, kUnsupported for formats that are not known.
Status join_packed_tensors(Checkpoint& checkpoint);

}  // namespace sluice::io
