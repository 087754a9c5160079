#include "report/frame.h"

#include "report/data/embedded.h"
#include "report/html.h"

namespace sluice::report {
namespace {

constexpr std::string_view kHead =
    R"(<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark"><meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"><link rel="icon" href="data:,">)";

}  // namespace

std::string page_start(std::string_view title) {
  std::string out = "<!doctype html>\n<html lang=\"en\"><head>";
  put(out, "{}<title>{}</title>\n<style>\n{}{}</style></head>\n<body><main>\n", kHead,
      escape(title), embedded_chart_css(), embedded_page_css());
  return out;
}

std::string page_end(std::string_view tool) {
  return fmt::format(
      "</main>\n<footer>{}</footer>\n<div id=\"tip\" role=\"status\" hidden></div>\n"
      "<script>\n{}</script>\n</body></html>\n",
      escape(tool), embedded_page_js());
}

void put_section(std::string& out, std::string_view id, std::string_view title,
                 std::string_view lead, std::string_view body) {
  if (body.empty()) return;
  put(out, R"(<section id="{}"><h2>{}</h2>)", id, title);
  if (!lead.empty()) put(out, R"(<p class="lead">{}</p>)", lead);
  put(out, "{}</section>\n", body);
}

}  // namespace sluice::report
