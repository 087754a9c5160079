// The file beside an unfinished output that several processes write: what each of them needs to
// agree on, and what `merge` needs to finish. docs/formats.md#parts
#pragma once

#include <cstdint>
#include <string>

#include "allocate/plan.h"
#include "base/error.h"
#include "io/storage.h"

namespace sluice::convert {

struct PartsJob {
  std::string model;  // absolute path of the source
  uint32_t parts = 0;
  allocate::Plan plan;
};

// out.parts.json
std::string parts_path(const std::string& out);

// Errors: kNotFound, kCorrupt.
Result<PartsJob> read_parts_job(io::Storage& storage, const std::string& out);

// Every part calls it; the first one writes. part_index keeps their unfinished files apart.
// Errors: kInvalidArgument when the output was begun with another plan or number of parts.
Status agree_on_parts_job(io::Storage& storage, const std::string& out, const PartsJob& job,
                          uint32_t part_index);

}  // namespace sluice::convert
