// Joins the tensors that make up packed ones: codes, scales, biases and whatever else belongs to
// one weight. After it, a checkpoint lists each of them once, under the name and shape that the
// model knows.
#pragma once

#include "io/checkpoint.h"

namespace sluice::io {

// Sorts the tensors by name and builds the lookup. Errors: kCorrupt for a name that occurs twice,
// or no tensors at all.
Status index_tensors(Checkpoint& checkpoint);

// What config.json calls packed: `quantization` as mlx_lm writes it, else a `quantization_config`
// whose quant_method is one of fp8, fbgemm_fp8, compressed-tensors, modelopt (or a quant_algo
// alone), mxfp4, gptq and awq; docs/formats.md#packed-sources. Which weights are packed is decided
// by the tensors that are there, so that lists of modules left out need no reading. Other methods
// are left as they are, for whoever maps the model to refuse. The tensors must be indexed. Errors:
// kCorrupt for parts that do not fit together or are missing, kUnsupported for settings that are
// not known.
Status join_packed_tensors(Checkpoint& checkpoint);

// The quantization_config, of the whole model or of its text_config; null when there is none.
const Json* quantization_settings(const Json& config);
// Whether the folder was quantized by MLX or by us.
bool is_mlx_folder(const Json& config);
// The name of a quant_method that join_packed_tensors() does not know; empty for known ones or
// none.
std::string unknown_packing(const Json& config);

}  // namespace sluice::io
