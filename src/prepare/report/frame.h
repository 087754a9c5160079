// What is around the content of every page: nothing is loaded from anywhere, style and script are
// the page's own. Private to report.
#pragma once

#include <string>
#include <string_view>

namespace sluice::report {

// Up to and with the opening of <main>.
std::string page_start(std::string_view title);
// tool: who made the page, for the footer.
std::string page_end(std::string_view tool);

// Nothing when body is empty. title, lead and body are HTML.
void put_section(std::string& out, std::string_view id, std::string_view title,
                 std::string_view lead, std::string_view body);

}  // namespace sluice::report
