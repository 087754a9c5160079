// A command line as the words of a program and its arguments, wherever it needs no shell.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::chat {

// Quotes and backslashes as POSIX has them. Nothing when only a shell could tell what is meant:
// variables, patterns, pipes, redirections, several commands, an assignment in front, quotes that
// stay open; and for a line without a word.
std::optional<std::vector<std::string>> shell_words(std::string_view line);

}  // namespace sluice::chat
