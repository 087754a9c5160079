// Foreign text made safe to show: what a terminal would obey instead of showing is spelled out, so
// that a model, a page or a tool can neither move the cursor nor hide what it does.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace sluice::chat {

// Line ends and tabs stay. Other control characters become "^[" or "<U+0085>", and so do those that
// turn the direction of text around; bytes that are no UTF-8 become U+FFFD. A piece of a stream
// must end between characters.
std::string visible_text(std::string_view text);

// Columns that a terminal takes for it: two for East Asian characters and emoji, none for marks
// that join the character before. Text without control characters.
size_t text_columns(std::string_view utf8);

// The longest beginning that fits into so many columns.
std::string_view fitting(std::string_view utf8, size_t columns);

}  // namespace sluice::chat
