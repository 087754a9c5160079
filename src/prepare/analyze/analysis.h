// The analysis file: what one pass over a model's weights found, one journal record per output
// module, enough to plan for any number of budgets. docs/formats.md#analysis
#pragma once

#include <string>
#include <vector>

#include "allocate/candidate.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/json.h"
#include "families/kv_shape.h"
#include "io/byte_source.h"
#include "stream/output_layout.h"
#include "stream/part.h"

namespace sluice::analyze {

inline constexpr int kAnalysisVersion = 3;

// What an analysis was made from and how; two with equal headers give equal records.
struct AnalysisHeader {
  Digest source;  // Checkpoint::identity_digest
  std::string family;
  std::string dtype;  // of the output: "bfloat16", …
  int layers = 0;
  std::vector<families::KvShape> kv;  // what the key-value cache keeps
  uint64_t modules = 0;
  std::string only_layers;                // "3-5" for a part of a model; empty: the whole
  std::vector<std::string> best_formats;  // format_text of those priced under the best encoder
  stream::Part part;                      // not whole: holds the records of one part only
  bool operator==(const AnalysisHeader&) const = default;
};

struct ModuleRecord {
  allocate::Item item;
  numerics::Shape shape;
  numerics::DType plain_dtype = numerics::DType::kBF16;  // when it is not quantized

  stream::LayoutModule layout() const {
    return {item.path, item.parameter, shape, plain_dtype, item.quantizable};
  }
};

struct Analysis {
  AnalysisHeader header;
  std::vector<ModuleRecord> records;  // in module order; all of them
  Digest digest;                      // of everything above, to name the analysis in a plan

  std::vector<allocate::Item> items() const;
  numerics::DType model_dtype() const;
  // Bytes of all weight files, headers included, when item i takes its candidate choice[i].
  Result<uint64_t> exact_bytes(std::span<const uint32_t> choice) const;
};

Json header_to_json(const AnalysisHeader& header);
Result<AnalysisHeader> header_from_json(const Json& record, std::string_view label);
Json record_to_json(const ModuleRecord& record);
Result<ModuleRecord> record_from_json(const Json& record, std::string_view label);

// Errors: kCorrupt when damaged, kInvalidArgument when the pass was not finished.
Result<Analysis> load_analysis(const io::ByteSource& source);

}  // namespace sluice::analyze
