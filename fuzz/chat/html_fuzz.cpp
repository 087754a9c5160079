// Web pages as anybody may serve them: what becomes of them is lines that are not empty, of bounded
// length and fit to be shown; hits of a page of results are addresses of the web.
#include <algorithm>
#include <string>
#include <string_view>

#include "base/json.h"
#include "chat/tools/html_text.h"
#include "chat/tools/search_tool.h"
#include "chat/visible_text.h"

namespace {

using namespace sluice;

// Names of entities grow when they become characters, but not by much: "&nGt;" is six bytes.
constexpr size_t kGrowthMax = 4, kGrowthBytes = 64;

void check(const chat::HtmlText& page, size_t size) {
  SLUICE_CHECK(page.text.find("\n\n") == std::string::npos);
  SLUICE_CHECK(!page.text.starts_with('\n'));
  SLUICE_CHECK(page.text.size() <= kGrowthMax * size + kGrowthBytes);
  // What is not shown whole is no event of the server's either.
  SLUICE_CHECK(!dump_json(Json(chat::visible_text(page.text))).empty());
  for (const chat::HtmlLink& link : page.links)
    SLUICE_CHECK(link.text.empty() || (link.text.front() != ' ' && link.text.back() != '\n'));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view html(reinterpret_cast<const char*>(data), size);
  const auto page = chat::html_text(html);
  if (page) check(*page, size);
  const auto hits = chat::parse_hits(chat::SearchEngine::kDuckduckgo, html);
  SLUICE_CHECK(hits.has_value() == page.has_value());
  if (hits)
    for (const chat::SearchHit& hit : *hits) SLUICE_CHECK(hit.url.starts_with("http"));
  return 0;
}
