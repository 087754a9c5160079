// Local files behind the Storage interface: POSIX calls, with the durable forms of each system.
#include "io/storage.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "io/descriptor_cache.h"
#include "io/directory.h"
#include "io/posix.h"

namespace sluice::io {
namespace {

int sync_descriptor(int fd) {
  int result;
#ifdef __APPLE__
  // fsync on macOS stops at the drive's cache. Network volumes lack F_FULLFSYNC.
  do {
    result = ::fcntl(fd, F_FULLFSYNC);
  } while (result != 0 && errno == EINTR);
  if (result == 0 || (errno != ENOTSUP && errno != EINVAL && errno != ENOTTY)) return result;
#endif
  do {
    result = ::fsync(fd);
  } while (result != 0 && errno == EINTR);
  return result;
}

Status resize(int fd, uint64_t size, const std::string& path) {
  int result;
  do {
    result = ::ftruncate(fd, static_cast<off_t>(size));
  } while (result != 0 && errno == EINTR);
  if (result != 0) return system_error(errno, fmt::format("resizing to {} bytes", size), path);
  return {};
}

// Asks for real blocks where the file system can promise them; elsewhere the file stays sparse and
// a full disk shows at a write.
Status reserve(int fd, uint64_t size, const std::string& path) {
  if (size == 0) return {};
#ifdef __APPLE__
  struct stat info;
  if (::fstat(fd, &info) != 0) return system_error(errno, "stat", path);
  const auto missing = static_cast<off_t>(size) - info.st_blocks * 512;
  if (missing <= 0) return {};
  fstore_t store = {F_ALLOCATEALL, F_PEOFPOSMODE, 0, missing, 0};
  if (::fcntl(fd, F_PREALLOCATE, &store) == 0) return {};
#else
  int result;
  do {
    result = ::fallocate(fd, 0, 0, static_cast<off_t>(size));
  } while (result != 0 && errno == EINTR);
  if (result == 0) return {};
#endif
  if (errno == EOPNOTSUPP || errno == ENOTSUP || errno == ENOSYS || errno == EINVAL) return {};
  return system_error(errno, fmt::format("reserving {} bytes", size), path);
}

class LocalFile : public WritableFile {
 public:
  LocalFile(FileDescriptor fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {
#ifdef __APPLE__
    (void)::fcntl(fd_.get(), F_NOCACHE, 1);  // what write_behind is for elsewhere
#endif
  }

  Status write_at(uint64_t offset, std::span<const std::byte> bytes) override {
    return write_fully(fd_.get(), offset, bytes, path_);
  }
  Status append(std::span<const std::byte> bytes) override {
    SLUICE_ASSIGN(const FileState state, regular_file_state(fd_.get(), path_));
    return write_fully(fd_.get(), state.bytes, bytes, path_);
  }
  Status truncate(uint64_t size) override { return resize(fd_.get(), size, path_); }
  Status allocate(uint64_t size) override {
    SLUICE_TRY(reserve(fd_.get(), size, path_));
    return resize(fd_.get(), size, path_);
  }
  void write_behind() override {
#ifdef __linux__
    // Only starts: waiting here would take note of errors that a later sync has to return.
    (void)::sync_file_range(fd_.get(), 0, 0, SYNC_FILE_RANGE_WRITE);
#endif
    drop_cached(fd_.get(), 0, 0);
  }
  Status sync() override {
    // The kernel marks pages clean after a failed sync, so a second one would succeed and lie.
    if (sync_failed_)
      return fail(ErrorCode::kIo, "{}: an earlier sync failed, the file must be rewritten", path_);
    if (sync_descriptor(fd_.get()) == 0) return {};
    sync_failed_ = true;
    return system_error(errno, "sync", path_);
  }

 private:
  const FileDescriptor fd_;
  const std::string path_;
  bool sync_failed_ = false;
};

class LocalLock : public LockFile {
 public:
  explicit LocalLock(FileDescriptor fd) : fd_(std::move(fd)) {}

