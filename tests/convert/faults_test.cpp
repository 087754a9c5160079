// Conversion on storage that fails: every operation in turn, once and from then on, torn writes, a
// full disk, a cut power. Afterwards there is a complete output or none, and the same command goes
// on to the bytes of an undisturbed run.
#include <gmock/gmock.h>

#include <algorithm>
#include <set>

#include "convert/conversions.h"
#include "support/seed.h"

namespace sluice::convert {
namespace {

using io::FaultInjector;
using io::FaultPlan;
using io::MemoryStorage;
using test::Files;
using test::kOut;

// Small enough that hundreds of conversions take seconds; every encoder occurs.
test::ModelBuilder small_model() { return test::tiny_llama({.vocab = 32, .layers = 1}); }

// One conversion on failing storage from a failing source.
Result<ConvertSummary> convert_with(MemoryStorage& storage, FaultInjector& injector,
                                    uint64_t bytes_per_checkpoint) {
  const test::Job job = test::job_of(small_model(), "", [&](std::shared_ptr<io::ByteSource> base) {
    return io::faulty_source(std::move(base), injector);
  });
  const auto faulty = io::faulty_storage(storage, injector);
  NullLog log;
  ConvertOptions options = test::convert_options(log);
  options.bytes_per_checkpoint = bytes_per_checkpoint;
  return test::convert_into(*faulty, job, options);
}

const Files& reference() {
  static const Files files = test::converted(test::job_of(small_model()));
  return files;
}

void expect_error(const Result<ConvertSummary>& result, ErrorCode code) {
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, code) << result.error().message;
  EXPECT_THAT(result.error().message, ::testing::HasSubstr("injected fault"));
}

// The final name is taken by a complete output or by nothing.
void expect_whole_or_absent(MemoryStorage& storage) {
  if (!storage.exists(kOut)) return;
  EXPECT_TRUE(test::files_under(storage, kOut) == reference());
}

// Without faults, and then whatever was not synced is lost.
void expect_finishes(MemoryStorage& storage, uint64_t bytes_per_checkpoint) {
  FaultInjector none;
  const auto summary = convert_with(storage, none, bytes_per_checkpoint);
  ASSERT_TRUE(summary) << summary.error().message;
  EXPECT_TRUE(test::files_under(storage, kOut) == reference());
  EXPECT_FALSE(storage.exists(partial_path(kOut)));
  EXPECT_FALSE(storage.exists(journal_path(kOut)));
  storage.cut_power(0);
  EXPECT_TRUE(test::files_under(storage, kOut) == reference()) << "success, but not durable";
}

// (plan, bytes per checkpoint): all modules at the end as in small models, or one by one.
struct Campaign {
  const char* name;
  FaultPlan plan;
  uint64_t bytes_per_checkpoint;
};

class EveryOperation : public ::testing::TestWithParam<Campaign> {};

TEST_P(EveryOperation, FailsCleanlyAndGoesOn) {
  const Campaign& campaign = GetParam();
  for (uint64_t at = 1;; ++at) {
    SCOPED_TRACE(at);
    MemoryStorage storage;
    test::make_work_folder(storage);
    FaultPlan plan = campaign.plan;
    plan.at = at;
    FaultInjector injector(plan);
    const auto result = convert_with(storage, injector, campaign.bytes_per_checkpoint);
    if (!injector.triggered()) {
      EXPECT_TRUE(result);
      EXPECT_GT(at, 100u) << "fewer operations than a conversion needs";
      break;
    }
    expect_error(result, plan.code);
    expect_whole_or_absent(storage);
    expect_finishes(storage, campaign.bytes_per_checkpoint);
    if (HasFailure()) break;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Faults, EveryOperation,
    ::testing::Values(
        Campaign{"Once", {.code = ErrorCode::kIo}, 256u << 20},
        Campaign{"OnceDiskFull", {.code = ErrorCode::kExhausted, .torn = true}, 256u << 20},
        Campaign{"Killed", {.code = ErrorCode::kIo, .persistent = true, .torn = true}, 256u << 20},
        Campaign{"OnceManyCheckpoints", {.code = ErrorCode::kIo}, 1},
        Campaign{"KilledManyCheckpoints",
                 {.code = ErrorCode::kIo, .persistent = true, .torn = true},
                 1}),
    [](const auto& campaign) { return std::string(campaign.param.name); });

// Killed at every operation, then everything unsynced is lost or a random part of it survives.
TEST(PowerCut, AtEveryOperation) {
  uint64_t resumed_most = 0;
  for (uint64_t at = 1;; ++at) {
    for (uint64_t seed = 0; seed < 4; ++seed) {
      SCOPED_TRACE(fmt::format("operation {}, seed {}", at, seed));
      MemoryStorage storage;
      test::make_work_folder(storage);
      FaultInjector injector({.at = at, .persistent = true, .torn = true});
      const auto result = convert_with(storage, injector, 20'000);
      if (!injector.triggered()) {
        EXPECT_TRUE(result);
        EXPECT_GT(resumed_most, 5u) << "what was synced and journalled should survive";
        return;
      }
      storage.cut_power(seed == 0 ? 0 : at * 1000 + seed);
      expect_whole_or_absent(storage);
      FaultInjector none;
      const auto resumed = convert_with(storage, none, 20'000);
      ASSERT_TRUE(resumed) << resumed.error().message;
      resumed_most = std::max(resumed_most, resumed->modules_resumed);
      ASSERT_TRUE(test::files_under(storage, kOut) == reference());
    }
  }
}

// Up to three interruptions in a row at random places, the later ones while resuming, each losing
// another random part of what was not synced. SLUICE_TEST_CASES=10000 runs as many as promised.
TEST(PowerCut, WhileResuming) {
  const uint64_t cases = test::number_from("SLUICE_TEST_CASES", 100);
  test::Random random(test::seed(11));
  for (uint64_t cut = 0; cut < cases;) {
    SCOPED_TRACE(cut);
    MemoryStorage storage;
    test::make_work_folder(storage);
    const uint64_t bytes_per_checkpoint = 1 + random.below(40'000);
    for (uint64_t cuts = 1 + random.below(3); cuts > 0 && !storage.exists(kOut); --cuts, ++cut) {
      FaultInjector injector({.at = 1 + random.below(260), .persistent = true, .torn = true});
      (void)convert_with(storage, injector, bytes_per_checkpoint);
      storage.cut_power(1 + random.below(UINT64_MAX));
      expect_whole_or_absent(storage);
    }
    if (!storage.exists(kOut) || storage.exists(journal_path(kOut))) {
      FaultInjector none;
      const auto resumed = convert_with(storage, none, bytes_per_checkpoint);
      ASSERT_TRUE(resumed) << resumed.error().message;
    }
    ASSERT_TRUE(test::files_under(storage, kOut) == reference());
    ASSERT_FALSE(storage.exists(partial_path(kOut)));
  }
}

// The journal cut at every byte, as a torn append would leave it, and with every one of its bytes
// damaged in one bit.
TEST(DamagedJournal, AtEveryByte) {
  MemoryStorage storage;
  test::make_work_folder(storage);
  const test::Job job = test::job_of(small_model());
  NullLog log;
  ConvertOptions options = test::convert_options(log);
  options.bytes_per_checkpoint = 1;
  options.before_publishing = [](const std::string&) -> Status {
    return fail(ErrorCode::kIo, "stop");
  };
  ASSERT_FALSE(test::convert_into(storage, job, options));
  const std::string journal = *io::read_text(**storage.open_source(journal_path(kOut)), UINT64_MAX);
  const Files partial = test::files_under(storage, partial_path(kOut));
  // Every journal is tried on the folder as it was; a prime step keeps this fast and visits every
  // part of a line, SLUICE_TEST_CASES above the default visits all.
  const bool all = test::number_from("SLUICE_TEST_CASES", 0) > 0;
  for (size_t byte = 0; byte < journal.size(); byte += all ? 1 : 13) {
    for (const bool flip : {false, true}) {
      SCOPED_TRACE(fmt::format("{} at byte {}", flip ? "flipped" : "cut", byte));
      MemoryStorage damaged;
      test::make_work_folder(damaged);
      ASSERT_TRUE(damaged.create_directory(partial_path(kOut)));
      for (const auto& [name, text] : partial)
        test::write_text(damaged, partial_path(kOut) + "/" + name, text);
      std::string text = flip ? journal : journal.substr(0, byte);
      if (flip) text[byte] = static_cast<char>(text[byte] ^ (1 << (byte % 8)));
      test::write_text(damaged, journal_path(kOut), text);
      FaultInjector none;
      const auto resumed = convert_with(damaged, none, 1);
      ASSERT_TRUE(resumed) << resumed.error().message;
      ASSERT_TRUE(test::files_under(damaged, kOut) == reference());
    }
  }
}

// Counts syncs of files that already failed to sync.
class SyncWatcher : public io::Storage {
 public:
  SyncWatcher(io::Storage& base, uint64_t fail_at) : base_(base), fail_at_(fail_at) {}

  Result<std::unique_ptr<io::WritableFile>> open(const std::string& path,
                                                 io::OpenMode mode) override {
    SLUICE_ASSIGN(auto file, base_.open(path, mode));
    return std::make_unique<File>(std::move(file), path, *this);
  }
  Result<std::shared_ptr<io::ByteSource>> open_source(const std::string& path) override {
    return base_.open_source(path);
  }
  bool exists(const std::string& path) override { return base_.exists(path); }
  Result<std::vector<std::string>> list_directory(const std::string& path) override {
    return base_.list_directory(path);
  }
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

  bool triggered() const { return !failed_.empty(); }
  int retries() const { return retries_; }

 private:
  class File : public io::WritableFile {
   public:
    File(std::unique_ptr<io::WritableFile> base, std::string path, SyncWatcher& watcher)
        : base_(std::move(base)), path_(std::move(path)), watcher_(watcher) {}
    Status write_at(uint64_t offset, std::span<const std::byte> bytes) override {
      return base_->write_at(offset, bytes);
    }
    Status append(std::span<const std::byte> bytes) override { return base_->append(bytes); }
    Status truncate(uint64_t size) override { return base_->truncate(size); }
    Status allocate(uint64_t size) override { return base_->allocate(size); }
    Status sync() override {
      SLUICE_TRY(watcher_.note_sync(path_));
      return base_->sync();
    }

   private:
    const std::unique_ptr<io::WritableFile> base_;
    const std::string path_;
    SyncWatcher& watcher_;
  };

  Status note_sync(const std::string& path) {
    MutexLock lock(mutex_);
    if (failed_.contains(path)) ++retries_;
    if (++syncs_ != fail_at_) return {};
    failed_.insert(path);
    return fail(ErrorCode::kIo, "{}: injected fault", path);
  }

  io::Storage& base_;
  const uint64_t fail_at_;
  Mutex mutex_;
  uint64_t syncs_ = 0;
  int retries_ = 0;
  std::set<std::string> failed_;
};

TEST(FailedSync, IsNeverRepeated) {
  for (const uint64_t bytes_per_checkpoint : {1ull, 256ull << 20}) {
    for (uint64_t at = 1;; ++at) {
      SCOPED_TRACE(at);
      MemoryStorage storage;
      test::make_work_folder(storage);
      SyncWatcher watcher(storage, at);
      const test::Job job = test::job_of(small_model());
      NullLog log;
      ConvertOptions options = test::convert_options(log, 4);
      options.bytes_per_checkpoint = bytes_per_checkpoint;
      const auto result = test::convert_into(watcher, job, options);
      EXPECT_EQ(watcher.retries(), 0);
      if (!watcher.triggered()) break;
      EXPECT_FALSE(result);
      expect_whole_or_absent(storage);
      expect_finishes(storage, bytes_per_checkpoint);
    }
  }
}

// A cancellation that arrives while a sync fails must not sync again to save what it can.
TEST(FailedSync, NotEvenOnCancellation) {
  for (uint64_t at = 1; at < 12; ++at) {
    SCOPED_TRACE(at);
    MemoryStorage storage;
    test::make_work_folder(storage);
    SyncWatcher watcher(storage, at);
    const test::Job job = test::job_of(small_model());
    NullLog log;
    CancelToken cancel;
    class CancelAtOnce : public NullProgress {
     public:
      explicit CancelAtOnce(CancelToken& token) : token_(token) {}
      void advance(uint64_t) override { token_.cancel(); }

     private:
      CancelToken& token_;
    } progress(cancel);
    ConvertOptions options = test::convert_options(log, 4);
    options.bytes_per_checkpoint = 1;
    options.cancel = &cancel;
    options.progress = &progress;
    const auto result = test::convert_into(watcher, job, options);
    EXPECT_EQ(watcher.retries(), 0);
    EXPECT_TRUE(result || !storage.exists(kOut));
    expect_finishes(storage, 1);
  }
}

}  // namespace
}  // namespace sluice::convert
