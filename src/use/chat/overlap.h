// Where a stream of text may still become a word that one waits for.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string_view>

namespace sluice::chat {

// Length of the longest end of text that is a beginning of word, short of the whole word.
inline size_t overlap(std::string_view text, std::string_view word) {
  for (size_t length = std::min(text.size(), word.size() - 1); length > 0; --length)
    if (text.ends_with(word.substr(0, length))) return length;
  return 0;
}

}  // namespace sluice::chat
