// From files to what a report is made of, and the record of a verification that reports read.
#pragma once

#include <string>

#include "analyze/analysis.h"
#include "cli/context.h"
#include "report/input.h"
#include "verify/verify.h"

namespace sluice::cli {

// Writes folder/verify.json. docs/formats.md#verifyjson
Status write_verify_record(Context& context, const std::string& folder,
                           const verify::VerifyReport& report);

struct ReportSources {
  std::string path;  // an output folder, an analysis or a plan
  // Of the output in path; nullptr: its own, where it has one.
  const analyze::Analysis* analysis = nullptr;
  // Whether run.json is read: times differ from run to run, so the page inside an output leaves
  // them out.
  bool with_run = true;
};
// Errors: kCorrupt for a file that is damaged, kNotFound, kInvalidArgument for an analysis of
// another model.
Result<report::ReportInput> load_report(Context& context, const ReportSources& sources);

// For an analysis that no plan was made from: the curve and every uniform plan under settings.
Result<report::ReportInput> analysis_report(const analyze::Analysis& analysis,
                                            const std::string& name,
                                            const allocate::ProblemSettings& settings,
                                            const allocate::SensitivityTable& sensitivity);

}  // namespace sluice::cli
