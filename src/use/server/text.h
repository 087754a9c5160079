// Small questions about the ASCII of protocols, whatever the locale says. Header only.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

namespace sluice::server {

inline bool is_alphanumeric(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

inline std::string lower_case(std::string_view text) {
  std::string lower(text);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return lower;
}

inline int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// What a form's query ("a=b&c=d%20e") gives this key; empty where it gives nothing. Escapes that
// are none stay as they are.
inline std::string query_value(std::string_view query, std::string_view key) {
  std::string_view found;
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(pair.size() + 1, query.size()));
    if (pair.size() > key.size() && pair.starts_with(key) && pair[key.size()] == '=')
      found = pair.substr(key.size() + 1);
  }
  std::string value;
  for (size_t i = 0; i < found.size(); ++i) {
    const bool escape = found[i] == '%' && i + 2 < found.size() && hex_digit(found[i + 1]) >= 0 &&
                        hex_digit(found[i + 2]) >= 0;
    if (escape) {
      value += static_cast<char>(hex_digit(found[i + 1]) * 16 + hex_digit(found[i + 2]));
      i += 2;
    } else {
      value += found[i] == '+' ? ' ' : found[i];
    }
  }
  return value;
}

// Without spaces and tabs at both ends.
inline std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

}  // namespace sluice::server
