#include "cli/console.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>

#include "base/units.h"
#include "chat/visible_text.h"
#include "cli/terminal.h"

namespace sluice::cli {
namespace {

constexpr auto kRedrawInterval = std::chrono::milliseconds(100);
constexpr auto kPlainInterval = std::chrono::seconds(10);
constexpr size_t kBarCells = 24;

}  // namespace

std::string bar_text(double share, size_t columns) {
  const double clamped = std::isfinite(share) ? std::clamp(share, 0.0, 1.0) : 0;
  const auto full = static_cast<size_t>(std::lround(clamped * static_cast<double>(columns)));
  std::string text;
  for (size_t i = 0; i < columns; ++i) text += i < full ? "█" : "░";
  return text;
}

size_t display_width(std::string_view utf8) {
  return static_cast<size_t>(
      std::ranges::count_if(utf8, [](char c) { return (c & 0xc0) != 0x80; }));
}

std::string shell_word(std::string_view text) {
  const bool plain = !text.empty() && std::ranges::all_of(text, [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("_-./+=:@%,").contains(c);
  });
  if (plain) return std::string(text);
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\'')
      quoted += "'\\''";
    else
      quoted += c;
  }
  return quoted + "'";
}

std::vector<std::string> wrapped(std::string_view text, size_t width) {
  std::vector<std::string> lines(1);
  while (!text.empty()) {
    const size_t end = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    std::string& line = lines.back();
    if (line.empty())
      line = word;
    else if (display_width(line) + 1 + display_width(word) <= width)
      line.append(" ").append(word);
    else
      lines.emplace_back(word);
  }
  return lines;
}

std::string Table::text(std::string_view indent) const {
  std::vector<size_t> widths(columns_.size(), 0);
  for (const auto& row : rows_)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], display_width(row[i]));
  std::string text;
  for (const auto& row : rows_) {
    std::string line(indent);
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - display_width(row[i]), ' ');
      const bool right = columns_[i] == Align::kRight;
      line += right ? padding + row[i] : row[i] + padding;
      if (i + 1 < row.size()) line += "  ";
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  }
  return text;
}

void Console::print_line(std::string_view text) {
  if (bar_shown_) std::fputs("\r\033[K", stderr);
  bar_shown_ = false;
  std::fprintf(stderr, "%.*s\n", static_cast<int>(text.size()), text.data());
}

void Console::info(std::string_view message) {
  MutexLock lock(mutex_);
  if (!quiet_) print_line(message);
}

void Console::warn(std::string_view message) {
  MutexLock lock(mutex_);
  if (!quiet_) print_line(fmt::format("warning: {}", message));
}

void Console::error(std::string_view message) {
  MutexLock lock(mutex_);
  print_line(fmt::format("error: {}", message));
}

void Console::begin(std::string_view stage, uint64_t total_bytes) {
  MutexLock lock(mutex_);
  stage_ = stage;
  total_ = total_bytes;
  done_ = 0;
  start_ = drawn_ = Clock::now();
}

void Console::count_in(std::string_view unit) {
  MutexLock lock(mutex_);
  unit_ = unit;
}

std::string Console::amount_text(double amount) const {
  if (unit_.empty()) return bytes_text(static_cast<uint64_t>(amount));
  return fmt::format("{:.{}f} {}", amount, amount < 100 && amount != std::floor(amount) ? 1 : 0,
                     unit_);
}

std::string Console::status_text() const {
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  const double rate = seconds > 0 ? static_cast<double>(done_) / seconds : 0;
  const double share =
      total_ > 0 ? std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_)) : 1;
  std::string left = "–";
  if (rate > 0 && done_ <= total_) left = duration_text(static_cast<double>(total_ - done_) / rate);
  const std::string numbers = fmt::format(
      "{:3.0f} %  {} of {}  {}/s  {} left", share * 100, amount_text(static_cast<double>(done_)),
      amount_text(static_cast<double>(total_)), amount_text(rate), left);
  return terminal_ ? fmt::format("{:<10} {} {}", stage_, bar_text(share, kBarCells), numbers)
                   : fmt::format("{}: {}", stage_, numbers);
}

void Console::draw() {
  drawn_ = Clock::now();
  if (!terminal_) {
    print_line(status_text());
    return;
  }
  // A line that the terminal breaks could not be drawn over.
  const std::string text = status_text();
  const std::string_view shown = chat::fitting(text, terminal_size().columns - 1);
  std::fprintf(stderr, "\r\033[K%.*s", static_cast<int>(shown.size()), shown.data());
  std::fflush(stderr);
  bar_shown_ = true;
}

void Console::advance(uint64_t bytes) {
  MutexLock lock(mutex_);
  done_ += bytes;
  if (!quiet_ && Clock::now() - drawn_ >= (terminal_ ? Clock::duration(kRedrawInterval)
                                                     : Clock::duration(kPlainInterval)))
    draw();
}

void Console::end() {
  MutexLock lock(mutex_);
  if (quiet_ || done_ == 0) return;  // a stage that was finished before, or could not begin
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  const double rate = seconds > 0 ? static_cast<double>(done_) / seconds : 0;
  print_line(fmt::format("{:<10} {} in {} ({}/s)", stage_, amount_text(static_cast<double>(done_)),
                         duration_text(seconds), amount_text(rate)));
  done_ = 0;  // ending twice says it once
}

}  // namespace sluice::cli
