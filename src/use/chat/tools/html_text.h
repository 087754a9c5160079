// Web pages reduced to what can be read: text without markup, scripts and menus' styling, and where
// links lead. The only file that knows libxml2.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace sluice::chat {

struct HtmlLink {
  std::string address;  // as written: may be relative
  std::string text;
  std::string classes;  // the class attribute
};

struct HtmlText {
  std::string title;
  std::string text;  // a line for each block, no empty ones; UTF-8
  std::vector<HtmlLink> links;
};

// html: anything, of any encoding that it declares itself. Errors: kCorrupt for what even a browser
// would show nothing of; kUnsupported where the system has no libxml2.
Result<HtmlText> html_text(std::string_view html);

}  // namespace sluice::chat
