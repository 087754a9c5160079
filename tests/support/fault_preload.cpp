// Loaded with LD_PRELOAD into the real program (Linux, tests only): counts the system calls that
// touch files below a folder, and at a chosen one kills the process, lets the call fail, or makes
// it transfer less than asked. tests/cli/faults.py drives it. Settings come from the environment:
//
//   SLUICE_FAULT_ROOT  folder; calls on paths or descriptors below it are counted
//   SLUICE_FAULT_OPS   comma-separated names of the calls to count (default: all)
//   SLUICE_FAULT_AT    which of them, counted from 1 (0: none)
//   SLUICE_FAULT_KIND  kill-before, kill-after, short, or an errno as a number
//   SLUICE_FAULT_MODE  once (default), always (from then on), or half (from then on, every other)
//   SLUICE_FAULT_LOG   file that gets a line "N operation verdict path" for every counted call
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

enum class Verdict { kPass, kFail, kShort, kKillAfter };

struct Settings {
  const char* root = getenv("SLUICE_FAULT_ROOT");
  const char* operations = getenv("SLUICE_FAULT_OPS");
  unsigned long at = 0;
  bool kill_before = false, kill_after = false, shorten = false, always = false, half = false;
  int error = 0;
  int log = -1;

  Settings() {
    if (const char* text = getenv("SLUICE_FAULT_AT")) at = strtoul(text, nullptr, 10);
    if (const char* kind = getenv("SLUICE_FAULT_KIND")) {
      kill_before = strcmp(kind, "kill-before") == 0;
      kill_after = strcmp(kind, "kill-after") == 0;
      shorten = strcmp(kind, "short") == 0;
      error = atoi(kind);
    }
    if (const char* mode = getenv("SLUICE_FAULT_MODE")) {
      always = strcmp(mode, "always") == 0;
      half = strcmp(mode, "half") == 0;
    }
    if (const char* path = getenv("SLUICE_FAULT_LOG"))
      log = static_cast<int>(
          syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  }

  bool counts(const char* operation) const {
    if (operations == nullptr || *operations == '\0') return true;
    const size_t length = strlen(operation);
    for (const char* word = operations; word != nullptr;) {
      if (strncmp(word, operation, length) == 0 && (word[length] == ',' || word[length] == '\0'))
        return true;
      word = strchr(word, ',');
      if (word != nullptr) ++word;
    }
    return false;
  }
};

// The library's constructors run before the program's, so this is ready when it is needed.
const Settings& settings() {
  static const Settings values;
  return values;
}

std::atomic<unsigned long> calls{0};

[[noreturn]] void die() {
  syscall(SYS_kill, getpid(), SIGKILL);
  while (true) pause();
}

Verdict judge(const char* operation, const char* path) {
  const Settings& s = settings();
  if (s.root == nullptr || path == nullptr) return Verdict::kPass;
  const size_t length = strlen(s.root);
  if (strncmp(path, s.root, length) != 0 || (path[length] != '/' && path[length] != '\0'))
    return Verdict::kPass;
  if (!s.counts(operation)) return Verdict::kPass;
  const unsigned long number = calls.fetch_add(1) + 1;
  bool hit = s.at != 0 && number == s.at;
  if (s.at != 0 && number > s.at) hit = s.always || (s.half && (number - s.at) % 2 == 0);
  if (s.log >= 0) {
    char line[PATH_MAX + 64];
    const int bytes = snprintf(line, sizeof line, "%lu %s %s %s\n", number, operation,
                               hit ? "hit" : "pass", path);
    (void)!syscall(SYS_write, s.log, line, bytes);
  }
  if (!hit) return Verdict::kPass;
  if (s.kill_before) die();
  if (s.kill_after) return Verdict::kKillAfter;
  return s.shorten ? Verdict::kShort : Verdict::kFail;
}

Verdict judge(const char* operation, int fd) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t length = syscall(SYS_readlink, link, path, sizeof path - 1);
  if (length <= 0) return Verdict::kPass;
  path[length] = '\0';
  return judge(operation, path);
}

// Direct transfers must stay multiples of a sector, as the kernel's own short ones do.
size_t shorter(int fd, size_t count) {
  const long flags = syscall(SYS_fcntl, fd, F_GETFL);
  const size_t unit = flags >= 0 && (flags & O_DIRECT) != 0 ? 4096 : 1;
  const size_t half = count / 2 / unit * unit;
  return half > 0 ? half : (count < unit ? count : unit);
}

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

// Runs the call unless it is to fail; failure is what the call returns then.
template <class Value, class Call>
Value carry_out(Verdict verdict, Value failure, Call&& call) {
  if (verdict == Verdict::kFail) {
    errno = settings().error;
    return failure;
  }
  const Value value = call();
  if (verdict == Verdict::kKillAfter) die();
  return value;
}

}  // namespace

