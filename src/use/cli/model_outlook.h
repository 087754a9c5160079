// How a model would run on this machine with so much memory: what stays, what each token reads from
// disk, and how many tokens a second the disk allows. From headers alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/context.h"
#include "cli/generation.h"

namespace sluice::cli {

struct ModelOutlook {
  struct Row {
    uint64_t memory_bytes = 0;  // that the process may take; 0: whatever the machine offers
    runtime::MemoryNeed need;
    uint64_t disk_bytes_token = 0;
    double experts_there = 1;  // share of them that is in memory at a time
    std::string refusal;       // why it cannot run so; the rest is empty then
  };
  std::string path, family, storage;
  uint64_t weight_bytes = 0, read_bytes_token = 0;
  std::vector<Row> rows;  // what was asked for, or the machine's and parts of the model's size
};

// What `doctor` was pointed at: a model as `run` takes it.
bool looks_like_model(const std::string& path);
// Errors: not a model that runs.
Result<ModelOutlook> model_outlook(Context& context, const std::string& path,
                                   const EngineArguments& arguments);

// disk_bytes_per_s 0: not known.
std::string outlook_text(const ModelOutlook& outlook, double disk_bytes_per_s);
Json outlook_json(const ModelOutlook& outlook, double disk_bytes_per_s);

}  // namespace sluice::cli
