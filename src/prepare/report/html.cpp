#include "report/html.h"

#include <cmath>
#include <iterator>

namespace sluice::report {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";
// The style cuts what is longer than this; the tip has all of it.
constexpr size_t kNameCharacters = 52;

// Length of the well-formed UTF-8 sequence at the start of text and its code point; 0: none.
size_t decode_utf8(std::string_view text, uint32_t& code) {
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) {
    code = lead;
    return 1;
  }
  const size_t length = lead >= 0xf0 && lead < 0xf5 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc2 ? 2 : 0;
  if (length == 0 || lead >= 0xf5 || text.size() < length) return 0;
  code = lead & (0x7fu >> length);
  for (size_t i = 1; i < length; ++i) {
    const auto next = static_cast<unsigned char>(text[i]);
    if ((next & 0xc0) != 0x80) return 0;
    code = code << 6 | (next & 0x3fu);
  }
  constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code >= 0xd800 && code < 0xe000;
  return code < kSmallest[length] || code > 0x10ffff || surrogate ? 0 : length;
}

// Marks that turn the reading direction of what follows, and would let a name rewrite its
// neighbours.
bool is_direction_mark(uint32_t code) {
  return (code >= 0x200e && code <= 0x200f) || (code >= 0x202a && code <= 0x202e) ||
         (code >= 0x2066 && code <= 0x2069);
}

}  // namespace

std::string escape(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    uint32_t code = 0;
    const size_t length = decode_utf8(text, code);
    const bool control = code < 0x20 || (code >= 0x7f && code < 0xa0);
    if (length == 0 || control || is_direction_mark(code)) {
      out += kReplacement;
    } else {
      switch (code) {
        case '&': out += "&amp;"; break;
        case '<': out += "&lt;"; break;
        case '>': out += "&gt;"; break;
        case '"': out += "&quot;"; break;
        case '\'': out += "&#39;"; break;
        default: out += text.substr(0, length);
      }
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return out;
}

std::string name_html(std::string_view name) {
  const std::string text = escape(name);
  return name.size() <= kNameCharacters ? fmt::format("<code>{}</code>", text)
                                        : fmt::format(R"(<code data-tip="{0}">{0}</code>)", text);
}

std::string coordinate(double value) {
  const double rounded = std::round(value * 10) / 10;
  return fmt::format("{:g}", rounded == 0 ? 0.0 : rounded);
}

std::string db_text(double db) {
  return std::isinf(db) && db > 0 ? "exact" : fmt::format("{:.2f} dB", db);
}

std::string count_text(uint64_t count) {
  constexpr std::string_view kUnits[] = {"", " k", " M", " B", " T"};
  auto value = static_cast<double>(count);
  size_t unit = 0;
  while (value >= 999.95 && unit + 1 < std::size(kUnits)) {
    value /= 1000;
    ++unit;
  }
  const int decimals = unit == 0 ? 0 : value < 9.9995 ? 3 : value < 99.995 ? 2 : 1;
  return fmt::format("{:.{}f}{}", value, decimals, kUnits[unit]);
}

std::string percent_text(double part, double whole) {
  if (whole <= 0) return "0 %";
  return fmt::format("{:.1f} %", 100 * part / whole);
}

std::string power_text(int exponent) {
  constexpr std::string_view kDigits[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
  std::string out = exponent < 0 ? "10⁻" : "10";
  for (const char digit : fmt::format("{}", std::abs(exponent)))
    out += kDigits[static_cast<size_t>(digit - '0')];
  return out;
}

}  // namespace sluice::report
