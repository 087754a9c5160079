// Rules for names that come out of foreign files. Private to io.
#pragma once

#include <cstddef>
#include <string_view>

#include "base/error.h"

namespace sluice::io {

// Real tensor names stay below 150 bytes.
inline constexpr size_t kTensorNameBytesMax = 1024;
// llama.cpp stops at 4; Hugging Face checkpoints reach 5 (convolutions over video).
inline constexpr size_t kRankMax = 8;

// Well-formed UTF-8: no overlong forms, surrogates, or code points above U+10FFFF.
bool is_utf8(std::string_view text);

// Not empty, at most kTensorNameBytesMax bytes of UTF-8, and no control characters, which would
// reach a terminal with the next error message. label: the file.
Status check_tensor_name(std::string_view name, std::string_view label);

// A bare file name: no folder part, nothing a path could climb out with, no control characters.
bool is_bare_file_name(std::string_view name);

// For messages: control and non-ASCII bytes shown as \xNN, at most 80 bytes of it.
std::string printable(std::string_view text);

}  // namespace sluice::io
