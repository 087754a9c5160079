// What servers and users say of addresses: URLs, redirects, reply headers, hf:// names. Whatever is
// taken must read the same a second time, and no name may climb out of a folder.
#include <string_view>

#include "allocation_bound.h"
#include "base/error.h"
#include "io/http_headers.h"
#include "io/hub.h"
#include "io/pull.h"
#include "io/url.h"

using namespace sluice::io;

namespace {

void fuzz_url(std::string_view text) {
  const auto url = parse_url(text);
  if (!url) return;
  const auto again = parse_url(url->text());
  SLUICE_CHECK(again.has_value() && *again == *url);
  SLUICE_CHECK(url->text().starts_with(url->origin() + "/"));
}

void fuzz_headers(std::string_view text) {
  HttpHeaders headers;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (!headers.add(line)) break;
    parse_status_line(line);
    if (const auto range = parse_content_range(line))
      SLUICE_CHECK(range->first <= range->last && range->last < range->size);
    parse_unsatisfied_range(line);
    if (const auto wait = parse_retry_after(line, 1'700'000'000)) SLUICE_CHECK(*wait >= 0);
    const std::string etag = parse_etag(line);
    SLUICE_CHECK(etag.find_first_of("\r\n ") == std::string::npos);
    parse_next_link(line);
  }
}

void fuzz_address(std::string_view text) {
  const auto address = parse_hub_address(text);
  if (!address) return;
  for (const std::string& part : {address->repository, address->revision, address->folder})
    SLUICE_CHECK(("/" + part + "/").find("/../") == std::string::npos);
  const auto again = parse_hub_address(address->text());
  SLUICE_CHECK(again.has_value() && *again == *address);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const sluice::fuzz::AllocationBound bound(size);
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 4) {
    case 0: fuzz_url(text); break;
    case 1: fuzz_headers(text); break;
    case 2: fuzz_address(text); break;
    default: {
      const auto base = parse_url("https://host/folder/file?query");
      if (const auto url = resolve_reference(*base, text))
        SLUICE_CHECK(parse_url(url->text()).has_value());
      const size_t half = text.size() / 2;
      matches_pattern(text.substr(0, half), text.substr(half));
    }
  }
  return 0;
}
