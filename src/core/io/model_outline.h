// What can be known of a model whose weights are not there: its configuration, and where there is
// an index of its shards, the names of its tensors. For sizing a model before it is downloaded.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace sluice::io {

struct ModelOutline {
  std::string path;  // as the user gave it
  Json config;
  std::vector<std::string> tensor_names;  // sorted; none without an index
  uint64_t shards = 0;                    // that the index names
  uint64_t tensor_bytes = 0;              // of all of them, as the index says; 0: not said
};

// Whether path is a .json file, or a folder with config.json and without weights: neither a
// safetensors nor a .gguf file. Other folders and files are open_checkpoint()'s.
bool is_outline(const std::string& path);

// path: config.json under any name, its folder, or the index beside it. Errors: kNotFound,
// kCorrupt for files that do not parse, kUnsupported for JSON that describes no model.
Result<ModelOutline> open_outline(const std::string& path);

}  // namespace sluice::io
