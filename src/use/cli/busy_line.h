// The last line of the terminal while a model writes above it: how fast, how much of the context,
// memory and disk. The answer scrolls in the rows above (a scrolling region), so neither has to be
// drawn again because of the other.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "base/mutex.h"
#include "base/thread.h"
#include "cli/terminal.h"

namespace sluice::cli {

// From construction to destruction. print() and say() from one thread; a second one keeps the line
// alive while that one computes. Nothing else may print meanwhile.
class BusyLine {
 public:
  // shown: whether there is one at all; small terminals have no room for it either. The cursor must
  // be at the beginning of a line.
  explicit BusyLine(bool shown);
  ~BusyLine();
  BusyLine(const BusyLine&) = delete;
  BusyLine& operator=(const BusyLine&) = delete;

  bool shown() const { return shown_; }
  // To the rows above. False once standard output cannot be written.
  bool print(std::string_view text) EXCLUDES(mutex_);
  // What the line says from now on; cut to the terminal's width.
  void say(std::string text) EXCLUDES(mutex_);

 private:
  void reserve() REQUIRES(mutex_);
  void draw() REQUIRES(mutex_);
  void keep_alive() EXCLUDES(mutex_);

  bool shown_ = false;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  Mutex mutex_;
  CondVar ended_signal_;
  bool ended_ GUARDED_BY(mutex_) = false;
  std::string text_ GUARDED_BY(mutex_);
  TerminalSize size_ GUARDED_BY(mutex_);
  size_t turn_ GUARDED_BY(mutex_) = 0;
  std::optional<Thread> thread_;
};

}  // namespace sluice::cli
