// Where output goes: the few file-system operations that a crash-safe writer needs, behind one
// interface so that tests can fail each of them or lose what was not synced.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "io/byte_source.h"

namespace sluice::io {

// A file open for positional writing. write_at is thread-safe; the rest is for one thread.
class WritableFile {
 public:
  virtual ~WritableFile() = default;
  virtual Status write_at(uint64_t offset, std::span<const std::byte> bytes) = 0;
  // Appends at the current end. One thread.
  virtual Status append(std::span<const std::byte> bytes) = 0;
  virtual Status truncate(uint64_t size) = 0;
  // Reserves size bytes on disk (kExhausted when they are not there) and sets the file's size.
  virtual Status allocate(uint64_t size) = 0;
  // Starts writing out what is dirty and lets go of what is on disk already, so that a large output
  // neither fills memory nor waits for the next sync. A hint: promises nothing, and may run while
  // other threads write.
  virtual void write_behind() {}
  // Durable (F_FULLFSYNC on macOS). After an error the file's content is unknown: the caller must
  // rewrite it, never sync again.
  virtual Status sync() = 0;
};

enum class OpenMode { kCreateNew, kCreateOrOpen };

// An exclusive lock held while the object lives.
class LockFile {
 public:
  virtual ~LockFile() = default;
};

// Thread-safe. Paths are absolute or relative to the working directory.
class Storage {
 public:
  virtual ~Storage() = default;
  virtual Result<std::unique_ptr<WritableFile>> open(const std::string& path, OpenMode mode) = 0;
  virtual Result<std::shared_ptr<ByteSource>> open_source(const std::string& path) = 0;
  virtual bool exists(const std::string& path) = 0;
  // Bare names of everything in the folder, sorted. This one asks the real file system.
  virtual Result<std::vector<std::string>> list_directory(const std::string& path);
  virtual Status create_directory(const std::string& path) = 0;
  virtual Status rename(const std::string& from, const std::string& to) = 0;
  virtual Status remove(const std::string& path) = 0;
  virtual Status sync_directory(const std::string& path) = 0;
  virtual Result<uint64_t> free_bytes(const std::string& path) = 0;
  // Fails with kIo naming the path when another process holds it.
  virtual Result<std::unique_ptr<LockFile>> lock(const std::string& path) = 0;
};

// The real one.
std::unique_ptr<Storage> local_storage();

// What write_file_atomically adds to the name of a file that is not complete.
inline constexpr std::string_view kUnfinishedSuffix = ".tmp";

// The folder a path lies in, to be synced after a rename there: "a/b" → "a/", "b" → ".".
std::string parent_folder(const std::string& path);

// Write to path.tmp, sync, rename, sync the directory: the file is the old one or the new one.
Status write_file_atomically(Storage& storage, const std::string& path, std::string_view text);

}  // namespace sluice::io
