// The known word that a misspelt one was probably meant to be, for messages.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace sluice {

// Levenshtein's distance in bytes.
size_t edit_distance(std::string_view a, std::string_view b);

// The candidate nearest to word, the first of equals; nothing when even that differs in more than
// two characters or a third of the word, whichever is more.
std::string nearest_word(std::string_view word, std::span<const std::string> candidates);

// "; did you mean \"threads\"?" for the end of a sentence, or nothing.
std::string did_you_mean(std::string_view word, std::span<const std::string> candidates);

}  // namespace sluice
