// The search engines' forms, and the functions of the tool "search".
#include "chat/tools/search_tool.h"

#include <algorithm>
#include <cctype>
#include <memory>

#include "chat/tools/function.h"
#include "chat/tools/html_text.h"

namespace sluice::chat {
namespace {

constexpr std::string_view kBraveAddress = "https://api.search.brave.com/res/v1/web/search";
constexpr std::string_view kDuckduckgoAddress = "https://html.duckduckgo.com/html/";

std::string encoded(std::string_view text) {
  std::string result;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || std::string_view("-._~").find(c) != std::string_view::npos)
      result += c;
    else
      result += fmt::format("%{:02X}", byte);
  }
  return result;
}

std::string decoded(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned value = 0;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::isxdigit(static_cast<unsigned char>(text[i + 1])) != 0 &&
        std::isxdigit(static_cast<unsigned char>(text[i + 2])) != 0) {
      value = static_cast<unsigned>(std::stoul(std::string(text.substr(i + 1, 2)), nullptr, 16));
      result += static_cast<char>(value);
      i += 2;
    } else {
      result += text[i];
    }
  }
  return result;
}

// Links of DuckDuckGo lead through a page of its own: …/l/?uddg=ADDRESS&rut=…
std::string direct_address(const std::string& link) {
  const size_t begin = link.find("uddg=");
  if (begin == std::string::npos) return link.starts_with("//") ? "https:" + link : link;
  const size_t start = begin + 5;
  return decoded(std::string_view(link).substr(start, link.find('&', start) - start));
}

bool is_web_address(std::string_view address) {
  return address.starts_with("http://") || address.starts_with("https://");
}

std::string member(const Json& object, std::string_view key) {
  const Json* value = json_find(object, key);
  return value != nullptr && value->is_string() ? value->get<std::string>() : "";
}

Result<std::vector<SearchHit>> hits_of_json(const Json& list, std::string_view snippet) {
  std::vector<SearchHit> hits;
  for (const Json& entry : list) {
    SearchHit hit{member(entry, "title"), member(entry, "url"), member(entry, snippet)};
    if (is_web_address(hit.url)) hits.push_back(std::move(hit));
  }
  return hits;
}

Result<std::vector<SearchHit>> hits_of_html(std::string_view body) {
  SLUICE_ASSIGN(const HtmlText page, html_text(body));
  std::vector<SearchHit> hits;
  for (const HtmlLink& link : page.links) {
    if (link.classes.find("result__a") != std::string::npos) {
      SearchHit hit{link.text, direct_address(link.address), ""};
      if (is_web_address(hit.url)) hits.push_back(std::move(hit));
    } else if (link.classes.find("result__snippet") != std::string::npos && !hits.empty()) {
      hits.back().snippet = link.text;
    }
  }
  return hits;
}

std::string engine_address(const SearchOptions& options, const std::string& query) {
  const std::string q = "?q=" + encoded(query);
  switch (options.engine) {
    case SearchEngine::kSearxng: return options.address + "/search" + q + "&format=json";
    case SearchEngine::kBrave:
      return (options.address.empty() ? std::string(kBraveAddress) : options.address) + q;
    case SearchEngine::kDuckduckgo: break;
  }
  return (options.address.empty() ? std::string(kDuckduckgoAddress) : options.address) + q;
}

// "text/html; charset=utf-8" is text/html.
std::string media_type(std::string_view content_type) {
  std::string type(content_type.substr(0, content_type.find_first_of("; ")));
  std::ranges::transform(type, type.begin(), [](unsigned char c) { return std::tolower(c); });
  return type;
}

}  // namespace

Result<SearchEngine> parse_search_engine(std::string_view name) {
  if (name == "searxng") return SearchEngine::kSearxng;
  if (name == "brave") return SearchEngine::kBrave;
  if (name == "duckduckgo") return SearchEngine::kDuckduckgo;
  return fail(ErrorCode::kInvalidArgument, "\"{}\" is none of searxng, brave, duckduckgo", name);
}

