// A model as found on disk: every tensor with its place, its configuration in Hugging Face's terms,
// and the small files that travel with it. Opening reads headers only.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/digest.h"
#include "base/error.h"
#include "base/json.h"
#include "io/byte_source.h"
#include "io/tensor_info.h"

namespace sluice::io {

enum class SourceKind {
  kHuggingFace,  // tensor names and layouts as transformers writes them
  kGguf,         // names and layouts as llama.cpp writes them
};

// A file that is copied into the output as it is, or text that was rebuilt from GGUF metadata.
struct Sidecar {
  std::string name;                    // bare file name
  std::shared_ptr<ByteSource> source;  // never null
};

// One weight file of the source: enough to notice that it has been replaced.
struct SourceFile {
  std::string name;  // bare
  uint64_t bytes = 0;
  Digest header;  // of its header's raw bytes
  bool operator==(const SourceFile&) const = default;
};

// Immutable after opening; thread-safe.
struct Checkpoint {
  std::string path;  // as the user gave it; of a model on a hub, its address with the commit
  // Read over a network: every byte is fetched anew, so it is better not read once too often.
  bool remote = false;
  std::string repository, revision;  // of a hub: "org/name" and the commit; else empty
  SourceKind kind = SourceKind::kHuggingFace;
  // Shared by all files and sidecars: however many there are, few are open at a time.
  std::shared_ptr<DescriptorCache> descriptors;
  std::vector<std::shared_ptr<ByteSource>> files;
  std::vector<SourceFile> identity;                        // one per file, same order
  std::vector<StoredTensor> tensors;                       // sorted by name
  std::unordered_map<std::string_view, uint32_t> by_name;  // views into tensors
  Json config;                    // config.json, or its equivalent rebuilt from GGUF metadata
  Json generation_config;         // null when absent
  std::vector<Sidecar> sidecars;  // tokenizer, template, *.py; never config.json or weights
  std::string readme;             // README.md, the model card; empty when absent or no plain text

  const StoredTensor* find(std::string_view name) const;
  Digest identity_digest() const;
};

class ModelFiles;

// path: a folder with safetensors (single file, or shards with an index), one .safetensors file
// beside its config.json, a .gguf file (any part of a split set), or a folder with one GGUF model
// and no safetensors. Errors name file, tensor and offset.
Result<std::shared_ptr<const Checkpoint>> open_checkpoint(const std::string& path);

// The same of files wherever they are. name: one of them, a .safetensors or .gguf file; empty for
// the whole folder. remote, repository and revision are the caller's to set.
Result<std::shared_ptr<Checkpoint>> open_checkpoint(const std::string& path,
                                                    const ModelFiles& files,
                                                    const std::string& name);

}  // namespace sluice::io
