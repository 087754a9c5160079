// Measured sensitivities, which `analyze` writes beside its file and `fit` measures for itself: the
// model is run here, and what is found goes into a file that plans read.
#pragma once

#include <string>

#include "cli/model.h"

namespace sluice::cli {

inline constexpr std::string_view kDataFree = "data-free";

struct SensitivityArguments {
  std::string text;        // kDataFree, or a text file; empty: nothing is measured
  uint64_t tokens = 4096;  // that the model is measured on
  double minutes = 0;      // 0: as long as every module takes for itself
  std::string memory;      // as for running: "8GB"
};
void add_sensitivity_options(CLI::App& command, SensitivityArguments& arguments);

// Of an analysis file: where `analyze` puts the table that was measured with it.
std::string sensitivity_path(const std::string& analysis);

// Measures, and writes the table to path; goes on where an earlier run stopped, and does nothing
// where one finished. Says what it will take before it takes it. model: as it was opened; path of
// the table. Returns the table's "measurement". Errors: kInvalidArgument when path holds another
// measurement; kUnsupported for models that do not run; local_path's for those elsewhere.
Result<Json> measure_to_file(Context& context, const std::string& model_path,
                             const OpenedModel& model, const SensitivityArguments& arguments,
                             const std::string& path);

}  // namespace sluice::cli
