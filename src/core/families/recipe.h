// From source tensors to output modules. An OutputModule is what the loader calls a parameter: a
// quantizable weight (with its scales and biases once encoded) or a plain tensor such as a norm or
// a bias. Its Recipe says how its rows come from source tensors; nothing else knows a family's
// layout. Data only; reading the rows is prepare/stream's business.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "io/checkpoint.h"
#include "numerics/block_codec.h"
#include "numerics/dtype.h"

namespace sluice::families {

enum class Role : uint8_t {
  kEmbedding,
  kHead,
  kAttentionQ,
  kAttentionK,
  kAttentionV,
  kAttentionO,
  kMlpGate,
  kMlpUp,
  kMlpDown,
  kExpertGate,
  kExpertUp,
  kExpertDown,
  kRouter,
  kNorm,
  kBias,
  kOther,
};
std::string_view role_name(Role role);  // "embedding", "attention_q", …
bool is_expert(Role role);              // of several experts stacked

// How consecutive output rows map to rows of one source tensor.
enum class RowOrder : uint8_t {
  kInOrder,
  // llama.cpp stores q and k of `llama` models with each head's rows interleaved (pairs 2i, 2i+1);
  // output row h·d + j reads source row h·d + 2·(j mod d/2) + j/(d/2).
  kUninterleaveHeads,
  // Output rows are columns of the source's rows, which are as many as the output has columns.
  // Never mixed with other orders in one module.
  kTransposed,
};

// rows output rows taken from rows first_row, first_row + stride, … of a source tensor, which is
// seen as [product of leading axes, last axis]; for kTransposed, from columns first_column,
// first_column + stride, … of the rows that begin at first_row.
struct RowSource {
  uint32_t tensor = 0;  // index into Checkpoint::tensors
  uint64_t first_row = 0;
  uint64_t rows = 0;
  RowOrder order = RowOrder::kInOrder;
  uint64_t head_rows = 0;     // d, for kUninterleaveHeads, whose stride is 1
  uint64_t stride = 1;        // 2 where rows of two modules alternate
  uint64_t first_column = 0;  // for kTransposed
};

// Columns in another order than the source's: output column (i, j, k) of [outer][inner][width] is
// source column (j, i, k) of [inner][outer][width].
struct ColumnOrder {
  uint64_t outer = 0, inner = 0, width = 0;  // all 0: in order
  bool in_order() const { return width == 0; }
};

// The output's rows are those of the sources one after another, and then what is done to values.
struct Recipe {
  std::vector<RowSource> sources;
  numerics::ValueStep step = numerics::ValueStep::kNone;  // to every value
  ColumnOrder columns{};
};

// Every stride-th row of one source tensor, rows of them; or, transposed, as many columns of the
// source rows that begin at source_row.
struct RowRun {
  uint32_t tensor = 0;  // index into Checkpoint::tensors
  uint64_t source_row = 0;
  uint64_t rows = 0;
  bool transposed = false;
  uint64_t source_column = 0;  // of the first, when transposed
  uint64_t stride = 1;
  // From the first row, or column, to the last: how many lie there.
  uint64_t reach() const { return (rows - 1) * stride + 1; }
  bool operator==(const RowRun&) const = default;
};

// Appends the runs whose concatenation is output rows [first_row, first_row + rows), which must lie
// within the recipe. Neighbouring source rows are one run. Permuted rows are mostly runs of one row
// each, two interleaved ascending sequences per head, so whoever reads them touches whole heads and
// should let the page cache, or one read per head, serve both. Threads: reentrant. Errors: none.
void append_row_runs(const Recipe& recipe, uint64_t first_row, uint64_t rows,
                     std::vector<RowRun>& out);

struct OutputModule {
  std::string path;       // module path, e.g. "model.layers.0.mlp.switch_mlp.up_proj"
  std::string parameter;  // "weight" or "bias": the tensor's name is path + "." + parameter
  Role role = Role::kOther;
  int layer = -1;         // −1 outside layers
  numerics::Shape shape;  // of the unquantized tensor; [experts, rows, columns] for stacked experts
  bool quantizable = false;  // Linear, Embedding or stacked experts
  int bits_floor = 0;        // smallest width a plan may choose (8 for routers), 0: none
  int uniform_bits = 0;      // width in uniform conversions whatever is asked for; 0: as asked
  bool keep_dtype = false;   // written in the source's float type instead of the model's
  // A vector whose elements move one by one (a permuted bias) is read and written as a column.
  bool by_element = false;
  bool filters = false;  // [channels, taps, 1], a row for each channel
  Recipe recipe;

