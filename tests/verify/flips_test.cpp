// Bit rot: random single-bit flips anywhere in an output's files. Every one is found.
#include <gmock/gmock.h>

#include "analyze/analyze.h"
#include "base/sealed_json.h"
#include "support/seed.h"
#include "verify/outputs.h"

namespace sluice::verify {
namespace {

using test::Files;
using test::Job;

// The real files, but for one that is replaced.
class Replaced : public io::Storage {
 public:
  explicit Replaced(io::Storage& base) : base_(base) {}
  void replace(std::string path, std::string_view text) {
    const auto bytes = std::as_bytes(std::span(text));
    path_ = std::move(path);
    source_ = io::memory_source(path_, {bytes.begin(), bytes.end()});
  }
  Result<std::unique_ptr<io::WritableFile>> open(const std::string& path,
                                                 io::OpenMode mode) override {
    return base_.open(path, mode);
  }
  Result<std::shared_ptr<io::ByteSource>> open_source(const std::string& path) override {
    if (path == path_) return source_;
    return base_.open_source(path);
  }
  bool exists(const std::string& path) override { return base_.exists(path); }
  Status create_directory(const std::string& path) override { return base_.create_directory(path); }
  Status rename(const std::string& from, const std::string& to) override {
    return base_.rename(from, to);
  }
  Status remove(const std::string& path) override { return base_.remove(path); }
  Status sync_directory(const std::string& path) override { return base_.sync_directory(path); }
  Result<uint64_t> free_bytes(const std::string& path) override { return base_.free_bytes(path); }
  Result<std::unique_ptr<io::LockFile>> lock(const std::string& path) override {
    return base_.lock(path);
  }

 private:
  io::Storage& base_;
  std::string path_;
  std::shared_ptr<io::ByteSource> source_;
};

// The output of a fit: what conversion writes, and the analysis and run record beside it.
Files fitted(const Job& job) {
  Files files = test::converted(job);
  io::MemoryStorage storage;
  test::make_work_folder(storage);
  const std::string path = "work/analysis";
  analyze::AnalyzeOptions options;
  options.simd = test::widest_simd();
  for (const uint8_t bits : numerics::kAffineBits)
    for (const uint16_t group : numerics::kAffineGroups)
      options.best_formats.push_back({numerics::QuantMode::kAffine, bits, group});
  SLUICE_CHECK(analyze::analyze(storage, *job.checkpoint, job.map, path, options).has_value());
  files["analysis.jsonl"] = *io::read_text(**storage.open_source(path), UINT64_MAX);
  files["run.json"] = dump_json(sealed({{"analyze_s", 0.25}, {"threads", 2}}), 1) + "\n";
  return files;
}

// The plan, as if made from that analysis.
Job job_with_analysis() {
  Job job = test::job_of(test::tiny_llama({.vocab = 8, .layers = 1}));
  const Files files = fitted(job);
  const auto bytes = std::as_bytes(std::span(files.at("analysis.jsonl")));
  const auto analysis =
      analyze::load_analysis(*io::memory_source("analysis", {bytes.begin(), bytes.end()}));
  SLUICE_CHECK(analysis.has_value());
  allocate::PlanData data = job.plan.data();
  data.analysis = analysis->digest;
  for (size_t i = 0; i < data.tensors.size(); ++i)
    for (const allocate::Candidate& candidate : analysis->records[i].item.candidates)
      if (candidate.format == data.tensors[i].format &&
          candidate.encoder == data.tensors[i].encoder)
        data.tensors[i].error = candidate.error;
  auto plan = allocate::Plan::create(std::move(data));
  SLUICE_CHECK(plan.has_value());
  job.plan = std::move(*plan);
  return job;
}

class Flips : public ::testing::Test {
 protected:
  Flips() : job_(job_with_analysis()) {
    files_ = fitted(job_);
    test::write_files(folder_.path(), files_);
  }

  // Whether verification of the file with one bit flipped finds something.
  bool found(const std::string& name, size_t byte, unsigned bit) {
    std::string text = files_.at(name);
    text[byte] = static_cast<char>(text[byte] ^ (1 << bit));
    Replaced storage(*local_);
    storage.replace(folder_.path() + "/" + name, text);
    VerifyOptions options;
    options.workers = 2;
    const auto report = verify(storage, *job_.checkpoint, folder_.path(), options);
    return !report || !report->passed();
  }

  const Job job_;
  Files files_;
  const test::TemporaryFolder folder_;
  const std::unique_ptr<io::Storage> local_ = io::local_storage();
};

TEST_F(Flips, UndamagedPasses) {
  const auto report = verify(*local_, *job_.checkpoint, folder_.path(), {});
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_TRUE(report->passed()) << test::findings_text(*report);
}

// Half of the flips fall on the weight file as its size would have it; the others on each file
// alike, or few would meet a header or a configuration. Whoever wants all of the promise sets
// SLUICE_TEST_CASES=10000.
TEST_F(Flips, AnywhereAreFound) {
  const uint64_t cases = test::number_from("SLUICE_TEST_CASES", 2000);
  test::Random random(test::seed(1));
  std::vector<std::string> names;
  for (const auto& [name, text] : files_) names.push_back(name);
  ASSERT_EQ(names.size(), 9u);
  for (uint64_t i = 0; i < cases; ++i) {
    const bool weights = random.below(2) == 0;
    const std::string& name = weights ? test::kShard : names[random.below(names.size())];
    const std::string& text = files_.at(name);
    const size_t text_end = text.find("}}  ") + 10;  // of the header in a weight file
    const bool header = name == test::kShard && !weights;
    const size_t byte = random.below(header ? text_end : text.size());
    const auto bit = static_cast<unsigned>(random.below(8));
    ASSERT_TRUE(found(name, byte, bit)) << "case " << i << ": " << name << ", byte " << byte
                                        << ", bit " << bit << ": '" << text[byte] << "'";
  }
}

TEST_F(Flips, EveryBitOfTheHeadersLength) {
  for (size_t bit = 0; bit < 64; ++bit) ASSERT_TRUE(found(test::kShard, bit / 8, bit % 8)) << bit;
}

}  // namespace
}  // namespace sluice::verify
