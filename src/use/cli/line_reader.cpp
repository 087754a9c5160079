#include "cli/line_reader.h"

#include <editline/readline.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>

namespace sluice::cli {
namespace {

constexpr int kHistoryLines = 1000;
constexpr const char* kQuotes = "\"\"\"";

}  // namespace

LineReader::LineReader(bool terminal, std::string history_path)
    : terminal_(terminal), history_path_(std::move(history_path)) {
  if (!terminal_) return;
  using_history();
  stifle_history(kHistoryLines);
  if (!history_path_.empty()) read_history(history_path_.c_str());
}

LineReader::~LineReader() {
  if (!terminal_ || history_path_.empty()) return;
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(history_path_).parent_path(), ignored);
  write_history(history_path_.c_str());
}

std::optional<std::string> LineReader::read(const std::string& prompt) {
  if (!terminal_) {
    std::string line;
    if (!std::getline(std::cin, line)) return std::nullopt;
    return line;
  }
  char* typed = readline(prompt.c_str());
  if (typed == nullptr) return std::nullopt;
  std::string line = typed;
  std::free(typed);
  if (line.find_first_not_of(" \t") != std::string::npos) add_history(line.c_str());
  return line;
}

std::optional<std::string> LineReader::read_message(const std::string& prompt) {
  std::optional<std::string> line = read(prompt);
  if (!line) return line;
  const std::string more(prompt.size(), '.');
  if (*line == kQuotes) {
    std::string text;
    while ((line = read(more)) && *line != kQuotes) text += *line + "\n";
    return text;
  }
  std::string text;
  while (line && line->ends_with('\\')) {
    text += line->substr(0, line->size() - 1) + "\n";
    line = read(more);
  }
  return text + line.value_or("");
}

}  // namespace sluice::cli
