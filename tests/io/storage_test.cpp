// The local storage against a real file system, and every failure of an atomic write: the file is
// the old one or the new one, whatever happens when.
#include "io/storage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/thread.h"
#include "build_files.h"
#include "io/fault.h"

namespace sluice::io {
namespace {

using testing::TemporaryFolder;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

std::string text_of(Storage& storage, const std::string& path) {
  auto source = storage.open_source(path);
  if (!source) return "<" + source.error().message + ">";
  return *read_text(**source, 1 << 20);
}

void exercise(Storage& storage, const std::string& folder) {
  const std::string path = folder + "/file";
  {
    auto file = storage.open(path, OpenMode::kCreateNew);
    ASSERT_TRUE(file) << file.error().message;
    ASSERT_TRUE((*file)->allocate(10));
    ASSERT_TRUE((*file)->write_at(8, bytes_of("yz")));
    ASSERT_TRUE((*file)->write_at(0, bytes_of("abcdefgh")));
    ASSERT_TRUE((*file)->append(bytes_of("!")));
    ASSERT_TRUE((*file)->sync());
  }
  EXPECT_EQ(text_of(storage, path), "abcdefghyz!");
  EXPECT_FALSE(storage.open(path, OpenMode::kCreateNew));
  {
    auto file = storage.open(path, OpenMode::kCreateOrOpen);
    ASSERT_TRUE(file);
    ASSERT_TRUE((*file)->truncate(3));
    ASSERT_TRUE((*file)->append(bytes_of("X")));
  }
  EXPECT_EQ(text_of(storage, path), "abcX");
  EXPECT_TRUE(storage.exists(path));
  ASSERT_TRUE(storage.create_directory(folder + "/sub"));
  ASSERT_TRUE(storage.create_directory(folder + "/sub"));
  EXPECT_FALSE(storage.create_directory(path));
  EXPECT_FALSE(storage.create_directory(folder + "/no/deeper"));
  ASSERT_TRUE(storage.rename(path, folder + "/sub/moved"));
  ASSERT_TRUE(storage.rename(folder + "/sub", folder + "/done"));
  ASSERT_TRUE(storage.sync_directory(folder));
  EXPECT_EQ(text_of(storage, folder + "/done/moved"), "abcX");
  EXPECT_FALSE(storage.exists(path));
  EXPECT_FALSE(storage.remove(folder + "/done"));
  ASSERT_TRUE(storage.remove(folder + "/done/moved"));
  ASSERT_TRUE(storage.remove(folder + "/done"));
  const auto gone = storage.open_source(path);
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(storage.remove(path).error().code, ErrorCode::kNotFound);
  EXPECT_GT(*storage.free_bytes(folder), 0u);
  {
    auto lock = storage.lock(folder + "/lock");
    ASSERT_TRUE(lock) << lock.error().message;
    const auto second = storage.lock(folder + "/lock");
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, ErrorCode::kIo);
    EXPECT_THAT(second.error().message, ::testing::HasSubstr(folder + "/lock"));
  }
  EXPECT_TRUE(storage.lock(folder + "/lock"));
}

TEST(StorageTest, Local) {
  const TemporaryFolder folder;
  const auto storage = local_storage();
  exercise(*storage, folder.path());
}

TEST(StorageTest, Memory) {
  MemoryStorage storage;
  ASSERT_TRUE(storage.create_directory("/d"));
  exercise(storage, "/d");
}

// A holder removes its lock file before it lets go, as conversion does with its journal. Whoever
// opened the file just before must not take a lock on what no longer has a name.
TEST(StorageTest, ALockFileMayBeRemovedByItsHolder) {
  const TemporaryFolder folder;
  const auto storage = local_storage();
  const std::string path = folder.file("lock");
  std::atomic<int> inside{0}, entered{0}, crowded{0};
  {
    std::vector<Thread> threads;
    for (int thread = 0; thread < 4; ++thread)
      threads.emplace_back([&] {
        for (int round = 0; round < 100;) {
          const auto lock = storage->lock(path);
          if (!lock) {
            std::this_thread::yield();
            continue;
          }
          ++round;
          if (inside.fetch_add(1) != 0) ++crowded;
          ++entered;
          std::this_thread::yield();
          inside.fetch_sub(1);
          EXPECT_TRUE(storage->remove(path));
        }
      });
  }
  EXPECT_EQ(crowded, 0);
  EXPECT_EQ(entered, 400);
}

TEST(StorageTest, LocalRefusals) {
  const TemporaryFolder folder;
  const auto storage = local_storage();
  EXPECT_EQ(storage->open_source(folder.path()).error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(storage->open_source("/dev/null").error().code, ErrorCode::kUnsupported);
  ASSERT_EQ(::mkfifo(folder.file("fifo").c_str(), 0600), 0);
  EXPECT_EQ(storage->open_source(folder.file("fifo")).error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(storage->open_source(std::string("a\0b", 3)).error().code, ErrorCode::kInvalidArgument);
  EXPECT_FALSE(storage->sync_directory(folder.file("absent")));
}

TEST(StorageTest, FullDiskIsExhausted) {
  const auto storage = local_storage();
  if (!storage->exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  const auto file = storage->open("/dev/full", OpenMode::kCreateOrOpen);
  if (!file) GTEST_SKIP() << file.error().message;
  const auto status = (*file)->write_at(0, bytes_of("x"));
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kExhausted);
  EXPECT_THAT(status.error().message, ::testing::HasSubstr("offset 0"));
}

TEST(StorageTest, ALockEndsWithItsProcess) {
  const TemporaryFolder folder;
  const auto storage = local_storage();
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const auto lock = storage->lock(folder.file("lock"));
    ::_exit(lock ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(storage->lock(folder.file("lock")));
}

TEST(FaultTest, AtomicWriteAtEveryFault) {
  for (const bool persistent : {false, true}) {
    for (const ErrorCode code : {ErrorCode::kIo, ErrorCode::kExhausted}) {
      for (uint64_t at = 1;; ++at) {
        SCOPED_TRACE(::testing::Message() << "operation " << at << " persistent " << persistent);
        MemoryStorage memory;
        ASSERT_TRUE(memory.create_directory("d"));
        ASSERT_TRUE(write_file_atomically(memory, "d/f", "old"));
        FaultInjector injector({.at = at, .code = code, .persistent = persistent, .torn = true});
        const auto storage = faulty_storage(memory, injector);
        const Status status = write_file_atomically(*storage, "d/f", "new text");
        const std::string now = text_of(memory, "d/f");
        if (!injector.triggered()) {
          ASSERT_TRUE(status);
          EXPECT_EQ(now, "new text");
          EXPECT_GE(at, 6u);
          break;
        }
        ASSERT_FALSE(status);
        EXPECT_EQ(status.error().code, code);
        EXPECT_TRUE(now == "old" || now == "new text") << now;
        ASSERT_TRUE(write_file_atomically(memory, "d/f", "again"));
        EXPECT_EQ(text_of(memory, "d/f"), "again");
      }
    }
  }
}

TEST(FaultTest, AtomicWriteSurvivesPowerCuts) {
  const std::string old_text(10'000, 'o'), new_text(30'000, 'n');
  for (uint64_t at = 1; at <= 8; ++at) {
    for (uint64_t seed = 0; seed < 200; ++seed) {
      MemoryStorage memory;
      ASSERT_TRUE(memory.create_directory("d"));
      ASSERT_TRUE(memory.sync_directory("/"));
      ASSERT_TRUE(write_file_atomically(memory, "d/f", old_text));
      FaultInjector injector({.at = at, .persistent = true, .torn = true});
      const auto storage = faulty_storage(memory, injector);
      const Status status = write_file_atomically(*storage, "d/f", new_text);
      memory.cut_power(seed);
      const std::string now = text_of(memory, "d/f");
      ASSERT_TRUE(now == old_text || now == new_text) << "at " << at << " seed " << seed;
      if (status) {
        ASSERT_EQ(now, new_text);
      }
    }
  }
}

TEST(FaultTest, UnsyncedBytesAreLost) {
  MemoryStorage memory;
  const auto file = *memory.open("f", OpenMode::kCreateNew);
  ASSERT_TRUE(file->append(bytes_of("synced")));
  ASSERT_TRUE(file->sync());
  ASSERT_TRUE(memory.sync_directory("/"));
  ASSERT_TRUE(file->append(bytes_of(" lost")));
  ASSERT_TRUE(memory.open("g", OpenMode::kCreateNew));
  memory.cut_power(0);
  EXPECT_EQ(text_of(memory, "f"), "synced");
  EXPECT_THAT(memory.files(), ::testing::ElementsAre("/f"));
  EXPECT_FALSE(file->append(bytes_of("x")));
}

TEST(FaultTest, CapacityAndSources) {
  MemoryStorage memory;
  memory.set_capacity(10);
  const auto file = *memory.open("f", OpenMode::kCreateNew);
  ASSERT_TRUE(file->append(bytes_of("12345")));
  EXPECT_EQ(*memory.free_bytes("/"), 5u);
  EXPECT_EQ(file->append(bytes_of("123456")).error().code, ErrorCode::kExhausted);
  FaultInjector injector({.at = 2});
  const auto source = faulty_source(*memory.open_source("f"), injector);
  char out[5];
  const auto span = std::as_writable_bytes(std::span(out));
  EXPECT_TRUE(source->read_at(0, span));
  EXPECT_FALSE(source->read_at(0, span));
  EXPECT_TRUE(source->read_at(0, span));
  EXPECT_EQ(injector.operations(), 3u);
}

}  // namespace
}  // namespace sluice::io
