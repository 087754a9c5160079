// What the tests of conversion share: a conversion into storage in memory, and its output as bytes.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "convert/convert.h"
#include "support/models.h"
#include "support/plans.h"

namespace sluice::test {

inline const std::string kOut = "work/OUT";

// Everything under a folder, by path relative to it.
using Files = std::map<std::string, std::string>;

inline Files files_under(io::MemoryStorage& storage, const std::string& folder) {
  Files files;
  for (const std::string& path : storage.files()) {
    if (!path.starts_with("/" + folder + "/")) continue;
    files[path.substr(folder.size() + 2)] = *io::read_text(**storage.open_source(path), UINT64_MAX);
  }
  return files;
}

struct Job {
  std::shared_ptr<const io::Checkpoint> checkpoint;
  families::ModelMap map;
  allocate::Plan plan;
};

inline Job job_of(const ModelBuilder& model, std::string_view dtype = "",
                  const WrapSource& wrap = {}) {
  auto checkpoint = model.build(wrap);
  families::ModelMap map = map_of(*checkpoint, dtype);
  allocate::Plan plan = mixed_plan(*checkpoint, map);
  return {std::move(checkpoint), std::move(map), std::move(plan)};
}

class CollectingLog : public NullLog {
 public:
  void warn(std::string_view message) override { warnings.emplace_back(message); }
  std::vector<std::string> warnings;
};

inline convert::ConvertOptions convert_options(Log& log, unsigned workers = 2) {
  convert::ConvertOptions options;
  options.workers = workers;
  options.simd = widest_simd();
  options.log = &log;
  return options;
}

// Into "work/OUT"; makes "work" durable first.
inline Result<convert::ConvertSummary> convert_into(io::Storage& storage, const Job& job,
                                                    const convert::ConvertOptions& options) {
  return convert::convert(storage, *job.checkpoint, job.map, job.plan, kOut, options);
}

inline Files converted(const Job& job) {
  io::MemoryStorage storage;
  make_work_folder(storage);
  NullLog log;
  const auto summary = convert_into(storage, job, convert_options(log));
  if (!summary) fmt::print(stderr, "{}\n", summary.error().message);
  SLUICE_CHECK(summary.has_value());
  return files_under(storage, kOut);
}

}  // namespace sluice::test
