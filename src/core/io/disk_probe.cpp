#include "io/disk_probe.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "base/thread.h"
#include "io/directory.h"
#include "io/posix.h"

namespace sluice::io {
namespace {

constexpr uint64_t kReadBytes = 2ull << 20;
constexpr size_t kAlignment = 4096;
constexpr unsigned kReaders = 4;
constexpr uint64_t kTemporaryBytes = 64ull << 20;
// Smaller files are over before the disk is at speed.
constexpr uint64_t kFileBytesMin = 32ull << 20;

struct OpenFile {
  FileDescriptor fd;
  bool direct = false;
};

Result<OpenFile> open_for_probe(const std::string& path) {
#if defined(O_DIRECT)
  if (auto fd = open_descriptor(path, O_RDONLY | O_DIRECT)) return OpenFile{std::move(*fd), true};
#endif
  SLUICE_ASSIGN(FileDescriptor fd, open_descriptor(path, O_RDONLY));
#if defined(F_NOCACHE)
  const bool direct = ::fcntl(fd.get(), F_NOCACHE, 1) == 0;
#else
  const bool direct = false;
#endif
#if defined(POSIX_FADV_DONTNEED)
  ::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED);
#endif
  return OpenFile{std::move(fd), direct};
}

struct Freed {
  void operator()(void* memory) const { std::free(memory); }
};
using Buffer = std::unique_ptr<std::byte, Freed>;

// Readers take the pieces of one file in order until the time is up. read_pieces is thread-safe.
class Reading {
 public:
  Reading(int fd, uint64_t pieces, double seconds_max)
      : fd_(fd), pieces_(pieces), seconds_max_(seconds_max) {}

  void read_pieces() {
    const Buffer buffer(static_cast<std::byte*>(std::aligned_alloc(kAlignment, kReadBytes)));
    if (buffer == nullptr) return;
    while (watch_.seconds() < seconds_max_) {
      const uint64_t piece = next_.fetch_add(1);
      if (piece >= pieces_) return;
      const ssize_t got =
          ::pread(fd_, buffer.get(), kReadBytes, static_cast<off_t>(piece * kReadBytes));
      if (got <= 0) {
        failed_ = true;
        return;
      }
      bytes_ += static_cast<uint64_t>(got);
    }
  }

  bool failed() const { return failed_; }
  uint64_t bytes() const { return bytes_; }
  double seconds() const { return watch_.seconds(); }

 private:
  const int fd_;
  const uint64_t pieces_;
  const double seconds_max_;
  const Stopwatch watch_;
  std::atomic<uint64_t> next_{0}, bytes_{0};
  std::atomic<bool> failed_{false};
};

Result<DiskProbe> probe_file(const std::string& path, double seconds_max) {
  SLUICE_ASSIGN(const OpenFile file, open_for_probe(path));
  SLUICE_ASSIGN(const FileState state, regular_file_state(file.fd.get(), path));
  DiskProbe probe;
  probe.file = path;
  probe.direct = file.direct;
  Reading reading(file.fd.get(), state.bytes / kReadBytes, seconds_max);
  {
    std::vector<Thread> readers;
    for (unsigned i = 0; i < kReaders; ++i)
      readers.emplace_back([&reading] { reading.read_pieces(); });
  }
  probe.seconds = reading.seconds();
  probe.bytes = reading.bytes();
  if (reading.failed()) return fail(ErrorCode::kIo, "{}: reading failed", path);
  if (probe.bytes == 0)
    return fail(ErrorCode::kInvalidArgument, "{}: of {} bytes, too small to measure", path,
                state.bytes);
  return probe;
}

// Bytes that no file system stores as a hole or compresses away.
std::vector<std::byte> noise() {
  std::vector<std::byte> bytes(kReadBytes);
  uint64_t state = 0x9e3779b97f4a7c15ull;
  for (std::byte& byte : bytes) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    byte = static_cast<std::byte>(state >> 56);
  }
  return bytes;
}

Status write_noise(int fd, const std::string& path) {
  const std::vector<std::byte> bytes = noise();
  for (uint64_t at = 0; at < kTemporaryBytes; at += bytes.size())
    SLUICE_TRY(write_fully(fd, at, bytes, path));
  if (::fsync(fd) != 0) return system_error(errno, "sync", path);
  return {};
}

Result<DiskProbe> probe_temporary(const std::string& folder, double seconds_max) {
  const std::string path = folder + "/.sluice-doctor.tmp";
  // Ours alone: one that is there already is an error, and stays.
  SLUICE_ASSIGN(const FileDescriptor fd, open_descriptor(path, O_RDWR | O_CREAT | O_EXCL, 0600));
  const Status written = write_noise(fd.get(), path);
  auto probe =
      written ? probe_file(path, seconds_max) : Result<DiskProbe>(std::unexpected(written.error()));
  ::unlink(path.c_str());
  if (probe) probe->written = true;
  return probe;
}

// Empty when no file in the folder is large enough.
std::string largest_file(const std::string& folder, const std::vector<std::string>& names) {
  std::string largest;
  uint64_t bytes = kFileBytesMin - 1;
  for (const std::string& name : names) {
    const std::string path = fmt::format("{}/{}", folder, name);
    struct stat info;
    if (::stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
    if (static_cast<uint64_t>(info.st_size) <= bytes) continue;
    bytes = static_cast<uint64_t>(info.st_size);
    largest = path;
  }
  return largest;
}

}  // namespace

Result<DiskProbe> probe_disk(const std::string& path, double seconds_max) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) return system_error(errno, "stat", path);
  if (!S_ISDIR(info.st_mode)) return probe_file(path, seconds_max);
  SLUICE_ASSIGN(const std::vector<std::string> names, list_directory(path));
  const std::string file = largest_file(path, names);
  return file.empty() ? probe_temporary(path, seconds_max) : probe_file(file, seconds_max);
}

}  // namespace sluice::io
