// The tool "search": asks a search engine, and reads pages as text. How addresses are fetched, and
// which may be, is the business of the functions given; a model's text has no part in choosing
// them.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "chat/tools/tool.h"

namespace sluice::chat {

struct WebPage {
  std::string address;       // after redirects
  std::string content_type;  // as the server said
  std::string body;          // bounded by who fetched it
};
using WebFetch = std::function<Result<WebPage>(const std::string& address,
                                               const std::vector<std::string>& headers,
                                               const CancelToken* cancel)>;

enum class SearchEngine : uint8_t { kSearxng, kBrave, kDuckduckgo };
Result<SearchEngine> parse_search_engine(std::string_view name);  // "searxng", "brave" …

struct SearchOptions {
  SearchEngine engine = SearchEngine::kDuckduckgo;
  std::string address;  // of the engine; empty: the public one, which SearXNG has not
  std::string key;      // Brave's
  // Of the engine, which the user has chosen: wherever it is.
  WebFetch fetch_engine;
  // Of pages, which a model or another page has chosen: public addresses alone.
  WebFetch fetch_page;
};

struct SearchHit {
  std::string title, url, snippet;
  bool operator==(const SearchHit&) const = default;
};

// What an engine answered. Errors: kCorrupt.
Result<std::vector<SearchHit>> parse_hits(SearchEngine engine, std::string_view body);

class SearchTool : public Tool {
 public:
  static constexpr size_t kHitsMax = 8;
  static constexpr size_t kQueryBytesMax = 400;
  static constexpr size_t kAddressBytesMax = 2000;

  // kInvalidArgument when an engine lacks its address or key.
  static Result<std::unique_ptr<SearchTool>> make(SearchOptions options);

  std::string_view name() const override { return "search"; }
  OrderedJson functions() const override;
  Result<ToolPlan> plan(std::string_view function, const Json& arguments) override;

 private:
  explicit SearchTool(SearchOptions options) : options_(std::move(options)) {}
  Result<ToolOutput> search(const std::string& query, const CancelToken* cancel) const;
  Result<ToolOutput> read_page(const std::string& address, const CancelToken* cancel) const;

  const SearchOptions options_;
};

}  // namespace sluice::chat
