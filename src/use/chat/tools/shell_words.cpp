// Splits a line as POSIX quotes it, and gives up at whatever needs a shell.
#include "chat/tools/shell_words.h"

#include <algorithm>
#include <array>

namespace sluice::chat {
namespace {

// What means something to a shell outside of quotes.
constexpr std::string_view kSpecial = "$`|&;<>()*?[]{}~#!\n\r";
// Words that a shell obeys itself, with no program of that name or one that does less.
constexpr std::array<std::string_view, 32> kBuiltin = {
    ".",        ":",    "alias", "bg",     "break",  "case",   "cd",    "command",
    "continue", "do",   "eval",  "exec",   "exit",   "export", "fg",    "for",
    "function", "if",   "jobs",  "read",   "return", "set",    "shift", "source",
    "time",     "trap", "type",  "ulimit", "umask",  "unset",  "until", "while"};

class Splitter {
 public:
  explicit Splitter(std::string_view line) : line_(line) {}

  bool split() {
    for (; at_ < line_.size(); ++at_)
      if (!take(line_[at_])) return false;
    end_word();
    return quote_ == '\0';
  }
  std::vector<std::string> words;

 private:
  bool take(char c) {
    if (c == '\0') return false;
    if (quote_ == '\'') return quoted(c);
    if (c == '\\') return escaped();
    if (quote_ == '"') return c != '$' && c != '`' && quoted(c);
    if (c == '\'' || c == '"') {
      quote_ = c;
      in_word_ = true;
      return true;
    }
    if (c == ' ' || c == '\t') {
      end_word();
      return true;
    }
    if (kSpecial.find(c) != std::string_view::npos) return false;
    add(c);
    return true;
  }
  bool quoted(char c) {
    if (c == quote_)
      quote_ = '\0';
    else
      add(c);
    return true;
  }
  bool escaped() {
    if (++at_ >= line_.size() || line_[at_] == '\n') return false;
    // Inside double quotes a backslash before anything else is one.
    if (quote_ == '"' && std::string_view("$`\"\\").find(line_[at_]) == std::string_view::npos)
      add('\\');
    add(line_[at_]);
    return true;
  }
  void add(char c) {
    word_.push_back(c);
    in_word_ = true;
  }
  void end_word() {
    if (in_word_) words.push_back(std::move(word_));
    word_.clear();
    in_word_ = false;
  }

  const std::string_view line_;
  size_t at_ = 0;
  std::string word_;
  bool in_word_ = false;
  char quote_ = '\0';
};

}  // namespace

std::optional<std::vector<std::string>> shell_words(std::string_view line) {
  Splitter splitter(line);
  if (!splitter.split() || splitter.words.empty()) return std::nullopt;
  const std::string& program = splitter.words.front();
  if (program.empty() || program.find('=') != std::string::npos ||
      std::ranges::find(kBuiltin, program) != kBuiltin.end())
    return std::nullopt;
  return std::move(splitter.words);
}

}  // namespace sluice::chat
