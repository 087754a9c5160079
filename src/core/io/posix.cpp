// Thin POSIX calls with their errors told in full.
#include "io/posix.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "io/aligned_buffer.h"

namespace sluice::io {
namespace {

// macOS refuses single transfers of 2 GiB and more; Linux shortens them.
constexpr size_t kTransferBytesMax = size_t{1} << 30;
// Of a direct read into memory that cannot take it in place.
constexpr size_t kBounceBytes = 256 << 10;

struct alignas(kDirectAlignment) AlignedPage {
  std::byte bytes[kDirectAlignment];
};

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

FileDescriptor open_direct([[maybe_unused]] const std::string& path) {
#if defined(__linux__)
  return std::move(open_descriptor(path, O_RDONLY | O_NONBLOCK | O_DIRECT))
      .value_or(FileDescriptor());
#elif defined(__APPLE__)
  auto opened = open_descriptor(path, O_RDONLY | O_NONBLOCK);
  if (opened && ::fcntl(opened->get(), F_NOCACHE, 1) == 0) return std::move(*opened);
  return {};
#else
  return {};
#endif
}

namespace {

bool is_refusal(int error) {
  return error == EINVAL || error == EOPNOTSUPP || error == ENOTSUP || error == ENOSYS;
}

// Whole pages around [offset, offset + out.size()) in one call: those that are wholly in out go
// there, the first and the last through ends. Returns pread's count, from the start of the first
// page, or −1 with errno.
ssize_t read_pages(int fd, uint64_t offset, std::span<std::byte> out,
                   std::array<AlignedPage, 2>& ends) {
  const size_t head = offset % kDirectAlignment;
  const size_t head_bytes = head == 0 ? 0 : std::min(kDirectAlignment - head, out.size());
  const size_t tail_bytes = (out.size() - head_bytes) % kDirectAlignment;
  const size_t middle = out.size() - head_bytes - tail_bytes;
  iovec parts[3];
  int count = 0;
  if (head_bytes > 0) parts[count++] = {ends[0].bytes, kDirectAlignment};
  if (middle > 0) parts[count++] = {out.data() + head_bytes, middle};
  if (tail_bytes > 0) parts[count++] = {ends[1].bytes, kDirectAlignment};
  const ssize_t got = ::preadv(fd, parts, count, static_cast<off_t>(offset - head));
  if (got <= 0) return got;
  std::memcpy(out.data(), ends[0].bytes + head, head_bytes);
  std::memcpy(out.data() + head_bytes + middle, ends[1].bytes, tail_bytes);
  return got;
}

}  // namespace

Result<size_t> read_direct(int fd, uint64_t offset, std::span<std::byte> out,
                           std::string_view path) {
  std::array<AlignedPage, 2> ends;
  AlignedBuffer bounce;
  size_t done = 0;
  while (done < out.size()) {
    const uint64_t at = offset + done;
    std::span<std::byte> rest =
        out.subspan(done).first(std::min(out.size() - done, kTransferBytesMax));
    const bool in_place =
        reinterpret_cast<uintptr_t>(rest.data()) % kDirectAlignment == at % kDirectAlignment;
    if (!in_place) rest = bounce.place(std::min(rest.size(), kBounceBytes), at);
    const ssize_t count = read_pages(fd, at, rest, ends);
    if (count < 0) {
      const int error = errno;
      if (error == EINTR) continue;
      if (is_refusal(error)) return done;
      return system_error(error, fmt::format("reading {} bytes at offset {}", rest.size(), at),
                          path);
    }
    const size_t head = at % kDirectAlignment;
    // Nothing new: the file has become shorter, which the ordinary read tells in full.
    if (static_cast<size_t>(count) <= head) return done;
    const size_t fresh = std::min(static_cast<size_t>(count) - head, rest.size());
    if (!in_place) std::memcpy(out.data() + done, rest.data(), fresh);
    done += fresh;
  }
  return done;
}

void expect_scattered_reads([[maybe_unused]] int fd) {
#if defined(__linux__)
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
#endif
}

void drop_cached([[maybe_unused]] int fd, [[maybe_unused]] uint64_t offset,
                 [[maybe_unused]] uint64_t bytes) {
#if defined(__linux__)
  // Pages that are only partly in the range would stay. No bytes: to the end of the file.
  static const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t from = offset / page * page;
  if (bytes != 0) bytes = (offset - from + bytes + page - 1) / page * page;
  ::posix_fadvise(fd, static_cast<off_t>(from), static_cast<off_t>(bytes), POSIX_FADV_DONTNEED);
#endif
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
                   int64_t{modified.tv_sec} * 1'000'000'000 + modified.tv_nsec,
                   static_cast<uint64_t>(info.st_dev), static_cast<uint64_t>(info.st_ino)};
}

}  // namespace sluice::io
