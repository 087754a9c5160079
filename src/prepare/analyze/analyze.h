// Prices every format of every output module in one pass over the weights, and appends what it
// finds to an analysis file. A pass that was interrupted goes on where the file ends.
#pragma once

#include <string>
#include <vector>

#include "analyze/analysis.h"
#include "base/cpu.h"
#include "base/log.h"
#include "base/thread.h"
#include "families/recipe.h"
#include "io/checkpoint.h"
#include "io/storage.h"
#include "stream/part.h"

namespace sluice::analyze {

// The formats that are priced under the best encoder too unless the user says otherwise: the
// widths where a search gains most, and the middle group of the others.
std::vector<numerics::QuantFormat> default_best_formats();

struct AnalyzeOptions {
  std::vector<numerics::QuantFormat> best_formats;  // sorted, without repeats
  stream::Part part;                                // whose modules to price
  unsigned workers = 1;
  SimdLevel simd = SimdLevel::kScalar;
  const CancelToken* cancel = nullptr;
  Progress* progress = nullptr;  // begun here, over what is left to do; ended by the caller
  Log* log = nullptr;            // optional: what was found done
};

// path: the analysis file, created or continued. Errors: kInvalidArgument when it was made from
// another source or with other options; kCorrupt naming a tensor with NaN or infinite weights.
Result<Analysis> analyze(io::Storage& storage, const io::Checkpoint& checkpoint,
                         const families::ModelMap& map, const std::string& path,
                         const AnalyzeOptions& options);

// The same for options.part, whose records go to a file of their own, part_path(path, part).
// Returns how many modules the part holds.
Result<uint64_t> analyze_part(io::Storage& storage, const io::Checkpoint& checkpoint,
                              const families::ModelMap& map, const std::string& path,
                              const AnalyzeOptions& options);

// Joins the files of all parts beside path into path, byte for byte what one process would have
// written, and removes them. Errors: kInvalidArgument naming the parts that are missing or
// unfinished, or that belong to different jobs; kIo when a part is still being worked on.
Result<Analysis> merge_analysis(io::Storage& storage, const std::string& path);

}  // namespace sluice::analyze
