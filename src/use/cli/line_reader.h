// Lines that the user types: with editing and a history on a terminal (libedit), plain otherwise.
#pragma once

#include <optional>
#include <string>

namespace sluice::cli {

// One at a time: libedit keeps its state to itself. One thread.
class LineReader {
 public:
  // history_path: read now and written on destruction; empty: none is kept.
  LineReader(bool terminal, std::string history_path);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  // Without the line's end; nothing at the end of input. The prompt shows on a terminal alone.
  std::optional<std::string> read(const std::string& prompt);

  // A whole message: a line that ends with a backslash goes on with the next, and what stands
  // between lines of three quotes is taken as it is.
  std::optional<std::string> read_message(const std::string& prompt);

 private:
  const bool terminal_;
  const std::string history_path_;
};

}  // namespace sluice::cli
