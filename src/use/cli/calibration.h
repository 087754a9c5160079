// Recording of what enters a model's products, which `calibrate` does for itself and `fit` before
// it converts: the model is run here, and the record is a folder that conversion and proof read.
#pragma once

#include <memory>
#include <string>

#include "cli/generation.h"
#include "cli/model.h"
#include "io/activations.h"

namespace sluice::cli {

struct CalibrationArguments {
  std::string text;  // a text file; empty: the model writes the text itself
  size_t tokens = 16384;
  std::string moments = "2GB";  // memory for what is recorded in one pass over the text
  EngineArguments engine = {.context_tokens = 512};  // its context is a window of the text
};

// Records into folder, or goes on with what is there; does nothing where all is. Says what it will
// take before it takes it. Errors: kUnsupported for models of whose products nothing is known;
// kInvalidArgument when the folder holds another record.
Result<std::shared_ptr<const io::Activations>> record_inputs(Context& context,
                                                             const std::string& model_path,
                                                             const OpenedModel& model,
                                                             const CalibrationArguments& arguments,
                                                             const std::string& folder);

}  // namespace sluice::cli
