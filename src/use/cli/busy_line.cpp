#include "cli/busy_line.h"

#include <fmt/format.h>

#include <cmath>
#include <csignal>
#include <cstdio>

#include "chat/visible_text.h"

namespace sluice::cli {
namespace {

constexpr size_t kRowsMin = 6, kColumnsMin = 20;
constexpr std::chrono::milliseconds kTurn{200};
constexpr std::string_view kTurns[] = {"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"};
// VT100's own: save and restore the cursor with its attributes, index, cursor up.
constexpr std::string_view kSave =
                               "\x1b"
                               "7",
                           kRestore =
                               "\x1b"
                               "8",
                           kIndex =
                               "\x1b"
                               "D",
                           kUp = "\x1b[A";

bool send(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  return std::fflush(stdout) == 0;
}

}  // namespace

BusyLine::BusyLine(bool shown) {
  const TerminalSize size = terminal_size();
  shown_ = shown && size.rows >= kRowsMin && size.columns >= kColumnsMin;
  if (!shown_) return;
  // A shell that took over now would inherit the region.
  std::signal(SIGTSTP, SIG_IGN);
  {
    MutexLock lock(mutex_);
    size_ = size;
    reserve();
    draw();
  }
  thread_.emplace([this] { keep_alive(); });
}

BusyLine::~BusyLine() {
  if (!shown_) return;
  {
    MutexLock lock(mutex_);
    ended_ = true;
    ended_signal_.notify_all();
  }
  thread_.reset();
  MutexLock lock(mutex_);
  send(fmt::format("{}\x1b[r\x1b[{};1H\x1b[2K{}", kSave, terminal_size().rows, kRestore));
  std::signal(SIGTSTP, SIG_DFL);
}

// Makes sure that there is a row below the cursor's, and keeps the last one out of what scrolls.
void BusyLine::reserve() {
  send(fmt::format("{}{}{}\x1b[1;{}r{}", kIndex, kUp, kSave, size_.rows - 1, kRestore));
}

void BusyLine::draw() {
  const TerminalSize now = terminal_size();
  if (now != size_) {
    // Where the line is now depends on the terminal: below the cursor is nothing else.
    send("\x1b[J");
    if (now.rows < kRowsMin) return;
    size_ = now;
    reserve();
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  const std::string text =
      fmt::format("{} {:.0f} s  {}", kTurns[turn_ % std::size(kTurns)], std::floor(seconds), text_);
  send(fmt::format("{}\x1b[{};1H\x1b[0;2m\x1b[2K{}\x1b[0m{}", kSave, size_.rows,
                   chat::fitting(text, size_.columns - 1), kRestore));
}

void BusyLine::keep_alive() {
  MutexLock lock(mutex_);
  while (!ended_) {
    ended_signal_.wait_for(mutex_, kTurn);
    if (ended_) return;
    ++turn_;
    draw();
  }
}

bool BusyLine::print(std::string_view text) {
  MutexLock lock(mutex_);
  return send(text);
}

void BusyLine::say(std::string text) {
  MutexLock lock(mutex_);
  text_ = std::move(text);
}

}  // namespace sluice::cli
