// What the user sees: progress bars and messages on stderr, results on stdout. A bar is drawn only
// on a terminal; elsewhere a plain line now and then says the same.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "base/mutex.h"

namespace sluice::cli {

enum class Align { kLeft, kRight };

// Rows of cells printed in aligned columns, two spaces apart.
class Table {
 public:
  explicit Table(std::vector<Align> columns) : columns_(std::move(columns)) {}
  void add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  std::string text(std::string_view indent) const;

 private:
  std::vector<Align> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// Thread-safe.
class Console : public Log, public Progress {
 public:
  // quiet: errors only. terminal: whether stderr is one.
  Console(bool quiet, bool terminal) : quiet_(quiet), terminal_(terminal) {}

  void info(std::string_view message) override;
  void warn(std::string_view message) override;
  void error(std::string_view message);

  // What the stages from here on count: "tokens"; empty: bytes.
  void count_in(std::string_view unit);

  void begin(std::string_view stage, uint64_t total_bytes) override;
  void advance(uint64_t bytes) override;
  void end() override;

 private:
  using Clock = std::chrono::steady_clock;
  void print_line(std::string_view text) REQUIRES(mutex_);
  void draw() REQUIRES(mutex_);
  std::string status_text() const REQUIRES(mutex_);
  std::string amount_text(double amount) const REQUIRES(mutex_);

  const bool quiet_, terminal_;
  Mutex mutex_;
  std::string stage_ GUARDED_BY(mutex_);
  std::string unit_ GUARDED_BY(mutex_);
  uint64_t total_ GUARDED_BY(mutex_) = 0;
  uint64_t done_ GUARDED_BY(mutex_) = 0;
  bool bar_shown_ GUARDED_BY(mutex_) = false;
  Clock::time_point start_ GUARDED_BY(mutex_);
  Clock::time_point drawn_ GUARDED_BY(mutex_);
};

// A path as a shell takes it: as it is where that is safe, else in single quotes.
std::string shell_word(std::string_view text);

// Text in lines of at most width characters, broken at spaces; a longer word has a line of its own.
// At least one line.
std::vector<std::string> wrapped(std::string_view text, size_t width);

// A bar of so many columns, the share of which is full.
std::string bar_text(double share, size_t columns);

// Characters that a terminal shows, not bytes.
size_t display_width(std::string_view utf8);

}  // namespace sluice::cli
