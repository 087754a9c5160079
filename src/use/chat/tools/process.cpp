// Starts a program by posix_spawn, and collects its output until it ends or has to.
#include "chat/tools/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "chat/tools/process_count.h"

namespace sluice::chat {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kPollMs = 50;  // how soon a cancellation is noticed
constexpr std::chrono::milliseconds kCountEvery{100};

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> list;
  for (const std::string& text : texts) list.push_back(const_cast<char*>(text.c_str()));
  list.push_back(nullptr);
  return list;
}

class SpawnSetup {
 public:
  explicit SpawnSetup(int output) {
    posix_spawn_file_actions_init(&actions_);
    posix_spawn_file_actions_addopen(&actions_, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions_, output, 1);
    posix_spawn_file_actions_adddup2(&actions_, output, 2);
    posix_spawnattr_init(&attributes_);
    short flags = POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK;
#ifdef POSIX_SPAWN_CLOEXEC_DEFAULT
    flags |= POSIX_SPAWN_CLOEXEC_DEFAULT;
#else
    posix_spawn_file_actions_addclosefrom_np(&actions_, 3);
#endif
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    posix_spawnattr_setsigdefault(&attributes_, &all);
    posix_spawnattr_setsigmask(&attributes_, &none);
    posix_spawnattr_setflags(&attributes_, flags);
  }
  ~SpawnSetup() {
    posix_spawn_file_actions_destroy(&actions_);
    posix_spawnattr_destroy(&attributes_);
  }
  SpawnSetup(const SpawnSetup&) = delete;
  SpawnSetup& operator=(const SpawnSetup&) = delete;

  const posix_spawn_file_actions_t* actions() const { return &actions_; }
  const posix_spawnattr_t* attributes() const { return &attributes_; }

 private:
  posix_spawn_file_actions_t actions_{};
  posix_spawnattr_t attributes_{};
};

// What is to end a program before its time; one object for each.
class Watch {
 public:
  Watch(pid_t child, const ProcessLimits& limits, const CancelToken* cancel)
      : child_(child),
        limits_(limits),
        cancel_(cancel),
        end_(Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                std::chrono::duration<double>(limits.seconds))) {}

  // Whether it is not to go on, with the reason in outcome.
  bool over(ProcessOutcome& outcome) {
    const auto now = Clock::now();
    outcome.cancelled |= cancel_ != nullptr && cancel_->cancelled();
    outcome.timed_out |= now >= end_;
    if (limits_.processes != 0 && now >= next_count_) {
      outcome.too_many |= count_processes(child_) > limits_.processes;
      // Counting costs more the more there are.
      next_count_ = Clock::now() + std::max<Clock::duration>(kCountEvery, 4 * (Clock::now() - now));
    }
    return outcome.cancelled || outcome.timed_out || outcome.too_many;
  }

 private:
  const pid_t child_;
  const ProcessLimits& limits_;
  const CancelToken* const cancel_;
  const Clock::time_point end_;
  Clock::time_point next_count_ = Clock::now();
};

// Until the program has closed its output, or is not to go on.
void collect(int pipe, const ProcessLimits& limits, Watch& watch, ProcessOutcome& outcome) {
  std::array<char, 16'384> buffer;
  while (!watch.over(outcome)) {
    pollfd waiting{pipe, POLLIN, 0};
    if (::poll(&waiting, 1, kPollMs) <= 0) continue;
    const ssize_t count = ::read(pipe, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;
    const size_t room = limits.output_bytes - outcome.output.size();
    const size_t taken = std::min(room, static_cast<size_t>(count));
    outcome.output.append(buffer.data(), taken);
    outcome.output_cut |= taken < static_cast<size_t>(count);
  }
}

// A program may close its output and go on.
int wait_for(pid_t child, Watch& watch, ProcessOutcome& outcome) {
  int status = 0;
  while (::waitpid(child, &status, WNOHANG) == 0) {
    if (watch.over(outcome)) {
      ::kill(-child, SIGKILL);
      while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
      }
      return status;
    }
    ::poll(nullptr, 0, 5);
  }
  return status;
}

}  // namespace

Result<ProcessOutcome> run_process(const std::vector<std::string>& argv,
                                   const std::vector<std::string>& environment,
                                   const ProcessLimits& limits, const CancelToken* cancel) {
  SLUICE_CHECK(!argv.empty());
  std::array<int, 2> pipe{};
#ifdef __linux__
  if (::pipe2(pipe.data(), O_CLOEXEC) != 0)
#else
  if (::pipe(pipe.data()) != 0)
#endif
    return fail(ErrorCode::kIo, "no pipe for {}: {}", argv[0], std::strerror(errno));
  pid_t child = 0;
  int code = 0;
  {
    const SpawnSetup setup(pipe[1]);
    code = ::posix_spawn(&child, argv[0].c_str(), setup.actions(), setup.attributes(),
                         pointers(argv).data(), pointers(environment).data());
  }
  ::close(pipe[1]);
  if (code != 0) {
    ::close(pipe[0]);
    return fail(code == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "{} does not start: {}",
                argv[0], std::strerror(code));
  }
  ProcessOutcome outcome;
  Watch watch(child, limits, cancel);
  collect(pipe[0], limits, watch, outcome);
  const int status = wait_for(child, watch, outcome);
  ::close(pipe[0]);
  outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return outcome;
}

}  // namespace sluice::chat
