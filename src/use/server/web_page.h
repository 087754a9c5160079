// The web page as the program holds it: one HTML file, and the policy it is to be served under. The
// source is made at build time from ui/.
#pragma once

#include <string_view>

namespace sluice::server {

struct Page {
  std::string_view html;                     // UTF-8, for the life of the program
  std::string_view content_security_policy;  // the value of the header
};

Page web_page();

}  // namespace sluice::server