 private:
  const FileDescriptor fd_;  // closing releases the lock
};

// Whether the open file is the one that path leads to.
Result<bool> is_named(int fd, const std::string& path) {
  struct stat open, named;
  if (::fstat(fd, &open) != 0) return system_error(errno, "stat", path);
  if (::stat(path.c_str(), &named) == 0)
    return open.st_dev == named.st_dev && open.st_ino == named.st_ino;
  if (errno == ENOENT) return false;
  return system_error(errno, "stat", path);
}

class LocalStorage : public Storage {
 public:
  Result<std::unique_ptr<WritableFile>> open(const std::string& path, OpenMode mode) override {
    const int flags = O_RDWR | O_CREAT | (mode == OpenMode::kCreateNew ? O_EXCL : 0);
    SLUICE_ASSIGN(FileDescriptor fd, open_descriptor(path, flags, 0666));
    return std::make_unique<LocalFile>(std::move(fd), path);
  }

  Result<std::shared_ptr<ByteSource>> open_source(const std::string& path) override {
    return open_file_source(path, descriptors_);
  }

  bool exists(const std::string& path) override {
    struct stat info;
    // What cannot be asked for (an I/O error) must not be taken for absent and overwritten.
    return ::lstat(path.c_str(), &info) == 0 || (errno != ENOENT && errno != ENOTDIR);
  }

  Status create_directory(const std::string& path) override {
    if (::mkdir(path.c_str(), 0777) == 0) return {};
    const int error = errno;
    struct stat info;
    if (error == EEXIST && ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) return {};
    return system_error(error, "creating the folder", path);
  }

  Status rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) == 0) return {};
    return system_error(errno, fmt::format("renaming to {}", to), from);
  }

  Status remove(const std::string& path) override {
    if (std::remove(path.c_str()) == 0) return {};
    return system_error(errno, "removing", path);
  }

  Status sync_directory(const std::string& path) override {
    SLUICE_ASSIGN(FileDescriptor fd, open_descriptor(path, O_RDONLY | O_DIRECTORY));
    // Some file systems (FUSE, SMB) cannot sync a folder and need not.
    if (sync_descriptor(fd.get()) == 0 || errno == EINVAL || errno == ENOTSUP) return {};
    return system_error(errno, "syncing the folder", path);
  }

  Result<uint64_t> free_bytes(const std::string& path) override {
    struct statvfs info;
    int result;
    do {
      result = ::statvfs(path.c_str(), &info);
    } while (result != 0 && errno == EINTR);
    if (result != 0) return system_error(errno, "asking for free space", path);
    return uint64_t{info.f_bavail} * uint64_t{info.f_frsize};
  }

  // A lock file may be removed by its holder between our open and our lock; what is locked then has
  // no name and keeps nobody out, so the next one is tried.
  Result<std::unique_ptr<LockFile>> lock(const std::string& path) override {
    while (true) {
      SLUICE_ASSIGN(FileDescriptor fd, open_descriptor(path, O_RDWR | O_CREAT, 0666));
      int result;
      do {
        result = ::flock(fd.get(), LOCK_EX | LOCK_NB);
      } while (result != 0 && errno == EINTR);
      if (result != 0 && errno == EWOULDBLOCK)
        return fail(ErrorCode::kIo, "{}: locked by another process that is working there", path);
      if (result != 0) return system_error(errno, "locking", path);
      SLUICE_ASSIGN(const bool named, is_named(fd.get(), path));
      if (named) return std::make_unique<LocalLock>(std::move(fd));
    }
  }

 private:
  const std::shared_ptr<DescriptorCache> descriptors_ = std::make_shared<DescriptorCache>();
};

Status write_and_sync(Storage& storage, const std::string& path, std::string_view text) {
  SLUICE_ASSIGN(const auto file, storage.open(path, OpenMode::kCreateOrOpen));
  SLUICE_TRY(file->truncate(0));
  SLUICE_TRY(file->write_at(0, std::as_bytes(std::span(text))));
  return file->sync();
}

}  // namespace

Result<std::vector<std::string>> Storage::list_directory(const std::string& path) {
  return io::list_directory(path);
}

std::unique_ptr<Storage> local_storage() { return std::make_unique<LocalStorage>(); }

std::string parent_folder(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

Status write_file_atomically(Storage& storage, const std::string& path, std::string_view text) {
  const std::string temporary = path + std::string(kUnfinishedSuffix);
  Status status = write_and_sync(storage, temporary, text);
  if (status) status = storage.rename(temporary, path);
  if (!status) {
    // The first error is the one to tell; a leftover is overwritten by the next attempt.
    (void)storage.remove(temporary);
    return status;
  }
  return storage.sync_directory(parent_folder(path));
}

}  // namespace sluice::io
