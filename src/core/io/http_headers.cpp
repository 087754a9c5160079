#include "io/http_headers.h"

#include <algorithm>
#include <charconv>
#include <chrono>

namespace sluice::io {
namespace {

constexpr size_t kFieldsMax = 200;
constexpr size_t kHeaderBytesMax = 64 << 10;

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n";
  const size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

// Behind "bytes ".
std::optional<std::string_view> behind_unit(std::string_view value) {
  constexpr std::string_view kUnit = "bytes ";
  value = trimmed(value);
  if (!value.starts_with(kUnit)) return std::nullopt;
  return value.substr(kUnit.size());
}

}  // namespace

bool HttpHeaders::add(std::string_view line) {
  bytes_ += line.size();
  if (fields_.size() >= kFieldsMax || bytes_ > kHeaderBytesMax) return false;
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || colon == 0) return true;  // no field: passed over
  std::string name(line.substr(0, colon));
  for (char& c : name)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  fields_.emplace_back(std::move(name), trimmed(line.substr(colon + 1)));
  return true;
}

std::optional<std::string_view> HttpHeaders::find(std::string_view name) const {
  const auto found = std::ranges::find(fields_, name, [](const auto& f) { return f.first; });
  if (found == fields_.end()) return std::nullopt;
  return found->second;
}

std::optional<int> parse_status_line(std::string_view line) {
  if (!line.starts_with("HTTP/")) return std::nullopt;
  const size_t blank = line.find(' ');
  if (blank == std::string_view::npos) return std::nullopt;
  const std::string_view code = line.substr(blank + 1, 3);
  const auto value = code.size() == 3 ? parse_decimal(code) : std::nullopt;
  if (!value || *value < 100 || *value > 599) return std::nullopt;
  return static_cast<int>(*value);
}

std::optional<uint64_t> parse_decimal(std::string_view text) {
  uint64_t value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<ContentRange> parse_content_range(std::string_view value) {
  const auto range = behind_unit(value);
  if (!range) return std::nullopt;
  const size_t dash = range->find('-'), slash = range->find('/');
  if (dash == std::string_view::npos || slash == std::string_view::npos || dash > slash)
    return std::nullopt;
  const auto first = parse_decimal(range->substr(0, dash));
  const auto last = parse_decimal(range->substr(dash + 1, slash - dash - 1));
  const auto size = parse_decimal(range->substr(slash + 1));
  if (!first || !last || !size || *first > *last || *last >= *size) return std::nullopt;
  return ContentRange{*first, *last, *size};
}

std::optional<uint64_t> parse_unsatisfied_range(std::string_view value) {
  const auto range = behind_unit(value);
  if (!range || !range->starts_with("*/")) return std::nullopt;
  return parse_decimal(range->substr(2));
}

namespace {

// "Sun, 06 Nov 1994 08:49:37 GMT", as seconds since 1970. Not by strptime, which follows the
// locale.
std::optional<int64_t> parse_date(std::string_view value) {
  static constexpr std::string_view kMonths = "JanFebMarAprMayJunJulAugSepOctNovDec";
  if (value.size() != 29 || value.substr(3, 2) != ", " || value.substr(25) != " GMT")
    return std::nullopt;
  const auto number = [&](size_t at, size_t count) {
    return parse_decimal(value.substr(at, count));
  };
  const size_t month = kMonths.find(value.substr(8, 3));
  const auto day = number(5, 2), year = number(12, 4), hour = number(17, 2), minute = number(20, 2),
             second = number(23, 2);
  if (month == std::string_view::npos || month % 3 != 0 || !day || !year || !hour || !minute ||
      !second || *year < 1970 || *day < 1 || *day > 31 || *hour > 23 || *minute > 59 ||
      *second > 60)
    return std::nullopt;
  const std::chrono::sys_days date{std::chrono::year(static_cast<int>(*year)) /
                                   std::chrono::month(static_cast<unsigned>(month / 3 + 1)) /
                                   std::chrono::day(static_cast<unsigned>(*day))};
  return date.time_since_epoch().count() * 86400 +
         static_cast<int64_t>(*hour * 3600 + *minute * 60 + *second);
}

}  // namespace

std::optional<double> parse_retry_after(std::string_view value, int64_t now_s) {
  value = trimmed(value);
  if (const auto seconds = parse_decimal(value)) return static_cast<double>(*seconds);
  const std::optional<int64_t> when = parse_date(value);
  if (!when) return std::nullopt;
  return static_cast<double>(std::max<int64_t>(0, *when - now_s));
}

std::string parse_etag(std::string_view value) {
  value = trimmed(value);
  const std::string_view quoted = value.starts_with("W/") ? value.substr(2) : value;
  if (quoted.size() < 2 || quoted.size() > 512 || !quoted.starts_with('"') ||
      !quoted.ends_with('"'))
    return {};
  const std::string_view inside = quoted.substr(1, quoted.size() - 2);
  if (std::ranges::any_of(inside, [](char c) {
        return c == '"' || static_cast<unsigned char>(c) <= 0x20 || c == 0x7f;
      }))
    return {};
  return std::string(value);
}

bool is_strong_etag(std::string_view etag) { return etag.starts_with('"'); }

std::string_view etag_text(std::string_view etag) {
  if (etag.starts_with("W/")) etag.remove_prefix(2);
  return etag.size() < 2 ? std::string_view() : etag.substr(1, etag.size() - 2);
}

std::optional<std::string> parse_next_link(std::string_view value) {
  while (!value.empty()) {
    const size_t open = value.find('<');
    const size_t close = value.find('>', open == std::string_view::npos ? 0 : open);
    if (open == std::string_view::npos || close == std::string_view::npos) return std::nullopt;
    const size_t end = std::min(value.find(", <", close), value.size());
    const std::string_view parameters = value.substr(close, end - close);
    if (parameters.find("rel=\"next\"") != std::string_view::npos ||
        parameters.find("rel=next") != std::string_view::npos)
      return std::string(value.substr(open + 1, close - open - 1));
    value = value.substr(end);
  }
  return std::nullopt;
}

}  // namespace sluice::io
