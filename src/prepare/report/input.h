// What a report is made from: plain structs that the caller fills from files. Everything but the
// name may be missing; the page leaves out what it has no figures for.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "allocate/allocate.h"
#include "allocate/candidate.h"
#include "allocate/plan.h"

namespace sluice::report {

// One line of a list: what, and what it is.
struct Fact {
  std::string label;
  std::string value;
};

// One timed stage of a run. bytes: of the source; 0: not known.
struct Stage {
  std::string name;
  double seconds = 0;
  uint64_t bytes = 0;
};

// A module whose error lies in a few directions, which averaging over inputs does not diminish.
struct ConcentratedError {
  std::string tensor;
  std::optional<uint32_t> expert;
  double share = 0;        // of the error's energy in its eight strongest directions
  double white_share = 0;  // the same of white noise
};

// What verification found, as verify.json records it.
struct Verification {
  struct Finding {
    std::string subject;
    std::string message;
  };
  bool passed = false;
  bool stale = false;  // recorded about another state of the output than the one at hand
  uint64_t finding_count = 0;
  std::vector<Finding> findings;
  uint64_t modules = 0, reencoded_modules = 0, tensors = 0, shards = 0, weight_file_bytes = 0;
  uint64_t directions_measured = 0;  // modules whose errors' directions were looked at
  std::vector<ConcentratedError> concentrated;
};

struct ReportInput {
  std::string name;  // of the model
  std::string tool;  // that made it, with its version
  std::string family, dtype;
  int layers = 0;  // 0: not known

  std::optional<allocate::Plan> plan;          // the chosen one
  std::vector<allocate::UniformPlan> uniform;  // for comparison
  std::vector<allocate::Item> items;           // of the analysis
  std::vector<allocate::CurvePoint> curve;     // over the same items

  uint64_t source_bytes = 0;                             // of its weight files
  std::map<std::string, numerics::ErrorStats> measured;  // of the output, by tensor name
  std::optional<Verification> verification;
  std::vector<Stage> stages;
  std::vector<Fact> run;     // the machine and its memory
  std::vector<Fact> origin;  // how to make it again: command, versions, digests
};

}  // namespace sluice::report
