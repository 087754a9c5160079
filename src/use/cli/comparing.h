// Scoring models one after another against one reference, on the same windows. What was scored is
// kept in a folder, so that an interrupted or a longer comparison goes on from there.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cli/evaluation.h"
#include "cli/generation.h"
#include "evaluate/reference.h"

namespace sluice::cli {

struct ComparedModel {
  std::string name, path, storage;
  uint64_t bytes = 0, parameters = 0;  // bytes of weight files
  evaluate::Comparison scores;
  double bits_per_weight() const;
};

struct ComparingOptions {
  std::string reference;  // a model, or a folder by `eval --save-reference`
  TextArguments text;
  EngineArguments engine;
  std::string folder;  // where scores are kept; empty: nowhere
};

// One thread. A reference that is a model stays in memory beside the one that is scored.
class Comparing {
 public:
  // Reads the headers of a model, not its weights. Errors: the engine's and the tokenizer's.
  static Result<std::unique_ptr<Comparing>> begin(Context& context,
                                                  const ComparingOptions& options);

  // Errors: kInvalidArgument for a model whose tokenizer cuts the text otherwise or whose
  // vocabulary differs; the engine's; the reference's.
  Result<ComparedModel> score(const std::string& path);

  size_t window_count() const { return windows_.size(); }

 private:
  Comparing(Context& context, const ComparingOptions& options)
      : context_(context), options_(options) {}
  bool stored() const { return running_.engine == nullptr; }
  Status take_windows(std::vector<evaluate::Window> windows, const runtime::Engine& engine,
                      const std::string& path);
  Status load_reference();
  Result<Digest> reference_digest();
  Result<std::string> record_path(const io::Checkpoint& checkpoint);
  Result<evaluate::Comparison> score_loaded(const RunningModel& running);

  Context& context_;
  const ComparingOptions options_;
  RunningModel running_;
  bool loaded_ = false;
  std::vector<evaluate::Window> windows_;
  std::unique_ptr<evaluate::ReferenceRows> rows_;
  std::optional<Digest> digest_;  // of the reference
};

}  // namespace sluice::cli