// The parameters' names are those of the manual pages.
#define SLUICE_TRANSFER(name, operation, pointer, extra_parameter, extra_argument) \
  ssize_t name(int fd, pointer buffer, size_t count extra_parameter) {             \
    static auto* const real = next<decltype(name)>(#name);                         \
    const Verdict verdict = judge(operation, fd);                                  \
    if (verdict == Verdict::kShort) count = shorter(fd, count);                    \
    return carry_out(verdict, ssize_t{-1},                                         \
                     [&] { return real(fd, buffer, count extra_argument); });      \
  }
#define SLUICE_COMMA ,
#define SLUICE_PATH_CALL(name, operation, parameters, path, ...)                     \
  int name parameters {                                                              \
    static auto* const real = next<decltype(name)>(#name);                           \
    return carry_out(judge(operation, path), -1, [&] { return real(__VA_ARGS__); }); \
  }
#define SLUICE_PATH_CALL_NOEXCEPT(name, operation, parameters, path, ...)            \
  int name parameters noexcept {                                                     \
    static auto* const real = next<decltype(name)>(#name);                           \
    return carry_out(judge(operation, path), -1, [&] { return real(__VA_ARGS__); }); \
  }
#define SLUICE_OPEN(name)                                                                  \
  int name(const char* path, int flags, ...) {                                             \
    static auto* const real = next<decltype(name)>(#name);                                 \
    va_list list;                                                                          \
    va_start(list, flags);                                                                 \
    const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(list, mode_t) : 0;   \
    va_end(list);                                                                          \
    const char* operation = (flags & O_CREAT) != 0 ? "create" : "open";                    \
    return carry_out(judge(operation, path), -1, [&] { return real(path, flags, mode); }); \
  }

extern "C" {

SLUICE_TRANSFER(read, "read", void*, , )
SLUICE_TRANSFER(pread, "read", void*, SLUICE_COMMA off_t offset, SLUICE_COMMA offset)
SLUICE_TRANSFER(pread64, "read", void*, SLUICE_COMMA off64_t offset, SLUICE_COMMA offset)
SLUICE_TRANSFER(write, "write", const void*, , )
SLUICE_TRANSFER(pwrite, "write", const void*, SLUICE_COMMA off_t offset, SLUICE_COMMA offset)
SLUICE_TRANSFER(pwrite64, "write", const void*, SLUICE_COMMA off64_t offset, SLUICE_COMMA offset)

SLUICE_OPEN(open)
SLUICE_OPEN(open64)

SLUICE_PATH_CALL(fsync, "fsync", (int fd), fd, fd)
SLUICE_PATH_CALL(fdatasync, "fsync", (int fd), fd, fd)
SLUICE_PATH_CALL(sync_file_range, "sync_file_range",
                 (int fd, off64_t offset, off64_t count, unsigned flags), fd, fd, offset, count,
                 flags)
SLUICE_PATH_CALL(fallocate, "fallocate", (int fd, int mode, off_t offset, off_t length), fd, fd,
                 mode, offset, length)
SLUICE_PATH_CALL(fallocate64, "fallocate", (int fd, int mode, off64_t offset, off64_t length), fd,
                 fd, mode, offset, length)
SLUICE_PATH_CALL_NOEXCEPT(ftruncate, "ftruncate", (int fd, off_t length), fd, fd, length)
SLUICE_PATH_CALL_NOEXCEPT(ftruncate64, "ftruncate", (int fd, off64_t length), fd, fd, length)
SLUICE_PATH_CALL_NOEXCEPT(flock, "flock", (int fd, int operation), fd, fd, operation)
SLUICE_PATH_CALL_NOEXCEPT(fstat, "fstat", (int fd, struct stat* info), fd, fd, info)
SLUICE_PATH_CALL_NOEXCEPT(fstat64, "fstat", (int fd, struct stat64* info), fd, fd, info)

SLUICE_PATH_CALL_NOEXCEPT(rename, "rename", (const char* from, const char* to), from, from, to)
SLUICE_PATH_CALL_NOEXCEPT(mkdir, "mkdir", (const char* path, mode_t mode), path, path, mode)
SLUICE_PATH_CALL_NOEXCEPT(unlink, "remove", (const char* path), path, path)
SLUICE_PATH_CALL_NOEXCEPT(remove, "remove", (const char* path), path, path)
SLUICE_PATH_CALL_NOEXCEPT(rmdir, "remove", (const char* path), path, path)
SLUICE_PATH_CALL_NOEXCEPT(stat, "stat", (const char* path, struct stat* info), path, path, info)
SLUICE_PATH_CALL_NOEXCEPT(lstat, "stat", (const char* path, struct stat* info), path, path, info)
SLUICE_PATH_CALL_NOEXCEPT(stat64, "stat", (const char* path, struct stat64* info), path, path, info)
SLUICE_PATH_CALL_NOEXCEPT(lstat64, "stat", (const char* path, struct stat64* info), path, path,
                          info)
SLUICE_PATH_CALL_NOEXCEPT(statvfs, "statvfs", (const char* path, struct statvfs* info), path, path,
                          info)
SLUICE_PATH_CALL_NOEXCEPT(statvfs64, "statvfs", (const char* path, struct statvfs64* info), path,
                          path, info)

DIR* opendir(const char* path) {
  static auto* const real = next<decltype(opendir)>("opendir");
  return carry_out(judge("opendir", path), static_cast<DIR*>(nullptr), [&] { return real(path); });
}

}  // extern "C"
