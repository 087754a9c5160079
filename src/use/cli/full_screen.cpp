#include "cli/full_screen.h"

#include <poll.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>

namespace sluice::cli {
namespace {

// Wakes the wait for a key.
extern "C" void on_resize(int) {}

void send(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

}  // namespace

FullScreen::FullScreen() {
  tcgetattr(STDIN_FILENO, &before_);
  termios mode = before_;
  mode.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
  mode.c_cc[VSUSP] = _POSIX_VDISABLE;  // a shell would find the screen in this state
  mode.c_cc[VMIN] = 1;
  mode.c_cc[VTIME] = 0;
  tcsetattr(STDIN_FILENO, TCSANOW, &mode);
  struct sigaction action{};
  action.sa_handler = on_resize;
  sigaction(SIGWINCH, &action, nullptr);
  send("\x1b[?1049h\x1b[?25l");  // a screen of its own, without a cursor
}

FullScreen::~FullScreen() {
  send("\x1b[?25h\x1b[?1049l");
  std::signal(SIGWINCH, SIG_DFL);
  tcsetattr(STDIN_FILENO, TCSANOW, &before_);
}

void FullScreen::draw(std::span<const std::string> lines, bool styles) {
  std::string text = "\x1b[H";
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) text += "\r\n";
    text += styles && i == 0 ? "\x1b[1m" + lines[i] + "\x1b[0m" : lines[i];
    text += "\x1b[K";
  }
  send(text + "\x1b[J");
}

std::optional<char> FullScreen::key(int wait_ms) {
  pollfd input{STDIN_FILENO, POLLIN, 0};
  if (poll(&input, 1, wait_ms) <= 0) return std::nullopt;
  char pressed = 0;
  const ssize_t count = read(STDIN_FILENO, &pressed, 1);
  if (count < 0) return std::nullopt;
  return count == 0 ? '\0' : pressed;
}

}  // namespace sluice::cli
