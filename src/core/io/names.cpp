// Checks of foreign names and text.
#include "io/names.h"

#include <cstdint>

namespace sluice::io {
namespace {

bool is_control(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte < 0x20 || byte == 0x7f;
}

// C1 controls are two bytes in UTF-8 (0xC2 0x80–0x9F); terminals obey them as well.
bool has_control(std::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (is_control(text[i])) return true;
    if (static_cast<unsigned char>(text[i]) == 0xc2 && i + 1 < text.size() &&
        static_cast<unsigned char>(text[i + 1]) < 0xa0)
      return true;
  }
  return false;
}

}  // namespace

bool is_utf8(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  for (size_t i = 0; i < text.size();) {
    const unsigned char first = byte(i);
    if (first < 0x80) {
      ++i;
      continue;
    }
    const size_t length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (first < 0xc2 || first > 0xf4 || text.size() - i < length) return false;
    uint32_t code = first & (0xffu >> (length + 1));
    for (size_t j = 1; j < length; ++j) {
      if ((byte(i + j) & 0xc0) != 0x80) return false;
      code = code << 6 | (byte(i + j) & 0x3fu);
    }
    const bool overlong = (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
    if (overlong || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return false;
    i += length;
  }
  return true;
}

Status check_tensor_name(std::string_view name, std::string_view label) {
  if (name.empty()) return fail(ErrorCode::kCorrupt, "{}: a tensor has an empty name", label);
  if (name.size() > kTensorNameBytesMax)
    return fail(ErrorCode::kCorrupt, "{}: tensor name of {} bytes (at most {}): {}", label,
                name.size(), kTensorNameBytesMax, printable(name));
  if (!is_utf8(name) || has_control(name))
    return fail(ErrorCode::kCorrupt, "{}: tensor name with control characters or invalid UTF-8: {}",
                label, printable(name));
  return {};
}

bool is_bare_file_name(std::string_view name) {
  if (name.empty() || name.size() > 255 || name == "." || name == "..") return false;
  if (name.find_first_of("/\\") != std::string_view::npos) return false;
  return is_utf8(name) && !has_control(name);
}

std::string printable(std::string_view text) {
  constexpr size_t kShown = 80;
  std::string out = "\"";
  for (const char c : text.substr(0, kShown)) {
    const auto byte = static_cast<unsigned char>(c);
    if (is_control(c) || byte >= 0x80)
      out += fmt::format("\\x{:02x}", byte);
    else
      out += c;
  }
  out += text.size() > kShown ? "…\"" : "\"";
  return out;
}

}  // namespace sluice::io
