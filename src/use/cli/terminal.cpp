#include "cli/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

namespace sluice::cli {

TerminalSize terminal_size() {
  for (const int descriptor : {STDOUT_FILENO, STDERR_FILENO}) {
    winsize size{};
    if (ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col != 0 && size.ws_row != 0)
      return {size.ws_col, size.ws_row};
  }
  return {};
}

bool can_draw() {
  const char* kind = std::getenv("TERM");
  return isatty(STDOUT_FILENO) == 1 && kind != nullptr && std::string_view(kind) != "dumb";
}

bool shows_styles() {
  const char* no_colour = std::getenv("NO_COLOR");
  return can_draw() && (no_colour == nullptr || *no_colour == '\0');
}

}  // namespace sluice::cli
