// An output folder as a stock loader would see it, and what its sluice.json claims.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "allocate/plan.h"
#include "base/digest.h"
#include "io/storage.h"
#include "io/tensor_info.h"
#include "verify/verify.h"

namespace sluice::verify {

// What sluice.json claims about one module.
struct RecordedModule {
  std::string shard;  // of its weight
  Digest source, weight, scales, biases;
  numerics::ErrorStats error;
};

struct Output {
  std::vector<std::shared_ptr<io::ByteSource>> files;
  std::vector<std::string> file_names;
  std::unordered_map<std::string, io::StoredTensor> tensors;
  Json config, index;
  std::unordered_map<std::string, RecordedModule> recorded;  // by tensor name
  uint64_t weight_file_bytes = 0;
};

// sluice.json's plan. Errors: kNotFound or kCorrupt; without it nothing can be verified.
struct Record {
  allocate::Plan plan;
  Json json;
};
Result<Record> read_record(io::Storage& storage, const std::string& out);

// Of the same tensor or file; so that one broken tensor does not hide the others.
inline constexpr uint64_t kFindingsPerSubjectMax = 4;

// Collects findings, the first few of each subject, in the order they are given. Value; one thread.
class Findings {
 public:
  void add(std::string subject, std::string message);
  // What another one collected, behind what is here.
  void append(Findings&& other);
  // count: of all that were found, kept or not.
  std::vector<Finding> take(uint64_t* count);

 private:
  std::vector<Finding> findings_;
  std::unordered_map<std::string, uint64_t> by_subject_;
  uint64_t count_ = 0;
};

// Opens weight files, configuration and index. What is damaged or missing becomes a finding, and
// the rest is opened all the same. Errors: reading fails.
Result<Output> open_output(io::Storage& storage, const std::string& out, const Json& record,
                           Findings& findings);

// The rules of a stock loader: exactly the tensors the model needs, of the right types and shapes;
// quantization in config.json that explains every one of them, and the rest of it as in the source;
// an index that agrees; bytes within the budget. And what sluice.json (record) says beside its
// plan.
void check_loader_rules(const Output& output, const Json& record, const io::Checkpoint& checkpoint,
                        const families::ModelMap& map, const allocate::Plan& plan,
                        Findings& findings);

}  // namespace sluice::verify
