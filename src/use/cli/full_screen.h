// The whole terminal for a while: drawn upon line by line, keys read as they are pressed, and all
// of it given back afterwards.
#pragma once

#include <termios.h>

#include <optional>
#include <span>
#include <string>

namespace sluice::cli {

// From construction to destruction, also by an error. One at a time; one thread.
class FullScreen {
 public:
  FullScreen();
  ~FullScreen();
  FullScreen(const FullScreen&) = delete;
  FullScreen& operator=(const FullScreen&) = delete;

  // In place of what was there. styles: the first line is bold.
  void draw(std::span<const std::string> lines, bool styles);
  // The next key within so long. Nothing when none came, when the window's size has changed, and on
  // a signal. '\0' at the end of input.
  std::optional<char> key(int wait_ms);

 private:
  termios before_{};
};

}  // namespace sluice::cli
