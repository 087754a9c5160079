// The files of an output beside its weights: each is the source's, or as its own digest or the one
// in sluice.json says.
#pragma once

#include <string>

#include "allocate/plan.h"
#include "base/error.h"
#include "base/json.h"
#include "io/checkpoint.h"
#include "io/storage.h"

namespace sluice::verify {

class Findings;

// Tokenizer, template and the like must be the source's. Errors: reading fails.
Status check_sidecars(io::Storage& storage, const std::string& out,
                      const io::Checkpoint& checkpoint, Findings& findings);

// Configuration, index and model card must be as sluice.json (record) says, the analysis that fit
// leaves must be whole and the one behind the plan, and run.json as it was written. Errors: reading
// fails.
Status check_written_files(io::Storage& storage, const std::string& out, const Json& record,
                           const allocate::Plan& plan, Findings& findings);

// Whether an error means that the system failed, rather than that a file is missing or damaged.
bool is_system_failure(const Error& error);

}  // namespace sluice::verify
