// The features of the published method for every quantizable module, as a side file for reports;
// plans do not read it. docs/formats.md#features
#pragma once

#include <cstdint>
#include <string>

#include "base/cpu.h"
#include "base/log.h"
#include "base/thread.h"
#include "families/recipe.h"
#include "io/checkpoint.h"
#include "io/storage.h"

namespace sluice::analyze {

struct FeatureOptions {
  unsigned workers = 1;
  SimdLevel simd = SimdLevel::kScalar;
  const CancelToken* cancel = nullptr;
  Progress* progress = nullptr;  // begun here, over what is left to do; ended by the caller
  Log* log = nullptr;            // optional
};

// How many of the workers can be kept busy within the 256 MB of every stage, and what they take.
struct FeatureMemory {
  unsigned threads = 1;
  uint64_t bytes = 0;
};
FeatureMemory feature_memory(const families::ModelMap& map, unsigned workers);

struct FeatureSummary {
  uint64_t modules = 0;   // in the file
  uint64_t matrices = 0;  // of these, an expert of a stack being one
  FeatureMemory memory;
};

// path: created or continued. A module is one thread's work from its first row to its last, so that
// the file does not depend on threads. Errors: kInvalidArgument when path was made from another
// source or is another kind of file; kCorrupt naming a tensor with NaN or infinite weights.
Result<FeatureSummary> write_features(io::Storage& storage, const io::Checkpoint& checkpoint,
                                      const families::ModelMap& map, const std::string& path,
                                      const FeatureOptions& options);

}  // namespace sluice::analyze
