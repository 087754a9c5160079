// Search engines' answers, pages as text, against functions that stand in for the network.
#include "chat/tools/search_tool.h"

#include <gtest/gtest.h>

#include "chat/tools/html_text.h"

namespace sluice::chat {
namespace {

TEST(HtmlText, KeepsWhatCanBeRead) {
  const auto page = html_text(
      "<html><head><title> A  title</title><style>b{}</style></head><body><script>evil()</script>"
      "<h1>Head</h1><p>One <b>two</b>\n three&amp;</p><ul><li>x<li>y</ul>"
      "<a class='k m' href='/z?a=1&amp;b'>li<i>nk</i></a></body>");
  ASSERT_TRUE(page);
  EXPECT_EQ(page->title, "A title");
  EXPECT_EQ(page->text, "Head\nOne two three&\nx\ny\nlink\n");
  ASSERT_EQ(page->links.size(), 1u);
  EXPECT_EQ(page->links[0].address, "/z?a=1&b");
  EXPECT_EQ(page->links[0].text, "link");
  EXPECT_EQ(page->links[0].classes, "k m");
}

TEST(HtmlText, BrokenPagesAreNoTrouble) {
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "<div>";
  (void)html_text(deep + "x");
  EXPECT_FALSE(html_text(""));
  for (const char* text : {"<", "<a", "</b>", "<!--", "<a href='", "&#x110000;", "\xff\xfe<p>",
                           "<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><p>&a;</p>"}) {
    const auto page = html_text(text);
    if (page) {
      EXPECT_EQ(page->text.find("root:"), std::string::npos);
    }
  }
}

TEST(ParseHits, OfEveryEngine) {
  const std::vector<SearchHit> expected = {{"T", "https://a.org/x?y=1", "S"}};
  EXPECT_EQ(parse_hits(SearchEngine::kSearxng,
                       R"({"results":[{"title":"T","url":"https://a.org/x?y=1","content":"S"},
                           {"title":"bad","url":"javascript:x"},{"url":7},3]})")
                .value(),
            expected);
  EXPECT_EQ(parse_hits(SearchEngine::kBrave,
                       R"({"web":{"results":[{"title":"T","url":"https://a.org/x?y=1",
                           "description":"S"}]}})")
                .value(),
            expected);
  EXPECT_EQ(parse_hits(SearchEngine::kDuckduckgo,
                       "<a class='result__a' "
                       "href='//duckduckgo.com/l/?uddg=https%3A%2F%2Fa.org%2Fx%3Fy%3D1&amp;rut=1'>T"
                       "</a><a class='result__snippet' href='#'>S</a>")
                .value(),
            expected);
  EXPECT_EQ(parse_hits(SearchEngine::kBrave, "{}")->size(), 0u);
  EXPECT_FALSE(parse_hits(SearchEngine::kSearxng, "{}"));
  EXPECT_FALSE(parse_hits(SearchEngine::kSearxng, "<html>"));
  EXPECT_FALSE(parse_hits(SearchEngine::kBrave, R"({"web":{"results":7}})"));
}

class SearchToolTest : public testing::Test {
 protected:
  Result<ToolOutput> call(std::string_view function, const Json& arguments) {
    SearchOptions options{SearchEngine::kBrave, "", "KEY", fetch(engine_), fetch(pages_)};
    SLUICE_ASSIGN(const auto tool, SearchTool::make(std::move(options)));
    SLUICE_ASSIGN(const ToolPlan plan, tool->plan(function, arguments));
    EXPECT_EQ(plan.effect, ToolEffect::kSends);
    return plan.run(nullptr);
  }
  WebFetch fetch(std::vector<std::string>& asked) {
    return [this, &asked](const std::string& address, const std::vector<std::string>& headers,
                          const CancelToken*) -> Result<WebPage> {
      asked.push_back(address);
      headers_ = headers;
      return page_;
    };
  }
  WebPage page_;
  std::vector<std::string> engine_, pages_, headers_;
};

TEST_F(SearchToolTest, AsksTheEngineWithItsKey) {
  page_ = {"", "application/json", R"({"web":{"results":[]}})"};
  EXPECT_EQ(call("web_search", {{"query", "a b&c"}})->text, "nothing found");
  ASSERT_EQ(engine_.size(), 1u);
  EXPECT_TRUE(engine_[0].ends_with("?q=a%20b%26c"));
  EXPECT_EQ(headers_.at(0), "X-Subscription-Token: KEY");
}

TEST_F(SearchToolTest, ReadsPagesWithoutTheKeyAndCitesThem) {
  page_ = {"https://a.org/2", "Text/HTML; charset=utf-8", "<title>T</title><p>body"};
  const auto output = call("read_page", {{"address", "https://a.org/1"}});
  ASSERT_TRUE(output);
  EXPECT_EQ(output->text, "T\n\nbody\n");
  EXPECT_EQ(output->sources, (std::vector<ToolSource>{{"T", "https://a.org/2"}}));
  EXPECT_TRUE(engine_.empty()) << "pages must go by the function that refuses addresses";
  EXPECT_TRUE(headers_.empty());
}

TEST_F(SearchToolTest, RefusesWhatIsNoPage) {
  for (const char* type : {"", "image/png", "application/octet-stream", "text/html2"}) {
    page_ = {"https://a.org/", type, "x"};
    EXPECT_FALSE(call("read_page", {{"address", "https://a.org/"}})) << type;
  }
  pages_.clear();
  for (const char* address : {"file:///etc/passwd", "ftp://a/", "gopher://a", "", "/etc/passwd"})
    EXPECT_FALSE(call("read_page", {{"address", address}})) << address;
  EXPECT_TRUE(pages_.empty());
}

TEST(SearchTool, NeedsAddressOrKey) {
  const WebFetch none = [](const std::string&, const std::vector<std::string>&,
                           const CancelToken*) -> Result<WebPage> { return WebPage{}; };
  EXPECT_FALSE(SearchTool::make({SearchEngine::kSearxng, "", "", none, none}));
  EXPECT_FALSE(SearchTool::make({SearchEngine::kBrave, "", "", none, none}));
  EXPECT_TRUE(SearchTool::make({SearchEngine::kDuckduckgo, "", "", none, none}));
  EXPECT_FALSE(parse_search_engine("google"));
}

}  // namespace
}  // namespace sluice::chat
