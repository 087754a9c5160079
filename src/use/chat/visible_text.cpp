#include "chat/visible_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <iterator>

namespace sluice::chat {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

struct Character {
  uint32_t code = 0;
  size_t bytes = 0;
  bool valid = false;
};

uint8_t byte_at(std::string_view text, size_t place) { return static_cast<uint8_t>(text[place]); }

// The first character of text, which is not empty. One byte that is none, where it is not UTF-8.
Character first_character(std::string_view text) {
  const uint8_t lead = byte_at(text, 0);
  if (lead < 0x80) return {lead, 1, true};
  const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return {0, 1, false};
  uint32_t code = lead & (0x7fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte_at(text, i) & 0xc0) != 0x80) return {0, 1, false};
    code = code << 6 | (byte_at(text, i) & 0x3f);
  }
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool valid = code >= kLeast[length] && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
  return valid ? Character{code, length, true} : Character{0, 1, false};
}

struct Range {
  uint32_t first, last;
};

template <size_t count>
bool within(const Range (&ranges)[count], uint32_t code) {
  return std::ranges::any_of(
      ranges, [code](const Range& range) { return code >= range.first && code <= range.last; });
}

// Controls beyond ASCII, those of direction, and separators that some terminals take for line ends.
constexpr Range kObeyed[] = {{0x80, 0x9f},     {0x061c, 0x061c}, {0x200e, 0x200f},
                             {0x2028, 0x202e}, {0x2066, 0x2069}, {0xe0001, 0xe007f}};
// Unicode's East Asian Width W and F, and emoji, in blocks.
constexpr Range kWide[] = {
    {0x1100, 0x115f},   {0x231a, 0x231b},   {0x23e9, 0x23ec},   {0x25fd, 0x25fe},
    {0x2614, 0x2615},   {0x2648, 0x2653},   {0x26a1, 0x26a1},   {0x26bd, 0x26be},
    {0x26d4, 0x26d4},   {0x2705, 0x2705},   {0x270a, 0x270b},   {0x2728, 0x2728},
    {0x274c, 0x274c},   {0x2753, 0x2757},   {0x2795, 0x2797},   {0x2b50, 0x2b50},
    {0x2e80, 0x303e},   {0x3041, 0xa4cf},   {0xa960, 0xa97f},   {0xac00, 0xd7a3},
    {0xf900, 0xfaff},   {0xfe30, 0xfe6f},   {0xff01, 0xff60},   {0xffe0, 0xffe6},
    {0x1f300, 0x1f64f}, {0x1f680, 0x1f6ff}, {0x1f900, 0x1f9ff}, {0x1fa70, 0x1faff},
    {0x20000, 0x3fffd}};
constexpr Range kJoined[] = {
    {0x0300, 0x036f}, {0x0483, 0x0489}, {0x0591, 0x05bd},   {0x0610, 0x061a},
    {0x064b, 0x065f}, {0x0e31, 0x0e31}, {0x0e34, 0x0e3a},   {0x0e47, 0x0e4e},
    {0x1ab0, 0x1aff}, {0x1dc0, 0x1dff}, {0x200b, 0x200d},   {0x20d0, 0x20f0},
    {0xfe00, 0xfe0f}, {0xfe20, 0xfe2f}, {0x1f3fb, 0x1f3ff}, {0xe0100, 0xe01ef}};

size_t columns_of(uint32_t code) {
  if (code < 0x300) return 1;
  if (within(kJoined, code)) return 0;
  return within(kWide, code) ? 2 : 1;
}

}  // namespace

std::string visible_text(std::string_view text) {
  std::string shown;
  shown.reserve(text.size());
  while (!text.empty()) {
    const Character character = first_character(text);
    const uint32_t code = character.code;
    if (!character.valid)
      shown += kReplacement;
    else if (code == '\n' || code == '\t' || (code >= 0x20 && code < 0x7f))
      shown += static_cast<char>(code);
    else if (code <= 0x7f)
      shown += {'^', static_cast<char>(code ^ 0x40)};
    else if (within(kObeyed, code))
      fmt::format_to(std::back_inserter(shown), "<U+{:04X}>", code);
    else
      shown += text.substr(0, character.bytes);
    text.remove_prefix(character.bytes);
  }
  return shown;
}

size_t text_columns(std::string_view utf8) {
  size_t columns = 0;
  while (!utf8.empty()) {
    const Character character = first_character(utf8);
    columns += character.valid ? columns_of(character.code) : 1;
    utf8.remove_prefix(character.bytes);
  }
  return columns;
}

std::string_view fitting(std::string_view utf8, size_t columns) {
  size_t length = 0;
  while (length < utf8.size()) {
    const Character character = first_character(utf8.substr(length));
    const size_t width = character.valid ? columns_of(character.code) : 1;
    if (width > columns) break;
    columns -= width;
    length += character.bytes;
  }
  return utf8.substr(0, length);
}

}  // namespace sluice::chat
