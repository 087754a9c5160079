// Bubblewrap: a view of the file system made of the system's programs (read-only), an empty /tmp
// and the work folder, in namespaces of its own.
#include <sys/stat.h>
#include <unistd.h>

#include <array>

#include "chat/tools/sandbox.h"

namespace sluice::chat {
namespace {

constexpr const char* kBubblewrap = "/usr/bin/bwrap";
constexpr const char* kLimiter = "/usr/bin/prlimit";  // of util-linux
// What programs need of /etc; the rest may hold secrets.
constexpr std::array kConfiguration = {"/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf",
                                       "/etc/ld.so.conf.d", "/etc/localtime"};
// What root may write there even without capabilities, and in whatever namespace: the kernel's.
constexpr std::array kKernel = {"/proc/sys",  "/proc/sysrq-trigger", "/proc/fs",  "/proc/acpi",
                                "/proc/scsi", "/proc/mtrr",          "/proc/irq", "/proc/bus"};
constexpr std::array kPrograms = {"/bin", "/sbin", "/lib", "/lib32", "/lib64"};

void append(std::vector<std::string>& argv, std::initializer_list<std::string> words) {
  argv.insert(argv.end(), words);
}

}  // namespace

Result<std::vector<std::string>> sandboxed(const std::string& folder,
                                           const std::vector<std::string>& argv,
                                           const SandboxLimits& limits) {
  for (const char* program : {kBubblewrap, kLimiter})
    if (::access(program, X_OK) != 0)
      return fail(ErrorCode::kUnsupported,
                  "{} is not there, so the shell is off; install bubblewrap and util-linux",
                  program);
  std::vector<std::string> words = {kBubblewrap,     "--unshare-all", "--die-with-parent",
                                    "--new-session", "--cap-drop",    "ALL"};
  append(words, {"--hostname", "sandbox", "--ro-bind", "/usr", "/usr"});
  for (const char* path : kPrograms) {
    struct stat about{};
    if (::lstat(path, &about) != 0) continue;
    const std::string below = std::string("usr") + path;
    if (S_ISLNK(about.st_mode)) append(words, {"--symlink", below, path});
    if (S_ISDIR(about.st_mode)) append(words, {"--ro-bind", path, path});
  }
  for (const char* path : kConfiguration) append(words, {"--ro-bind-try", path, path});
  // Its files lie in memory, without a bound.
  append(words, {"--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"});
  for (const char* path : kKernel) append(words, {"--ro-bind-try", path, path});
  append(words, {"--size", std::to_string(limits.file_bytes), "--tmpfs", "/tmp", "--bind", folder,
                 folder, "--remount-ro", "/", "--chdir", folder, "--"});
  append(words,
         {kLimiter, fmt::format("--as={}", limits.memory_bytes),
          fmt::format("--fsize={}", limits.file_bytes), fmt::format("--nproc={}", limits.processes),
          fmt::format("--nofile={}", limits.open_files),
          fmt::format("--cpu={}", limits.cpu_seconds), "--core=0", "--"});
  words.insert(words.end(), argv.begin(), argv.end());
  return words;
}

}  // namespace sluice::chat
