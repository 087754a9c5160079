// A model's log-probabilities over the windows of a text, kept in a folder so that many smaller
// versions can be held against one large model that is not in memory with them: one shard per
// window and reference.json. docs/formats.md#reference. Writing resumes: whole shards stay.
#pragma once

#include <memory>
#include <string>

#include "evaluate/score.h"
#include "io/storage.h"

namespace sluice::evaluate {

// What a reference belongs to. Written to reference.json and compared on opening.
struct ReferenceIdentity {
  Digest model;
  Digest windows;  // of all ids and first_scored
  size_t window_count = 0;
  size_t vocabulary = 0;
};
ReferenceIdentity identify(const runtime::Engine& engine, std::span<const Window> windows);

// Log-probabilities as 16-bit steps between a row's smallest and 0; the smallest kept is
// kLogProbMin. Error at most half a step, 0.00023.
inline constexpr float kLogProbMin = -30.0f;

// Appends the row; decode_row reads it back. Both for tests and for the two functions below.
void encode_log_probs(std::span<const float> log_probs, std::vector<std::byte>& out);
size_t encoded_row_bytes(size_t vocabulary);
void decode_log_probs(std::span<const std::byte> in, std::span<float> out);

// Runs what the folder lacks. Errors: kInvalidArgument when the folder holds the reference of
// another model or text; io's; the engine's.
Status write_reference(runtime::Engine& engine, std::span<const Window> windows,
                       const std::string& folder, io::Storage& storage, Progress& progress,
                       const CancelToken* cancel);

// Errors: kNotFound; kCorrupt, naming the shard, for damage (here or when the rows are read);
// kInvalidArgument when it was made from other windows.
Result<std::unique_ptr<ReferenceRows>> open_reference(const std::string& folder,
                                                      std::span<const Window> windows,
                                                      io::Storage& storage);

// Rows straight from an engine, which must outlive it.
std::unique_ptr<ReferenceRows> live_reference(runtime::Engine& engine,
                                              std::span<const Window> windows);

}  // namespace sluice::evaluate
