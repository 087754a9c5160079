// --part, and where it comes from when it is not given: the environment that launchers of parallel
// jobs set.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/error.h"
#include "cli/context.h"
#include "stream/part.h"

namespace sluice::cli {

// Adds --part; the text stays empty when it is not given.
void add_part_option(CLI::App& command, std::string& text);

using Environment = std::function<const char*(const char* name)>;

struct FoundPart {
  stream::Part part;
  std::string launcher;  // "Open MPI"; empty when no launcher says anything
};

// The part that a launcher's environment names: srun's step, mpirun, or an indexed Kubernetes job,
// whose pods must be told the number of parts by SLUICE_PARTS. Errors: kInvalidArgument for
// variables that make no sense.
Result<FoundPart> part_of_environment(const Environment& environment);

// The text of --part, else the environment's. Says on the console which part it is and who said so.
Result<stream::Part> choose_part(Context& context, const std::string& text);

}  // namespace sluice::cli
