// Proves an output: re-reads it with code that shares no encoder with conversion and holds it
// against source, plan and the rules of the stock loader. Every finding names its tensor.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "allocate/plan.h"
#include "base/cpu.h"
#include "base/log.h"
#include "base/thread.h"
#include "families/recipe.h"
#include "io/activations.h"
#include "io/checkpoint.h"
#include "io/storage.h"
#include "stream/part.h"

namespace sluice::verify {

struct VerifyOptions {
  stream::Part part;  // whose modules to check; the first part also checks everything else
  unsigned workers = 1;
  SimdLevel simd = SimdLevel::kScalar;  // changes the time, never the findings
  const CancelToken* cancel = nullptr;
  Progress* progress = nullptr;
  // Every block was proved against the source while it was converted (block_prover.h): the output
  // is held against the digests of what was proved, and no weight of the source is read again.
  bool source_proved = false;
  // With the record that the feedback encoder went by, what it made is proved by encoding anew;
  // without, by its error alone. kInvalidArgument when it is another record.
  std::shared_ptr<const io::Activations> activations;
};

// Something that is not as it should be: where, and what was expected and found.
struct Finding {
  std::string subject;  // tensor or file
  std::string message;
  bool operator==(const Finding&) const = default;
};

struct RoleQuality {
  std::string role;
  uint64_t modules = 0;
  numerics::ErrorStats error;  // merged over the role's modules
  double worst_sqnr_db = 0;    // of its modules
  std::string worst_tensor;
};

// A warning, not a finding: more of a module's error lies in its eight strongest directions than of
// noise, so that it adds up where noise averages out. Measured on a sample of its rows, of a stack
// in its worst expert (error_directions.h).
struct ConcentratedError {
  std::string tensor;
  bool has_experts = false;
  uint32_t expert = 0;
  double share = 0;        // of the error's energy
  double white_share = 0;  // the same of white noise in a matrix of that size
  bool operator==(const ConcentratedError&) const = default;
};
// How many times the share of white noise is a warning.
inline constexpr double kConcentration = 1.5;

// At most kFindingsMax findings are kept, all are counted.
inline constexpr size_t kFindingsMax = 100;

struct VerifyReport {
  std::vector<Finding> findings;
  uint64_t finding_count = 0;
  uint64_t modules = 0, tensors = 0, shards = 0;
  uint64_t weight_file_bytes = 0, budget_bytes = 0;
  // Proved bit for bit: parity, lossless and plain ones, feedback where its record is given.
  uint64_t reencoded_modules = 0;
  uint64_t lossless_modules = 0;   // of these, moved: weights decode to the source's very values
  std::vector<RoleQuality> roles;  // quantized modules
  // Of quantized modules, those whose errors' directions were looked at: not where source_read is
  // false, nor in matrices too small to tell.
  uint64_t directions_measured = 0;
  std::vector<ConcentratedError> concentrated;  // in module order
  bool source_read = true;                      // false: as VerifyOptions::source_proved
  bool passed() const { return finding_count == 0; }
};

// Reads the whole source, unless it is proved, and the whole output once. Errors: the source cannot
// be read or is not the one recorded, the output has no sluice.json; what is wrong with the output
// is a finding.
Result<VerifyReport> verify(io::Storage& storage, const io::Checkpoint& checkpoint,
                            const std::string& out, const VerifyOptions& options);

// The source mapped as sluice.json says the output was: same float type, same layers.
Result<families::ModelMap> recorded_map(io::Storage& storage, const io::Checkpoint& checkpoint,
                                        const std::string& out);

// The same for options.part, whose report goes to a file beside the output until it is merged.
Result<VerifyReport> verify_part(io::Storage& storage, const io::Checkpoint& checkpoint,
                                 const std::string& out, const VerifyOptions& options);

// Whether some part of a verification has left its report beside the output.
Result<bool> has_verified_parts(io::Storage& storage, const std::string& out);
// Joins the reports of all parts and removes them. Errors: kInvalidArgument naming the parts that
// are missing, or when the output was replaced in between.
Result<VerifyReport> merge_verified_parts(io::Storage& storage, const std::string& out);

}  // namespace sluice::verify
