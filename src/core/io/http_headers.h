// What servers say in the header of a reply. All of it is foreign input: each value is taken in its
// strict form or not at all.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"

namespace sluice::io {

// The header fields of one reply. Value.
class HttpHeaders {
 public:
  // One line without its end. False for more lines or bytes than any server has reason to send.
  bool add(std::string_view line);
  // The first value of that name, which is given in lower case; without blanks around it.
  std::optional<std::string_view> find(std::string_view name) const;

 private:
  std::vector<std::pair<std::string, std::string>> fields_;  // names in lower case
  size_t bytes_ = 0;
};

// "HTTP/1.1 206 Partial Content" is 206.
std::optional<int> parse_status_line(std::string_view line);

// Digits alone; none for what does not fit.
std::optional<uint64_t> parse_decimal(std::string_view text);

struct ContentRange {
  uint64_t first = 0, last = 0;  // inclusive, first ≤ last < size
  uint64_t size = 0;             // of the whole file
  bool operator==(const ContentRange&) const = default;
};
// "bytes 0-99/1234". None for another unit or order, or an unknown size.
std::optional<ContentRange> parse_content_range(std::string_view value);
// "bytes */1234", with the status 416.
std::optional<uint64_t> parse_unsatisfied_range(std::string_view value);

// Retry-After: seconds, or a date seen from now_s (seconds since 1970). Never negative.
std::optional<double> parse_retry_after(std::string_view value, int64_t now_s);

// An entity tag with its quotes, W/ in front of a weak one. Empty for anything else.
std::string parse_etag(std::string_view value);
bool is_strong_etag(std::string_view etag);
// What stands between the quotes.
std::string_view etag_text(std::string_view etag);

// Link: <https://…>; rel="next". The address of that relation.
std::optional<std::string> parse_next_link(std::string_view value);

}  // namespace sluice::io
