// Recorded activations: of what enters a model's products with weights, the second moments, in a
// folder. `run` writes it, `prepare` reads it; neither knows the other. Layout:
// docs/formats.md#activations. Every piece that is read is held against its digest.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/digest.h"
#include "base/error.h"
#include "io/storage.h"

namespace sluice::io {

// One input: what the products with these weights have in common.
struct ActivationInput {
  std::vector<std::string> weights = {};  // tensor names of output modules
  uint64_t columns = 0;                   // a multiple of 32
  uint64_t experts = 1;                   // > 1: each expert of the weights has moments of its own
  bool operator==(const ActivationInput&) const = default;
};

// What a record belongs to, and what it holds.
struct ActivationManifest {
  Digest model;  // Checkpoint::identity_digest
  Digest text;   // of the token ids
  uint64_t tokens = 0;
  std::vector<ActivationInput> inputs;
  bool operator==(const ActivationManifest&) const = default;
};

// The upper triangle of Σ x·xᵀ over so many rows x, row after row: numerics/feedback.h.
struct Moments {
  uint64_t rows = 0;
  std::vector<float> values;
};

// What one input takes in its file, digests included.
uint64_t moment_file_bytes(const ActivationInput& input);
uint64_t record_bytes(const ActivationManifest& manifest);  // of all its moments

// Makes the folder, or checks that what is there belongs to the same record. kInvalidArgument for
// another model's or text's.
Status begin_activations(Storage& storage, const std::string& folder,
                         const ActivationManifest& manifest);
// Whether the input's file is there whole.
bool has_moments(Storage& storage, const std::string& folder, const ActivationManifest& manifest,
                 size_t input);
// moments: one for each expert. Whole or not at all.
Status write_moments(Storage& storage, const std::string& folder,
                     const ActivationManifest& manifest, size_t input,
                     std::span<const Moments> moments);

// Removes the record's files, and the folder if nothing else is in it.
Status remove_activations(Storage& storage, const std::string& folder,
                          const ActivationManifest& manifest);

// A complete record. Immutable; thread-safe.
class Activations {
 public:
  // Errors: kNotFound; kCorrupt for damage; kUnsupported for another version; kInvalidArgument when
  // recording has not been finished.
  static Result<std::shared_ptr<const Activations>> open(Storage& storage,
                                                         const std::string& folder);

  const std::string& folder() const { return folder_; }
  const ActivationManifest& manifest() const { return manifest_; }
  // Of everything in it.
  const Digest& digest() const { return digest_; }
  // Index into manifest().inputs of what enters this tensor's products; nothing when it was not
  // recorded.
  std::optional<size_t> find(std::string_view tensor_name) const;
  // expert < experts. Errors: kCorrupt, the files'.
  Result<Moments> load(size_t input, uint64_t expert) const;

 private:
  Activations() = default;

  std::string folder_;
  ActivationManifest manifest_;
  Digest digest_;
  std::vector<std::shared_ptr<ByteSource>> files_;
  std::unordered_map<std::string, size_t> by_weight_;
};

}  // namespace sluice::io
