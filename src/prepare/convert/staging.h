// The small files of an output: configuration, index, model card and sluice.json, as text. Pure
// functions of source, plan and results, so that a repeated run writes the same bytes.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "allocate/plan.h"
#include "base/digest.h"
#include "base/json.h"
#include "families/recipe.h"
#include "io/checkpoint.h"
#include "numerics/error_stats.h"
#include "stream/output_layout.h"

namespace sluice::convert {

// What conversion learned about one module; digests are over the digests of its blocks.
struct ModuleResult {
  Digest source;
  Digest weight, scales, biases;  // scales and biases only for affine
  numerics::ErrorStats error;
  bool proved = false;  // every block of it, by ConvertOptions::prove_block
};

// config.json as mlx_lm writes it: sorted keys, quantization with overrides per module.
Json output_config(const io::Checkpoint& checkpoint, const families::ModelMap& map,
                   const allocate::Plan& plan);

// model.safetensors.index.json.
Json output_index(const stream::OutputLayout& layout);

// README.md with the front matter that mlx_lm writes.
std::string model_card(const io::Checkpoint& checkpoint, const allocate::Plan& plan,
                       const stream::OutputLayout& layout);

// Names and content of files that were written, in any order.
using NamedTexts = std::vector<std::pair<std::string, std::string>>;

// sluice.json: what `verify` holds the output against. written: the files whose digests it records.
Json output_record(const io::Checkpoint& checkpoint, const families::ModelMap& map,
                   const allocate::Plan& plan, const stream::OutputLayout& layout,
                   const std::vector<ModuleResult>& results, const NamedTexts& written);

}  // namespace sluice::convert
