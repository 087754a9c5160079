// Lines that the user types: with editing, a history and pasting on a terminal (libedit), plain
// otherwise.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace sluice::cli {

// One thread; one at a time, as it changes the terminal's settings while it reads.
class LineReader {
 public:
  // history_path: read now and written after every line; empty: none is kept. commands: words that
  // the tabulator key completes at a line's beginning.
  LineReader(bool terminal, std::string history_path, std::vector<std::string> commands = {});
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  // Without the line's end; nothing at the end of input. The prompt shows on a terminal alone.
  // There, Ctrl-C drops what was typed, Alt-Enter begins another line within it, and a paste is
  // taken as it is: one of several lines is shown as "[3 lines]" until the line is done.
  std::optional<std::string> read(const std::string& prompt);

  // A whole message: a line that ends with a backslash goes on with the next, and what stands
  // between lines of three quotes is taken as it is.
  std::optional<std::string> read_message(const std::string& prompt);

 private:
  class Editor;
  std::unique_ptr<Editor> editor_;  // null: no terminal
};

}  // namespace sluice::cli
