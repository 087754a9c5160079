// The analysis file: what one pass over a model's weights found, one journal record per output
// module, enough to plan for any number of budgets. docs/formats.md#analysis
#pragma once

#include <string>
#include <vector>

#include "allocate/candidate.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/json.h"
#include "io/byte_source.h"

namespace sluice::analyze {

inline constexpr int kAnalysisVersion = 1;

// What an analysis was made from and how; two with equal headers give equal records.
struct AnalysisHeader {
  Digest source;      // Checkpoint::identity_digest
  std::string family;
  std::string dtype;  // of the output: "bfloat16", …
  int layers = 0;
  uint64_t modules = 0;
  std::vector<std::string> best_formats;  // format_text of those priced under the best encoder
  bool operator==(const AnalysisHeader&) const = default;
};

struct ModuleRecord {
  allocate::Item item;
  Digest source;  // of the source bytes, block by block
};

struct Analysis {
  AnalysisHeader header;
  std::vector<ModuleRecord> records;  // in module order; all of them
  Digest digest;                      // of everything above, to name the analysis in a plan

  std::vector<allocate::Item> items() const;
};

Json header_to_json(const AnalysisHeader& header);
Result<AnalysisHeader> header_from_json(const Json& record, std::string_view label);
Json record_to_json(const ModuleRecord& record);
Result<ModuleRecord> record_from_json(const Json& record, std::string_view label);

// Errors: kCorrupt when damaged, kInvalidArgument when the pass was not finished.
Result<Analysis> load_analysis(const io::ByteSource& source);

}  // namespace sluice::analyze
