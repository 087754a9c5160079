#include "io/python_json.h"

#include <utility>

namespace sluice::io {
namespace {

// The longer name first, which the shorter one ends.
constexpr std::pair<std::string_view, std::string_view> kNumbers[] = {
    {"-Infinity", "-1.7976931348623157e308"},
    {"Infinity", "1.7976931348623157e308"},
    {"NaN", "null"}};

// The end of the string that begins at that quote, or of the text.
size_t string_end(std::string_view text, size_t quote) {
  for (size_t i = quote + 1; i < text.size(); ++i) {
    if (text[i] == '\\')
      ++i;
    else if (text[i] == '"')
      return i + 1;
  }
  return text.size();
}

}  // namespace

std::string without_python_numbers(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    if (text[i] == '"') {
      const size_t end = string_end(text, i);
      out += text.substr(i, end - i);
      i = end;
      continue;
    }
    const auto* found = std::begin(kNumbers);
    while (found != std::end(kNumbers) && !text.substr(i).starts_with(found->first)) ++found;
    if (found == std::end(kNumbers)) {
      out += text[i++];
    } else {
      out += found->second;
      i += found->first.size();
    }
  }
  return out;
}

}  // namespace sluice::io
