// Thin POSIX calls with their errors told in full.
#include "io/posix.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <system_error>

namespace sluice::io {
namespace {

// macOS refuses single transfers of 2 GiB and more; Linux shortens them.
constexpr size_t kTransferBytesMax = size_t{1} << 30;

}  // namespace

FileDescriptor::~FileDescriptor() {
  // Whoever needs the data on disk has synced it; close has nothing left to report.
  if (fd_ >= 0) ::close(fd_);
}

std::unexpected<Error> system_error(int error, std::string_view action, std::string_view path) {
  ErrorCode code = ErrorCode::kIo;
  switch (error) {
    case ENOENT:
    case ENOTDIR: code = ErrorCode::kNotFound; break;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case ENOMEM: code = ErrorCode::kExhausted; break;
    default: break;
  }
  return fail(code, "{}: {} failed: {}", path, action, std::generic_category().message(error));
}

Result<FileDescriptor> open_descriptor(const std::string& path, int flags, unsigned mode) {
  if (path.find('\0') != std::string::npos)
    return fail(ErrorCode::kInvalidArgument, "{}: a path cannot contain a NUL byte", path.c_str());
  int fd;
  do {
    fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return system_error(errno, "open", path);
  return FileDescriptor(fd);
}

Status read_fully(int fd, uint64_t offset, std::span<std::byte> out, std::string_view path) {
  while (!out.empty()) {
    const ssize_t count = ::pread(fd, out.data(), std::min(out.size(), kTransferBytesMax),
                                  static_cast<off_t>(offset));
    if (count < 0) {
      if (errno == EINTR) continue;
      const int error = errno;
      return system_error(error, fmt::format("reading {} bytes at offset {}", out.size(), offset),
                          path);
    }
    if (count == 0)
      return fail(ErrorCode::kCorrupt,
                  "{}: the file ends at offset {}, {} bytes more were expected there", path, offset,
                  out.size());
    out = out.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  return {};
}

Status write_fully(int fd, uint64_t offset, std::span<const std::byte> bytes,
                   std::string_view path) {
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(fd, bytes.data(), std::min(bytes.size(), kTransferBytesMax),
                                   static_cast<off_t>(offset));
    if (count < 0) {
      if (errno == EINTR) continue;
      const int error = errno;
      return system_error(error, fmt::format("writing {} bytes at offset {}", bytes.size(), offset),
                          path);
    }
    if (count == 0)  // would be tried for ever
      return fail(ErrorCode::kIo, "{}: writing {} bytes at offset {} wrote nothing", path,
                  bytes.size(), offset);
    bytes = bytes.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  return {};
}

Result<FileState> regular_file_state(int fd, std::string_view path) {
  struct stat info;
  if (::fstat(fd, &info) != 0) return system_error(errno, "stat", path);
  if (!S_ISREG(info.st_mode)) return fail(ErrorCode::kUnsupported, "{}: not a regular file", path);
#if defined(__APPLE__)
  const timespec& modified = info.st_mtimespec;
#else
  const timespec& modified = info.st_mtim;
#endif
  return FileState{static_cast<uint64_t>(info.st_size),
                   int64_t{modified.tv_sec} * 1'000'000'000 + modified.tv_nsec};
}

}  // namespace sluice::io
