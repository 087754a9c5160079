// Commands in the sandbox: what they may do, and attempts to do more. Each attempt is a command
// that prints ESCAPED where it succeeds, or would leave a trace outside; none does harm where it
// does. Skips without a sandbox.
#include "chat/tools/shell_tool.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>

#include "chat/tools/process_count.h"
#include "chat/tools/shell_words.h"

namespace sluice::chat {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

TEST(ShellWords, SplitsWhatNeedsNoShell) {
  EXPECT_EQ(shell_words("ls -l"), (Words{"ls", "-l"}));
  EXPECT_EQ(shell_words("  grep 'a b' \"c d\"\\ e '' "), (Words{"grep", "a b", "c d e", ""}));
  EXPECT_EQ(shell_words("echo \"a\\\"b\\n\""), (Words{"echo", "a\"b\\n"}));
  EXPECT_EQ(shell_words("echo '$HOME;|'"), (Words{"echo", "$HOME;|"}));
}

TEST(ShellWords, LeavesTheRestToAShell) {
  for (const char* line :
       {"a|b",  "a;b",    "a&",    "a>b", "a<b", "$a",    "`a`",   "\"$a\"", "\"`a`\"", "a*",
        "a?",   "[a]",    "{a,b}", "~",   "(a)", "A=1 b", "'open", "\"open", "a\\",     "a\nb",
        "cd x", "exec a", "# a",   "",    "  ",  "''",    "! a",   ". a",    "while x"})
    EXPECT_EQ(shell_words(line), std::nullopt) << line;
}

class ShellToolTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "sluice-shell-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    base_ = fs::canonical(name);
    fs::create_directories(base_ / "work");
    std::ofstream(base_ / "secret") << "SECRET-TEXT";
    if (const Status ready = probe_sandbox(work()); !ready) GTEST_SKIP() << ready.error().message;
    options_.folder = work();
    options_.process.seconds = 20;
  }
  void TearDown() override { fs::remove_all(base_); }
  std::string work() const { return (base_ / "work").string(); }

  std::string run(const std::string& command) {
    ShellTool tool(options_);
    const auto plan = tool.plan("run_command", {{"command", command}});
    if (!plan) return plan.error().message;
    shown_ = plan->shown;
    const auto output = plan->run(nullptr);
    return output ? output->text : output.error().message;
  }

  fs::path base_;
  ShellOptions options_;
  std::string shown_;
};

TEST_F(ShellToolTest, RunsInTheWorkFolder) {
  EXPECT_EQ(run("echo hi"), "hi\nexit code 0");
  EXPECT_EQ(shown_, "$ echo hi");
  EXPECT_EQ(run("echo hi > f; cat f; exit 3"), "hi\nexit code 3");
  EXPECT_EQ(shown_, "(by /bin/sh) $ echo hi > f; cat f; exit 3");
  EXPECT_TRUE(fs::exists(base_ / "work/f"));
  EXPECT_EQ(run("pwd"), work() + "\nexit code 0");
}

TEST_F(ShellToolTest, EndsInTimeWithAllItStarted) {
  options_.process.seconds = 0.5;
  const auto begin = std::chrono::steady_clock::now();
  const std::string text = run("sleep 100 & (setsid sleep 100 >/dev/null 2>&1 &) ; sleep 100");
  EXPECT_NE(text.find("ended after"), std::string::npos) << text;
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
}

TEST_F(ShellToolTest, OutputIsCapped) {
  options_.process.output_bytes = 1000;
  const std::string text = run("head -c 1000000 /dev/zero | tr '\\0' x");
  EXPECT_NE(text.find("output cut"), std::string::npos);
  EXPECT_LT(text.size(), 1200u);
}

TEST_F(ShellToolTest, MemoryAndFilesAreCapped) {
  options_.sandbox.memory_bytes = 128 << 20;
  options_.sandbox.file_bytes = 1 << 20;
  EXPECT_EQ(
      run("head -c 300000000 /dev/zero | tail -n 1 > /dev/null && echo ESCAPED").find("ESCAPED"),
      std::string::npos);
  run("head -c 3000000 /dev/zero > big");
  EXPECT_LE(fs::file_size(base_ / "work/big"), 1u << 20);
  EXPECT_EQ(run("head -c 3000000 /dev/zero > /tmp/a && echo ESCAPED").find("ESCAPED"),
            std::string::npos);
}

TEST_F(ShellToolTest, ProcessesAreCapped) {
  const std::string text =
      run("for i in $(seq 300); do sleep 15 & done; wait; jobs | wc -l; echo END");
  EXPECT_EQ(text.find("END"), std::string::npos) << text;
  EXPECT_EQ(text.find("ended after"), std::string::npos) << text;
  // The kernel lets root have them all, so they are counted.
  if (::geteuid() == 0) {
    EXPECT_NE(text.find("(ended with more than 128 processes)"), std::string::npos) << text;
  }
  EXPECT_EQ(run("for i in $(seq 20); do sleep 0.5 & done; wait; echo END"), "END\nexit code 0");
}

