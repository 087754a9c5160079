// model.safetensors.index.json: which shard holds which tensor. Strict, and without a JSON tree,
// since an index of a large mixture of experts names a hundred thousand tensors.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace sluice::io {

inline constexpr uint64_t kIndexBytesMax = 100'000'000;

struct SafetensorsIndex {
  struct Entry {
    std::string tensor;
    uint32_t file = 0;  // into files
  };
  std::vector<std::string> files;  // bare names ending in .safetensors, sorted, no duplicates
  std::vector<Entry> entries;      // sorted by tensor, no duplicates
  uint64_t total_size = 0;         // bytes of all tensors, as metadata says; 0: it does not
};

// label names the file in errors. Everything beside weight_map and metadata.total_size is ignored.
Result<SafetensorsIndex> parse_safetensors_index(std::string_view text, const std::string& label);

}  // namespace sluice::io
