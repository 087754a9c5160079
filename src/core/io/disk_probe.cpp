#include "io/disk_probe.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/thread.h"
#include "io/aligned_buffer.h"
#include "io/directory.h"
#include "io/posix.h"
#include "io/read_ring.h"

namespace sluice::io {
namespace {

constexpr uint64_t kReadBytes = 2ull << 20;
constexpr unsigned kReaders = 4;
constexpr uint64_t kTemporaryBytes = 64ull << 20;
// Smaller files are over before the disk is at speed.
constexpr uint64_t kFileBytesMin = 32ull << 20;

struct Freed {
  void operator()(void* memory) const { std::free(memory); }
};
using Buffer = std::unique_ptr<std::byte, Freed>;
Buffer make_buffer() {
  return Buffer(static_cast<std::byte*>(std::aligned_alloc(kDirectAlignment, kReadBytes)));
}

// The pieces of one file in order, until the time is up. take() and add() are thread-safe.
class Pieces {
 public:
  Pieces(uint64_t count, double seconds_max) : count_(count), seconds_max_(seconds_max) {}

  std::optional<uint64_t> take() {
    if (failed_ || watch_.seconds() >= seconds_max_) return std::nullopt;
    const uint64_t piece = next_.fetch_add(1);
    return piece < count_ ? std::optional(piece * kReadBytes) : std::nullopt;
  }
  void add(int64_t bytes) {
    if (bytes > 0)
      bytes_ += static_cast<uint64_t>(bytes);
    else
      failed_ = true;
  }
  bool failed() const { return failed_; }
  uint64_t bytes() const { return bytes_; }
  double seconds() const { return watch_.seconds(); }

 private:
  const uint64_t count_;
  const double seconds_max_;
  const Stopwatch watch_;
  std::atomic<uint64_t> next_{0}, bytes_{0};
  std::atomic<bool> failed_{false};
};

void read_by_threads(int fd, Pieces& pieces) {
  std::vector<Thread> readers;
  for (unsigned i = 0; i < kReaders; ++i)
    readers.emplace_back([fd, &pieces] {
      const Buffer buffer = make_buffer();
      while (buffer != nullptr) {
        const auto offset = pieces.take();
        if (!offset) return;
        pieces.add(::pread(fd, buffer.get(), kReadBytes, static_cast<off_t>(*offset)));
      }
    });
}

// As many under way as threads would have, so that the two ways differ in nothing else.
void read_by_ring(ReadRing& ring, const ByteSource& source, Pieces& pieces) {
  std::vector<Buffer> buffers;
  for (unsigned i = 0; i < kReaders; ++i) buffers.push_back(make_buffer());
  const auto read_next = [&](uint64_t buffer) {
    const auto offset = pieces.take();
    if (!offset) return;
    if (buffers[buffer] == nullptr ||
        !ring.add(source, *offset, buffers[buffer].get(), kReadBytes, buffer))
      return pieces.add(-1);
    ring.start();
  };
  for (uint64_t i = 0; i < kReaders; ++i) read_next(i);
  while (ring.under_way() > 0) {
    const auto ended = ring.next(true);
    if (!ended) return pieces.add(-1);
    pieces.add(ended->bytes);
    read_next(ended->tag);
  }
}

// Nothing: this system, or the file system, has no such way.
Result<std::optional<DiskProbe>> probe_path(const std::string& file, DiskPath path,
                                            double seconds_max) {
  SLUICE_ASSIGN(const FileDescriptor cached, open_descriptor(file, O_RDONLY | O_NONBLOCK));
  SLUICE_ASSIGN(const FileState state, regular_file_state(cached.get(), file));
  if (state.bytes < kReadBytes)
    return fail(ErrorCode::kInvalidArgument, "{}: of {} bytes, too small to measure", file,
                state.bytes);
  const FileDescriptor direct = path == DiskPath::kDirect ? open_direct(file) : FileDescriptor();
  if (path == DiskPath::kDirect && direct.get() < 0) return std::nullopt;
  std::unique_ptr<ReadRing> ring;
  std::shared_ptr<ByteSource> source;
  if (path == DiskPath::kRing) {
    auto made = make_read_ring(kReaders);
    SLUICE_ASSIGN(source, open_file_source(file, nullptr, {.file_bytes_min = 0}));
    if (!made || source->direct_descriptor() == nullptr) return std::nullopt;
    ring = std::move(*made);
  }
  drop_cached(cached.get(), 0, state.bytes);
  const double cpu = cpu_seconds();
  Pieces pieces(state.bytes / kReadBytes, seconds_max);
  if (ring != nullptr)
    read_by_ring(*ring, *source, pieces);
  else
    read_by_threads(path == DiskPath::kDirect ? direct.get() : cached.get(), pieces);
  DiskProbe probe{.path = path, .file = file};
  probe.seconds = pieces.seconds();
  probe.cpu_s = cpu_seconds() - cpu;
  probe.bytes = pieces.bytes();
  drop_cached(cached.get(), 0, state.bytes);
  if (pieces.failed() && path != DiskPath::kCached) return std::nullopt;
  if (pieces.failed() || probe.bytes == 0) return fail(ErrorCode::kIo, "{}: reading failed", file);
  return probe;
}

Result<std::vector<DiskProbe>> probe_file(const std::string& file,
                                          const std::vector<DiskPath>& paths, double seconds_max) {
  std::vector<DiskProbe> probes;
  for (const DiskPath path : paths) {
    SLUICE_ASSIGN(auto probe, probe_path(file, path, seconds_max));
    if (probe) probes.push_back(std::move(*probe));
  }
  return probes;
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

Result<std::vector<DiskProbe>> probe_temporary(const std::string& folder,
                                               const std::vector<DiskPath>& paths,
                                               double seconds_max) {
  const std::string path = folder + "/.sluice-doctor.tmp";
  // Ours alone: one that is there already is an error, and stays.
  SLUICE_ASSIGN(const FileDescriptor fd, open_descriptor(path, O_RDWR | O_CREAT | O_EXCL, 0600));
  const Status written = write_noise(fd.get(), path);
  Result<std::vector<DiskProbe>> probes = std::vector<DiskProbe>();
  if (written)
    probes = probe_file(path, paths, seconds_max);
  else
    probes = std::unexpected(written.error());
  ::unlink(path.c_str());
  if (probes)
    for (DiskProbe& probe : *probes) probe.written = true;
  return probes;
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

std::string_view disk_path_name(DiskPath path) {
  switch (path) {
    case DiskPath::kRing: return "io_uring";
    case DiskPath::kDirect: return "direct";
    case DiskPath::kCached: break;
  }
  return "cached";
}

Result<std::vector<DiskProbe>> probe_disk(const std::string& target,
                                          const std::vector<DiskPath>& paths, double seconds_max) {
  struct stat info;
  if (::stat(target.c_str(), &info) != 0) return system_error(errno, "stat", target);
  if (!S_ISDIR(info.st_mode)) return probe_file(target, paths, seconds_max);
  SLUICE_ASSIGN(const std::vector<std::string> names, list_directory(target));
  const std::string file = largest_file(target, names);
  return file.empty() ? probe_temporary(target, paths, seconds_max)
                      : probe_file(file, paths, seconds_max);
}

}  // namespace sluice::io