TEST(ProcessCount, OfOneWithAllBelow) {
  if (!fs::exists("/proc/self/stat")) GTEST_SKIP() << "the system does not tell";
  const size_t before = count_processes(::getpid());
  EXPECT_GE(before, 1u);
  const pid_t child = ::fork();
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  EXPECT_EQ(count_processes(::getpid()), before + 1);
  EXPECT_EQ(count_processes(child), 1u);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(count_processes(child), 0u);
}

// Attempts are sh commands; $B is the folder around the work folder, $P our process.
constexpr const char* kAttempts[] = {
    // Reading outside.
    "cat $B/secret",
    "cat ../secret",
    "cat $PWD/../secret",
    "cat /proc/1/root$B/secret",
    "cat /proc/self/root$B/secret",
    "cat /proc/$P/root$B/secret",
    "ln -s $B/secret l; cat l",
    "ln $B/secret h; cat h",
    "cp $B/secret . && cat secret",
    "find / -name secret -exec cat {} + 2>/dev/null",
    "cat /etc/shadow && echo ESCAPED",
    "cat /etc/passwd && echo ESCAPED",
    "ls /root && echo ESCAPED",
    "ls /home && echo ESCAPED",
    "ls /var/log && echo ESCAPED",
    "ls /etc/ssl && echo ESCAPED",
    "ls /boot && echo ESCAPED",
    "ls /run && echo ESCAPED",
    "ls /sys && echo ESCAPED",
    "ls /opt && echo ESCAPED",
    "ls /srv && echo ESCAPED",
    "ls /mnt && echo ESCAPED",
    "cat /etc/hosts && echo ESCAPED",
    "cat /etc/machine-id && echo ESCAPED",
    // Writing outside: $B is an empty place inside, so that what counts is what is there
    // afterwards.
    "echo x > $B/written",
    "echo x > ../written",
    "rm -f $B/secret",
    "ln -s $B out; echo x > out/written",
    "echo x > $B/secret",
    ": > /usr/written && echo ESCAPED",
    ": >> /usr/bin/ls && echo ESCAPED",
    "touch /written && echo ESCAPED",
    "mkdir /written && echo ESCAPED",
    "ln /usr/bin/true /usr/written && echo ESCAPED",
    ": > /etc/written && echo ESCAPED",
    ": >> /etc/ld.so.cache && echo ESCAPED",
    "mv $PWD $B/moved && echo ESCAPED",
    "rmdir $PWD && echo ESCAPED",
    "chmod --reference=/usr /usr && echo ESCAPED",
    "chown --reference=/usr/bin/ls /usr/bin/ls && echo ESCAPED",
    "truncate -s +0 /usr/bin/bwrap && echo ESCAPED",
    ": > /proc/1/root/written && echo ESCAPED",
    ": > /lib/written && echo ESCAPED",
    ": > /dev/written && echo ESCAPED",
    // The kernel and its settings.
    "test -w /proc/sys/kernel/core_pattern && echo ESCAPED",
    "test -w /proc/sys/kernel/modprobe && echo ESCAPED",
    "test -w /proc/sysrq-trigger && echo ESCAPED",
    "test -w /proc/sys/vm/drop_caches && echo ESCAPED",
    "test -w /proc/sys/kernel/hostname && echo ESCAPED",
    "test -w /proc/sys/net/ipv4/ip_forward && echo ESCAPED",
    "test -w /proc/sys/kernel/panic && echo ESCAPED",
    "find /proc/sys -type f -writable 2>/dev/null | grep . && echo ESCAPED",
    "hostname sandbox && echo ESCAPED",
    "head -c 1 /proc/kcore && echo ESCAPED",
    "date -s @$(date +%s) && echo ESCAPED",
    "dmesg && echo ESCAPED",
    "echo -1000 > /proc/self/oom_score_adj && echo ESCAPED",
    // Mounts and namespaces.
    "mount -t tmpfs x $PWD && echo ESCAPED",
    "mount --bind / $PWD && echo ESCAPED",
    "mount -o remount,rw / && echo ESCAPED",
    "umount /dev/shm && echo ESCAPED",
    "umount -l $PWD && echo ESCAPED",
    "chroot /proc/1/root ls && echo ESCAPED",
    "nsenter -t 1 -m ls && echo ESCAPED",
    "nsenter -t $P -m ls && echo ESCAPED",
    "unshare -m mount --bind /tmp $PWD && echo ESCAPED",
    "unshare -Urm sh -c 'mount -o remount,rw,bind /usr && test -w /usr' && echo ESCAPED",
    "mknod d b 8 0 && echo ESCAPED",
    "mknod d c 1 1 && echo ESCAPED",
    // Devices.
    "ls /dev | grep -E \"^(sd|vd|nvme)\" && echo ESCAPED",
    "head -c 1 /dev/mem && echo ESCAPED",
    "ls /dev/kvm && echo ESCAPED",
    "head -c 1 /dev/kmsg && echo ESCAPED",
    "ls /dev/fuse && echo ESCAPED",
    "ls /dev/loop-control && echo ESCAPED",
    // Other processes, and limits.
    "kill -0 $P && echo ESCAPED",
    "kill -URG $P && echo ESCAPED",
    "kill -CONT -$P && echo ESCAPED",
    "cat /proc/$P/environ && echo ESCAPED",
    "ls /proc/$P/fd && echo ESCAPED",
    "cat /proc/$P/maps && echo ESCAPED",
    "head -c 1 /proc/$P/mem && echo ESCAPED",
    "cat /proc/*/comm | grep shell_tool_test && echo ESCAPED",
    "renice -n 0 $P && echo ESCAPED",
    "ulimit -v unlimited && echo ESCAPED",
    "ulimit -f unlimited && echo ESCAPED",
    "ulimit -c unlimited && echo ESCAPED",
    "prlimit --nofile=4096 true && echo ESCAPED",
    // Privileges.
    "su -c 'echo ESCAPED'",
    "sudo -n echo ESCAPED",
    "setpriv --inh-caps +sys_admin --ambient-caps +sys_admin echo ESCAPED",
    "grep -E 'CapEff:.*[1-9a-f]' /proc/self/status && echo ESCAPED",
    "grep -E 'CapBnd:.*[1-9a-f]' /proc/self/status && echo ESCAPED",
    "grep 'NoNewPrivs:.0' /proc/self/status && echo ESCAPED",
    "cp /bin/sh s; chmod 4755 s; ./s -c 'grep CapEff:.*[1-9a-f] /proc/self/status' && echo ESCAPED",
    // Network.
    "bash -c ': < /dev/tcp/127.0.0.1/'$N && echo ESCAPED",
    "bash -c ': < /dev/tcp/localhost/'$N && echo ESCAPED",
    "bash -c ': < /dev/tcp/169.254.169.254/80' && echo ESCAPED",
    "bash -c ': < /dev/tcp/1.1.1.1/53' && echo ESCAPED",
    "curl -s --max-time 2 http://127.0.0.1:$N && echo ESCAPED",
    "wget -q -T 2 -O - http://127.0.0.1:$N && echo ESCAPED",
    "grep -v -e lo: -e \"|\" /proc/net/dev && echo ESCAPED",
    "ls /run/dbus/system_bus_socket && echo ESCAPED",
    "ls /var/run/docker.sock && echo ESCAPED",
    "grep -v Num /proc/net/unix && echo ESCAPED",
    R"(python3 -c 'import socket as s; s.socket(s.AF_INET, s.SOCK_RAW, 1); print("ESCAPED")')",
    R"(python3 -c 'import socket as s; s.socket(s.AF_PACKET, s.SOCK_RAW); print("ESCAPED")')",
    // Terminal, descriptors, environment.
    "echo x > /dev/tty && echo ESCAPED",
    "tty && echo ESCAPED",
    "cat <&9 && echo ESCAPED",
    "ls -l /proc/self/fd | grep secret && echo ESCAPED",
    "read x && echo ESCAPED",
    "ls -A /dev/shm | grep . && echo ESCAPED",
    R"(python3 -c 'import fcntl, termios as t; fcntl.ioctl(0, t.TIOCSTI, b"x"); print("ESCAPED")')",
    R"(python3 -c 'import os, fcntl as f; f.ioctl(os.open("/dev/tty", 2), 21522, b"x"); print("ESCAPED")')",
    "env | grep SLUICE_TEST_SECRET",
    "tr '\\0' ' ' < /proc/1/environ | grep SLUICE_TEST_SECRET",
    "tr '\\0' ' ' < /proc/self/environ | grep SLUICE_TEST_SECRET",
};

