// What the terminal is, as far as drawing on it needs to know.
#pragma once

#include <cstddef>

namespace sluice::cli {

struct TerminalSize {
  size_t columns = 80, rows = 24;
  bool operator==(const TerminalSize&) const = default;
};
// Of standard output or error, now; the above where neither is one or says so.
TerminalSize terminal_size();

// Whether standard output shows colours and bold letters: a terminal, but for TERM=dumb, and unless
// NO_COLOR is set (no-color.org).
bool shows_styles();
// Whether the cursor can be moved on it.
bool can_draw();

}  // namespace sluice::cli