Result<std::vector<SearchHit>> parse_hits(SearchEngine engine, std::string_view body) {
  if (engine == SearchEngine::kDuckduckgo) return hits_of_html(body);
  const std::string_view label = "the search engine's answer";
  SLUICE_ASSIGN(const Json json, parse_json(body, label));
  if (engine == SearchEngine::kSearxng) {
    SLUICE_ASSIGN(const Json* list, json_array(json, "results", label));
    return hits_of_json(*list, "content");
  }
  const Json* web = json_find(json, "web");  // absent when there is nothing
  if (web == nullptr) return std::vector<SearchHit>();
  SLUICE_ASSIGN(const Json* list, json_array(*web, "results", label));
  return hits_of_json(*list, "description");
}

Result<std::unique_ptr<SearchTool>> SearchTool::make(SearchOptions options) {
  if (options.engine == SearchEngine::kSearxng && options.address.empty())
    return fail(ErrorCode::kInvalidArgument, "searxng needs the address of an instance");
  if (options.engine == SearchEngine::kBrave && options.key.empty())
    return fail(ErrorCode::kInvalidArgument, "brave needs a key of its API");
  SLUICE_CHECK(options.fetch_engine && options.fetch_page);
  return std::unique_ptr<SearchTool>(new SearchTool(std::move(options)));
}

OrderedJson SearchTool::functions() const {
  return OrderedJson::array(
      {function_json("web_search", "Searches the web; returns titles, addresses and snippets.",
                     {{"query", "what to search for"}}, {}),
       function_json("read_page", "Returns the text of a web page.",
                     {{"address", "beginning with https:// or http://"}}, {})});
}

Result<ToolPlan> SearchTool::plan(std::string_view function, const Json& arguments) {
  ToolPlan plan;
  plan.effect = ToolEffect::kSends;
  if (function == "web_search") {
    SLUICE_ASSIGN(const std::string query, text_argument(arguments, "query", kQueryBytesMax));
    if (query.empty()) return fail(ErrorCode::kInvalidArgument, "there is no query");
    plan.shown = fmt::format("search the web: {}", query);
    plan.run = [this, query](const CancelToken* cancel) { return search(query, cancel); };
    return plan;
  }
  SLUICE_ASSIGN(const std::string address, text_argument(arguments, "address", kAddressBytesMax));
  if (!is_web_address(address))
    return fail(ErrorCode::kInvalidArgument, "an address begins with https:// or http://");
  plan.shown = "read " + address;
  plan.run = [this, address](const CancelToken* cancel) { return read_page(address, cancel); };
  return plan;
}

Result<ToolOutput> SearchTool::search(const std::string& query, const CancelToken* cancel) const {
  std::vector<std::string> headers;
  if (options_.engine == SearchEngine::kBrave)
    headers.push_back("X-Subscription-Token: " + options_.key);
  SLUICE_ASSIGN(const WebPage page,
                options_.fetch_engine(engine_address(options_, query), headers, cancel));
  SLUICE_ASSIGN(std::vector<SearchHit> hits, parse_hits(options_.engine, page.body));
  if (hits.size() > kHitsMax) hits.resize(kHitsMax);
  ToolOutput output;
  for (const SearchHit& hit : hits)
    output.text += fmt::format("{}\n{}\n{}\n\n", hit.title, hit.url, hit.snippet);
  if (hits.empty()) output.text = "nothing found";
  return output;
}

Result<ToolOutput> SearchTool::read_page(const std::string& address,
                                         const CancelToken* cancel) const {
  SLUICE_ASSIGN(const WebPage page, options_.fetch_page(address, {}, cancel));
  const std::string type = media_type(page.content_type);
  // What was read is what is cited.
  if (type == "text/plain" || type == "application/json" || type == "text/markdown")
    return ToolOutput{page.body, {{page.address, page.address}}};
  if (type != "text/html" && type != "application/xhtml+xml")
    return fail(ErrorCode::kUnsupported, "{} is {}, not a page of text", page.address,
                type.empty() ? "of no stated type" : type);
  SLUICE_ASSIGN(HtmlText text, html_text(page.body));
  const std::string title = text.title.empty() ? page.address : text.title;
  return ToolOutput{fmt::format("{}\n\n{}", title, text.text), {{title, page.address}}};
}

}  // namespace sluice::chat