  std::string tensor_name() const { return parameter.empty() ? path : path + "." + parameter; }
  uint64_t columns() const { return by_element ? 1 : filters ? shape[1] : shape.back(); }
  // Product of all leading axes; 1 for a vector, its length for one moved by element.
  uint64_t rows() const;
  uint64_t experts() const { return shape.size() == 3 && !filters ? shape[0] : 1; }
  uint64_t elements() const { return rows() * columns(); }
};

// A checkpoint seen through its family: everything the preparation needs to know.
struct ModelMap {
  std::string family;      // "llama", "qwen3_moe", …; "generic" for plain unknown ones
  numerics::DType dtype;   // float type of the output: kBF16, kF16 or kF32
  std::string dtype_name;  // "bfloat16", "float16", "float32"
  int layers = 0;
  std::string prefix;       // of every path: "language_model." in models of several parts
  std::string only_layers;  // "3-5" where modules holds no others; empty: the whole model
  bool tied = false;        // the head is the embedding; no lm_head is written
  // Of Arrangement::kAsStored: value heads of linear attention take turns among key heads, head h
  // belonging to key head h mod their number; its projections are separate.
  bool tiled_value_heads = false, separate_projections = false;
  std::vector<OutputModule> modules;  // in the order they are written
  std::vector<std::string> dropped;   // source tensors left out on purpose
  std::vector<std::string> notes;     // sentences worth showing the user
  // Keys that the output's config.json must carry beside the source's: those the source left to
  // transformers' defaults where mlx_lm has another default or none. Usually empty.
  Json config_additions = Json::object();
};

// Where a model's numbers are: text_config of a model of several parts, else config.json itself.
const Json& text_config(const Json& config);

// dtype_override: "float16", "bfloat16", "float32" or "" to follow the source:
//   Hugging Face: torch_dtype, dtype or text_config's of the configuration, else the type of most
//   float elements. GGUF: float16, so that blocks move without loss; bfloat16 when every matrix is.
//
// A known family (the tables beside this file) is matched name by name and shape by shape. Unknown
// ones go by the generic rule, which reads Hugging Face checkpoints only and never moves a row:
//   - every tensor has one or two axes and, if a weight, a float type; others may be integers. All
//     else (stacked or convolution tensors, packed integers, names of packed formats, experts) is
//     refused by name, as are families known to need rearranging or to be unknown to mlx_lm;
//   - two-axis `*.weight` whose last path component is embed_tokens, lm_head, dense, dense_*, fc,
//     fc<digits>, or ends in _proj is quantizable; all other tensors are copied;
//   - rotary inv_freq is dropped, and lm_head when tie_word_embeddings is true.
//
// arrangement: kMlx for what a loader of mlx_lm expects; kAsStored for a forward pass of our own,
// which leaves what GGUF has in an order of its own where that would cost a repacking of blocks.
//
// only_layers: "A-B" or "A" for these layers' modules alone, "" for the whole model. The whole
// checkpoint is held against the family all the same.
//
// Of a model of several parts (text_config) only the language model is mapped; notes say what was
// left out.
//
// Errors: kUnsupported for families that stock mlx_lm cannot load or layouts that would have to be
// guessed; kCorrupt for tensors that are missing, left over, or of the wrong shape or dtype;
// kInvalidArgument for an unknown dtype_override, or layers that the model has not.
enum class Arrangement : uint8_t { kMlx, kAsStored };
Result<ModelMap> map_model(const io::Checkpoint& checkpoint, std::string_view dtype_override,
                           std::string_view only_layers = {},
                           Arrangement arrangement = Arrangement::kMlx);

}  // namespace sluice::families
