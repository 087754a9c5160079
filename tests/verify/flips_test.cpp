// Bit rot: random single-bit flips anywhere in an output's files. Every one is found.
#include <gmock/gmock.h>

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

class Flips : public ::testing::Test {
 protected:
  Flips() : job_(test::job_of(test::tiny_llama({.vocab = 8, .layers = 1}))) {
    files_ = test::converted(job_);
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

  void expect_all_found(const std::string& name, size_t first, size_t last, int count,
                        uint64_t seed) {
    test::Random random(seed);
    for (int i = 0; i < count; ++i) {
      const size_t byte = first + random.below(last - first);
      const auto bit = static_cast<unsigned>(random.below(8));
      ASSERT_TRUE(found(name, byte, bit))
          << name << ", byte " << byte << ", bit " << bit << ": '" << files_.at(name)[byte] << "'";
    }
  }

  const Job job_;
  Files files_;
  const test::TemporaryFolder folder_;
  const std::unique_ptr<io::Storage> local_ = io::local_storage();
};

TEST_F(Flips, UndamagedPasses) {
  const auto report = verify(*local_, *job_.checkpoint, folder_.path(), {});
  ASSERT_TRUE(report);
  EXPECT_TRUE(report->passed()) << test::findings_text(*report);
}

TEST_F(Flips, Weights) {
  const size_t size = files_.at(test::kShard).size();
  expect_all_found(test::kShard, 0, size, 1400, 1);
}

// The header's text is short; without this few flips would hit it.
TEST_F(Flips, HeaderOfTheShard) {
  const std::string& shard = files_.at(test::kShard);
  const size_t text_end = shard.find("}}  ") + 10;
  for (size_t bit = 0; bit < 64; ++bit) ASSERT_TRUE(found(test::kShard, bit / 8, bit % 8)) << bit;
  expect_all_found(test::kShard, 8, text_end, 400, 2);
  expect_all_found(test::kShard, text_end, 16384, 100, 3);
}

TEST_F(Flips, Configuration) {
  expect_all_found("config.json", 0, files_.at("config.json").size(), 150, 4);
  expect_all_found(test::kIndex, 0, files_.at(test::kIndex).size(), 150, 5);
}

// The names of tool and source are for people and may say anything.
TEST_F(Flips, Record) {
  std::string& record = files_.at("sluice.json");
  const size_t tool = record.find("\"tool\": \"") + 9;
  const size_t name = record.find("\"name\": \"tiny\"") + 9;
  ASSERT_LT(name, record.size());
  test::Random random(6);
  for (int i = 0; i < 300; ++i) {
    const size_t byte = random.below(record.size());
    if ((byte >= tool && byte < record.find('"', tool)) || (byte >= name && byte < name + 4))
      continue;
    const auto bit = static_cast<unsigned>(random.below(8));
    ASSERT_TRUE(found("sluice.json", byte, bit))
        << "byte " << byte << ", bit " << bit << ": " << record.substr(byte - 20, 40);
  }
}

}  // namespace
}  // namespace sluice::verify
