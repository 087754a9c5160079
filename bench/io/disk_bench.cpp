// What the disk gives, by way of asking: reads by size, depth and mode, and ways of writing a large
// file without leaving it in the page cache. It decides constants in core/io and prepare/stream.
//
//   disk_bench FOLDER [GIBIBYTES]     writes a file of that size there (default 2), and removes it
//
// CSV on stdout. Every figure is the median of three runs from a cold cache.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"

namespace {

using sluice::Stopwatch;

constexpr size_t kPage = 4096;

#ifdef O_DIRECT
constexpr int kDirectFlag = O_DIRECT;
#else
constexpr int kDirectFlag = 0;
#endif

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "disk_bench: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

double cpu_seconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

class Buffer {
 public:
  explicit Buffer(size_t bytes) : data_(static_cast<char*>(std::aligned_alloc(kPage, bytes))) {
    std::memset(data_, 1, bytes);
  }
  ~Buffer() { std::free(data_); }
  char* data() { return data_; }

 private:
  char* data_;
};

class File {
 public:
  File(const std::string& path, int flags) : fd_(::open(path.c_str(), flags, 0644)) {
    if (fd_ < 0) die(path.c_str());
  }
  ~File() { ::close(fd_); }
  int get() const { return fd_; }

 private:
  int fd_;
};

void evict(int fd) {
#ifdef POSIX_FADV_DONTNEED
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
#else
  (void)fd;
#endif
}

struct Figure {
  double seconds, cpu;
};

template <class Function>
Figure median_of_three(Function run) {
  std::vector<Figure> figures;
  for (int i = 0; i < 3; ++i) {
    const double cpu = cpu_seconds();
    const Stopwatch watch;
    run();
    figures.push_back({watch.seconds(), cpu_seconds() - cpu});
  }
  std::sort(figures.begin(), figures.end(),
            [](const Figure& a, const Figure& b) { return a.seconds < b.seconds; });
  return figures[1];
}

void print(const char* operation, const char* mode, size_t size, unsigned depth, uint64_t bytes,
           const Figure& figure) {
  const double gigabytes = static_cast<double>(bytes) / 1e9;
  std::printf("%s,%s,%zu,%u,%.3f,%.3f\n", operation, mode, size, depth, gigabytes / figure.seconds,
              figure.cpu / gigabytes);
  std::fflush(stdout);
}

// Calls transfer(offset, worker's buffer) for every multiple of size in [0, bytes).
template <class Transfer>
void in_parallel(uint64_t bytes, size_t size, unsigned depth, Transfer transfer) {
  std::atomic<uint64_t> next{0};
  std::vector<sluice::Thread> threads;
  for (unsigned i = 0; i < depth; ++i)
    threads.emplace_back([&] {
      Buffer buffer(size);
      for (uint64_t at = next.fetch_add(size); at < bytes; at = next.fetch_add(size))
        transfer(at, buffer.data());
    });
}

void bench_reads(const std::string& path, uint64_t bytes) {
  for (const bool direct : {true, false}) {
    const File file(path, O_RDONLY | (direct ? kDirectFlag : 0));
    for (const size_t size : {128u << 10, 256u << 10, 512u << 10, 1u << 20, 2u << 20, 4u << 20})
      for (const unsigned depth : {1u, 2u, 4u, 8u}) {
        const Figure figure = median_of_three([&] {
          evict(file.get());
          in_parallel(bytes, size, depth, [&](uint64_t at, char* out) {
            if (::pread(file.get(), out, size, static_cast<off_t>(at)) <= 0) die("pread");
          });
        });
        print("read", direct ? "direct" : "buffered", size, depth, bytes, figure);
      }
  }
}

enum class WriteMode { kDirect, kPlain, kBehind };

// kBehind is what conversion does: after every few megabytes, start writing what is dirty and drop
// what is clean.
void write_file(const std::string& path, uint64_t bytes, size_t size, unsigned depth,
                WriteMode mode) {
  ::unlink(path.c_str());
  const File file(path, O_RDWR | O_CREAT | (mode == WriteMode::kDirect ? kDirectFlag : 0));
#ifdef __linux__
  if (::fallocate(file.get(), 0, 0, static_cast<off_t>(bytes)) != 0 && errno != EOPNOTSUPP)
    die("fallocate");
#endif
  constexpr uint64_t kStep = 16u << 20;
  std::atomic<uint64_t> written{0};
  in_parallel(bytes, size, depth, [&](uint64_t at, char* out) {
    if (::pwrite(file.get(), out, size, static_cast<off_t>(at)) != static_cast<ssize_t>(size))
      die("pwrite");
    const uint64_t before = written.fetch_add(size);
    if (mode != WriteMode::kBehind || before / kStep == (before + size) / kStep) return;
#ifdef __linux__
    ::sync_file_range(file.get(), 0, 0, SYNC_FILE_RANGE_WRITE);
#endif
    evict(file.get());
  });
  if (::fsync(file.get()) != 0) die("fsync");
  if (mode == WriteMode::kBehind) evict(file.get());
}

void bench_writes(const std::string& path, uint64_t bytes) {
  constexpr std::pair<WriteMode, const char*> modes[] = {{WriteMode::kDirect, "direct"},
                                                         {WriteMode::kPlain, "buffered"},
                                                         {WriteMode::kBehind, "write-behind"}};
  for (const auto& [mode, name] : modes)
    for (const size_t size : {128u << 10, 1u << 20})
      for (const unsigned depth : {1u, 2u, 4u}) {
        const Figure figure = median_of_three([&] { write_file(path, bytes, size, depth, mode); });
        print("write", name, size, depth, bytes, figure);
      }
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) {
    std::fprintf(stderr, "disk_bench FOLDER [GIBIBYTES]\n");
    return 2;
  }
  const std::string path = std::string(arguments[1]) + "/sluice-disk-bench";
  const uint64_t bytes = uint64_t(count > 2 ? std::atoi(arguments[2]) : 2) << 30;
  std::printf("operation,mode,bytes,depth,gb_per_s,cpu_s_per_gb\n");
  bench_writes(path, bytes);
  bench_reads(path, bytes);
  ::unlink(path.c_str());
  return 0;
}
