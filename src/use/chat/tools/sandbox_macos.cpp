// sandbox-exec, macOS's own, with a profile that denies all but reading the system's programs and
// working in the work folder. It has no limits of its own: ulimit sets them.
#include "chat/tools/sandbox.h"

namespace sluice::chat {
namespace {

constexpr const char* kProfile = R"((version 1)
(deny default)
(allow process-exec process-fork)
(allow signal (target same-sandbox))
(allow sysctl-read)
(allow file-read-metadata)
(allow file-read* (subpath "/usr") (subpath "/bin") (subpath "/sbin") (subpath "/System")
  (subpath "/Library/Developer/CommandLineTools") (literal "/dev/null") (literal "/dev/urandom")
  (literal "/private/var/select/sh") (literal "/") (subpath (param "FOLDER")))
(allow file-write* (literal "/dev/null") (subpath (param "FOLDER"))))";

constexpr const char* kLimited =
    R"(ulimit -f "$1" -u "$2" -n "$3" -t "$4" -c 0 && shift 4 && exec "$@")";

}  // namespace

Result<std::vector<std::string>> sandboxed(const std::string& folder,
                                           const std::vector<std::string>& argv,
                                           const SandboxLimits& limits) {
  std::vector<std::string> words = {"/usr/bin/sandbox-exec",
                                    "-D",
                                    "FOLDER=" + folder,
                                    "-p",
                                    kProfile,
                                    "/bin/sh",
                                    "-c",
                                    "cd \"$0\" && " + std::string(kLimited),
                                    folder,
                                    std::to_string(limits.file_bytes / 512),
                                    std::to_string(limits.processes),
                                    std::to_string(limits.open_files),
                                    std::to_string(limits.cpu_seconds)};
  words.insert(words.end(), argv.begin(), argv.end());
  return words;
}

}  // namespace sluice::chat
