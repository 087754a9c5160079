// One process's share of a job that several processes, on one machine or many, work on over a
// shared folder. A share is a run of consecutive modules; which ones follows from the model and the
// number of parts alone, so that a lost part can be run again anywhere.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "families/recipe.h"
#include "io/checkpoint.h"
#include "io/storage.h"

namespace sluice::stream {

inline constexpr uint32_t kPartsMax = 4096;

// Value. index < count; one part is the whole job. People count parts from one: "2/4" is index 1.
struct Part {
  uint32_t index = 0;
  uint32_t count = 1;
  bool whole() const { return count == 1; }
  bool operator==(const Part&) const = default;
};

// "2/4".
std::string part_text(const Part& part);
// The inverse. Errors: kInvalidArgument for anything but i/n with 1 ≤ i ≤ n ≤ kPartsMax.
Result<Part> parse_part(std::string_view text);

// Of the files that belong to one part of a job: path itself for a whole job, else
// path.part-2-of-4.
std::string part_path(const std::string& path, const Part& part);

// How many parts the files speak of that part_path named beside path; 0 when there are none.
// Errors: kInvalidArgument when they speak of different numbers.
Result<uint32_t> count_parts(io::Storage& storage, const std::string& path);

// "not all parts are complete; run again with --part 2/4, 3/4", or nothing when none is listed.
// subject: what the parts are of.
Status all_complete(std::string_view subject, std::span<const Part> incomplete);

// Which of the modules a part works on: those whose middle byte lies in its share of all source
// bytes. Every module is in exactly one part; parts are consecutive.
std::vector<uint32_t> modules_of_part(const io::Checkpoint& checkpoint,
                                      const families::ModelMap& map,
                                      std::span<const uint32_t> modules, const Part& part);

// Records carry a part as its text, and nothing for a whole job.
void part_to_json(const Part& part, Json& record);
Result<Part> part_from_json(const Json& record, std::string_view label);

}  // namespace sluice::stream