TEST_F(ShellToolTest, NoAttemptEscapes) {
  const size_t count = std::size(kAttempts);
  ASSERT_GE(count, 100u);
  ::setenv("SLUICE_TEST_SECRET", "SECRET-TEXT", 1);
  const int secret = ::open((base_ / "secret").c_str(), O_RDONLY);  // without O_CLOEXEC
  ASSERT_EQ(::dup2(secret, 9), 9);
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(::listen(listener, 8), 0);
  ASSERT_EQ(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length), 0);
  const std::string setup =
      fmt::format("B={}; P={}; N={}; ", base_.string(), ::getpid(), ntohs(address.sin_port));
  for (const char* attempt : kAttempts) {
    const std::string text = run(setup + attempt);
    EXPECT_EQ(text.find("ESCAPED"), std::string::npos) << attempt << "\n" << text;
    EXPECT_EQ(text.find("SECRET-TEXT"), std::string::npos) << attempt << "\n" << text;
    EXPECT_EQ(text.find("the sandbox"), std::string::npos) << text;
    EXPECT_NE(text.find("exit code"), std::string::npos) << attempt << "\n" << text;
  }
  EXPECT_FALSE(fs::exists(base_ / "written"));
  EXPECT_FALSE(fs::exists("/written"));
  std::ifstream file(base_ / "secret");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), "SECRET-TEXT");
  ::close(listener);
  ::close(secret);
  ::close(9);
}

}  // namespace
}  // namespace sluice::chat
