// Failing on purpose, for tests: wrappers that fail the Nth operation of a storage or source, and a
// storage in memory that loses what was not synced when its power is cut.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/mutex.h"
#include "io/byte_source.h"
#include "io/storage.h"

namespace sluice::io {

struct FaultPlan {
  uint64_t at = 0;                  // which operation fails, counted from 1; 0: none
  ErrorCode code = ErrorCode::kIo;  // with which error
  bool persistent = false;          // and every operation after it, as after a kill
  bool torn = false;                // a failing write leaves the first half of its bytes
};

// Counts operations across everything wrapped with it. Thread-safe.
class FaultInjector {
 public:
  explicit FaultInjector(FaultPlan plan = {}) : plan_(plan) {}

  // Counts one operation; an error when it is to fail.
  Status step(std::string_view operation, std::string_view path) EXCLUDES(mutex_);
  uint64_t operations() const EXCLUDES(mutex_);
  bool triggered() const EXCLUDES(mutex_);
  const FaultPlan& plan() const { return plan_; }

 private:
  const FaultPlan plan_;
  mutable Mutex mutex_;
  uint64_t operations_ GUARDED_BY(mutex_) = 0;
  bool triggered_ GUARDED_BY(mutex_) = false;
};

// Both borrow the injector, and the first borrows base; they must outlive what is returned and
// every file opened from it.
std::unique_ptr<Storage> faulty_storage(Storage& base, FaultInjector& injector);
std::shared_ptr<ByteSource> faulty_source(std::shared_ptr<ByteSource> base,
                                          FaultInjector& injector);

// A file system in memory. Only what was synced is sure to survive cut_power(): a file's bytes by
// its own sync, a name by the sync of its folder. Thread-safe.
class MemoryStorage : public Storage {
 public:
  MemoryStorage();
  ~MemoryStorage() override;

  Result<std::unique_ptr<WritableFile>> open(const std::string& path, OpenMode mode) override;
  Result<std::shared_ptr<ByteSource>> open_source(const std::string& path) override;
  bool exists(const std::string& path) override;
  Result<std::vector<std::string>> list_directory(const std::string& path) override;
  Status create_directory(const std::string& path) override;
  Status rename(const std::string& from, const std::string& to) override;
  Status remove(const std::string& path) override;
  Status sync_directory(const std::string& path) override;
  Result<uint64_t> free_bytes(const std::string& path) override;
  Result<std::unique_ptr<LockFile>> lock(const std::string& path) override;

  // Everything unsynced is lost (seed 0), or a random part of it survives: 4 KiB pages of files and
  // changes of names (new, renamed, removed) one by one. Open files and locks are dead afterwards.
  void cut_power(uint64_t seed);
  // kExhausted once the files together would be larger.
  void set_capacity(uint64_t bytes);
  // Full paths of all files, sorted.
  std::vector<std::string> files();

  struct State;  // shared with the files that are open

 private:
  std::shared_ptr<State> state_;
};

}  // namespace sluice::io
