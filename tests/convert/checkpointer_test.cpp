// Durability in the background: encoding does not wait for a sync, a module is journalled only
// after its bytes are durable, and after a failed sync nothing more is claimed.
#include "convert/checkpointer.h"

#include <gmock/gmock.h>

#include <string>

#include "io/fault.h"

namespace sluice::convert {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// What happened in which order, across files and journal; syncs wait while the gate is shut.
class Events {
 public:
  void add(std::string event) {
    MutexLock lock(mutex_);
    events_.push_back(std::move(event));
    changed_.notify_all();
  }
  std::vector<std::string> all() {
    MutexLock lock(mutex_);
    return events_;
  }
  void wait_for(std::string_view event) {
    MutexLock lock(mutex_);
    while (std::ranges::find(events_, event) == events_.end()) changed_.wait(mutex_);
  }
  void shut() {
    MutexLock lock(mutex_);
    open_ = false;
  }
  void open() {
    MutexLock lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void pass() {
    MutexLock lock(mutex_);
    while (!open_) changed_.wait(mutex_);
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool open_ GUARDED_BY(mutex_) = true;
  std::vector<std::string> events_ GUARDED_BY(mutex_);
};

class NotedFile : public io::WritableFile {
 public:
  NotedFile(std::unique_ptr<io::WritableFile> base, std::string name, Events& events,
            const std::string& failing)
      : base_(std::move(base)), name_(std::move(name)), events_(events), failing_(failing) {}
  Status write_at(uint64_t offset, std::span<const std::byte> bytes) override {
    return base_->write_at(offset, bytes);
  }
  Status append(std::span<const std::byte> bytes) override {
    events_.add("append");
    return base_->append(bytes);
  }
  Status truncate(uint64_t size) override { return base_->truncate(size); }
  Status allocate(uint64_t size) override { return base_->allocate(size); }
  void write_behind() override { events_.add("behind " + name_); }
  Status sync() override {
    events_.add("syncing " + name_);
    events_.pass();
    events_.add("sync " + name_);
    if (name_ == failing_) return fail(ErrorCode::kIo, "{}: injected fault", name_);
    return base_->sync();
  }

 private:
  const std::unique_ptr<io::WritableFile> base_;
  const std::string name_;
  Events& events_;
  const std::string& failing_;
};

class NotedStorage : public io::MemoryStorage {
 public:
  NotedStorage(Events& events, const std::string& failing) : events_(events), failing_(failing) {}
  Result<std::unique_ptr<io::WritableFile>> open(const std::string& path,
                                                 io::OpenMode mode) override {
    SLUICE_ASSIGN(auto file, io::MemoryStorage::open(path, mode));
    return std::make_unique<NotedFile>(std::move(file), path, events_, failing_);
  }

 private:
  Events& events_;
  const std::string& failing_;
};

// Modules 0 and 1 in shard a, 2 and 3 in shard b; two modules of ten bytes make a checkpoint.
class CheckpointerTest : public ::testing::Test {
 protected:
  CheckpointerTest() {
    layout_.shards.resize(2);
    layout_.places = {{0}, {0}, {1}, {1}};
    results_.resize(4);
    for (const char* name : {"a", "b"})
      files_.push_back(*storage_.open(name, io::OpenMode::kCreateNew));
    journal_ = *io::Journal::open(storage_, "journal", [](const Json&) { return Status(); });
  }
  Checkpointer make() { return {layout_, files_, *journal_, results_, 20}; }

  Events events_;
  std::string failing_;
  NotedStorage storage_{events_, failing_};
  stream::OutputLayout layout_;
  std::vector<std::optional<ModuleResult>> results_;
  std::vector<std::unique_ptr<io::WritableFile>> files_;
  std::unique_ptr<io::Journal> journal_;
};

TEST_F(CheckpointerTest, SyncsBeforeItJournals) {
  {
    Checkpointer checkpointer = make();
    for (uint32_t module = 0; module < 4; ++module) ASSERT_TRUE(checkpointer.add(module, {}, 10));
    ASSERT_TRUE(checkpointer.finish());
  }
  EXPECT_THAT(events_.all(),
              ElementsAre("syncing a", "sync a", "behind a", "append", "append", "syncing journal",
                          "sync journal", "syncing b", "sync b", "behind b", "append", "append",
                          "syncing journal", "sync journal"));
  for (const auto& result : results_) EXPECT_TRUE(result);
}

TEST_F(CheckpointerTest, EncodingGoesOnWhileADiskSyncs) {
  Checkpointer checkpointer = make();
  events_.shut();
  ASSERT_TRUE(checkpointer.add(0, {}, 20));
  events_.wait_for("syncing a");
  ASSERT_TRUE(checkpointer.add(1, {}, 10));  // would hang if it waited
  EXPECT_THAT(events_.all(), ElementsAre("syncing a"));
  events_.open();
  ASSERT_TRUE(checkpointer.finish());
  EXPECT_TRUE(results_[0] && results_[1]);
  EXPECT_FALSE(results_[2]);
}

TEST_F(CheckpointerTest, AFailedSyncIsToldAndTheLast) {
  failing_ = "a";
  {
    Checkpointer checkpointer = make();
    ASSERT_TRUE(checkpointer.add(0, {}, 20));
    const Status status = checkpointer.add(2, {}, 20);  // waits for the first, and learns of it
    ASSERT_FALSE(status);
    EXPECT_THAT(status.error().message, HasSubstr("a: injected fault"));
    EXPECT_FALSE(checkpointer.add(3, {}, 20));
    EXPECT_FALSE(checkpointer.finish());
  }
  EXPECT_THAT(events_.all(), ElementsAre("syncing a", "sync a"));
  for (const auto& result : results_) EXPECT_FALSE(result);
}

TEST_F(CheckpointerTest, WhatWasAddedLastIsNotClaimedWithoutFinish) {
  {
    ASSERT_TRUE(make().add(0, {}, 10));
  }
  EXPECT_THAT(events_.all(), IsEmpty());
}

TEST_F(CheckpointerTest, CarriesOnWhatWasWritten) {
  Checkpointer checkpointer = make();
  checkpointer.wrote(1, 15 << 20);
  checkpointer.wrote(0, 1 << 20);
  EXPECT_THAT(events_.all(), IsEmpty());
  checkpointer.wrote(1, 2 << 20);
  events_.wait_for("behind b");
  EXPECT_THAT(events_.all(), ElementsAre("behind b"));
}

}  // namespace
}  // namespace sluice::convert
