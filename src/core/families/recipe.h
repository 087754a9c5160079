// From source tensors to output modules. An OutputModule is what the loader calls a parameter: a
// quantizable weight (with its scales and biases once encoded) or a plain tensor such as a norm or
// a bias. Its Recipe says how its rows come from source tensors; nothing else knows a family's
// layout. Data only; reading the rows is prepare/stream's business.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "io/checkpoint.h"
#include "numerics/dtype.h"

namespace sluice::families {

enum class Role : uint8_t {
  kEmbedding, kHead, kAttentionQ, kAttentionK, kAttentionV, kAttentionO,
  kMlpGate, kMlpUp, kMlpDown, kExpertGate, kExpertUp, kExpertDown, kRouter, kNorm, kBias, kOther,
};
std::string_view role_name(Role role);  // "embedding", "attention_q", …

// How consecutive output rows map to rows of one source tensor.
enum class RowOrder : uint8_t {
  kInOrder,
  // llama.cpp stores q and k of `llama` models with each head's rows interleaved (pairs 2i, 2i+1);
  // output row h·d + j reads source row h·d + 2·(j mod d/2) + j/(d/2).
  kUninterleaveHeads,
};

// rows output rows taken from rows [first_row, first_row + rows) of a source tensor, which is seen
// as [product of leading axes, last axis].
struct RowSource {
  uint32_t tensor = 0;  // index into Checkpoint::tensors
  uint64_t first_row = 0;
  uint64_t rows = 0;
  RowOrder order = RowOrder::kInOrder;
  uint64_t head_rows = 0;  // d, for kUninterleaveHeads
};

// The output's rows are those of the sources one after another.
struct Recipe {
  std::vector<RowSource> sources;
};

struct OutputModule {
  std::string path;       // module path, e.g. "model.layers.0.mlp.switch_mlp.up_proj"
  std::string parameter;  // "weight" or "bias": the tensor's name is path + "." + parameter
  Role role = Role::kOther;
  int layer = -1;         // −1 outside layers
  numerics::Shape shape;  // of the unquantized tensor; [experts, rows, columns] for stacked experts
  bool quantizable = false;  // Linear, Embedding or stacked experts
  int bits_floor = 0;        // smallest width a plan may choose (8 for routers), 0: none
  bool keep_dtype = false;   // written in the source's float type instead of the model's
  Recipe recipe;

  std::string tensor_name() const { return path + "." + parameter; }
  uint64_t columns() const { return shape.back(); }
  uint64_t rows() const;     // product of all leading axes; 1 for a vector
  uint64_t experts() const { return shape.size() == 3 ? shape[0] : 1; }
  uint64_t elements() const { return rows() * columns(); }
};

// A checkpoint seen through its family: everything the preparation needs to know.
struct ModelMap {
  std::string family;     // "llama", "qwen3_moe", …; "generic" for plain unknown ones
  numerics::DType dtype;  // float type of the output: kBF16, kF16 or kF32
  std::string dtype_name; // "bfloat16", "float16", "float32"
  int layers = 0;
  std::vector<OutputModule> modules;  // in the order they are written
  std::vector<std::string> dropped;   // source tensors left out on purpose
  std::vector<std::string> notes;     // sentences worth showing the user
};

// dtype_override: "float16", "bfloat16", "float32" or "" to follow the configuration.
// Errors: kUnsupported for families that stock mlx_lm cannot load or layouts that would have to be
// guessed; kCorrupt for tensors that are missing, left over, or of the wrong shape or dtype.
Result<ModelMap> map_model(const io::Checkpoint& checkpoint, std::string_view dtype_override);

}  // namespace sluice::families
