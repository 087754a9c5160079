// Where every tensor of an output lies, known before a byte is encoded: shard files, header text
// and offsets follow from the shapes and the chosen formats alone. docs/formats.md#output
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "families/recipe.h"
#include "io/safetensors.h"
#include "numerics/quant_format.h"

namespace sluice::stream {

// As mlx_lm: 5 GiB of tensor bytes, greedy in module order. The tensors of one module stay together
// in one shard; a module that is larger than the limit has a shard of its own.
inline constexpr uint64_t kShardBytesMax = 5ull << 30;

// Where a module's tensors start in their shard, from the start of the file.
struct ModulePlace {
  uint32_t shard = 0;
  uint64_t weight = 0;
  uint64_t scales = 0, biases = 0;  // where there are any; biases only for affine
};

struct OutputShard {
  std::string name;    // "model.safetensors" or "model-00001-of-00003.safetensors"
  std::string header;  // length prefix and padded JSON
  uint64_t file_bytes = 0;
  std::vector<io::TensorInfo> tensors;  // in order of offset
};

struct OutputLayout {
  std::vector<OutputShard> shards;
  std::vector<ModulePlace> places;  // one per module of the map
  uint64_t file_bytes = 0;          // of all shards: what a budget bounds
  uint64_t tensor_bytes = 0;        // without headers: the index's total_size
  uint64_t parameters = 0;          // logical elements: the index's total_parameters
};

// What the layout needs to know of a module; an analysis file carries the same.
struct LayoutModule {
  std::string path, parameter;
  numerics::Shape shape;
  numerics::DType plain_dtype = numerics::DType::kBF16;  // when it is not quantized
  bool quantizable = false;

  std::string tensor_name() const { return parameter.empty() ? path : path + "." + parameter; }
  bool operator==(const LayoutModule&) const = default;
};

// The dtype a module is written in when it is not quantized.
numerics::DType plain_dtype(const io::Checkpoint& checkpoint, const families::ModelMap& map,
                            const families::OutputModule& module);

LayoutModule layout_module(const io::Checkpoint& checkpoint, const families::ModelMap& map,
                           const families::OutputModule& module);
std::vector<LayoutModule> layout_modules(const io::Checkpoint& checkpoint,
                                         const families::ModelMap& map);

// The tensors a module becomes: its weight alone; weight, scales and biases in model_dtype for
// affine; weight and scales of one byte for the fp modes.
std::vector<io::TensorInfo> output_tensors(const LayoutModule& module,
                                           const numerics::QuantFormat& format,
                                           numerics::DType model_dtype);

// formats: one per module. Errors: kInvalidArgument for a format that a module's shape cannot take.
Result<OutputLayout> layout_output(std::span<const LayoutModule> modules,
                                   numerics::DType model_dtype,
                                   std::span<const numerics::QuantFormat> formats);

}  // namespace sluice::stream
