// Text of a model on a terminal: whatever it is and however it arrives, what is printed has no
// control characters but our own styles, and those are off at the end.
#include <string>
#include <string_view>

#include "base/error.h"
#include "chat/visible_text.h"
#include "cli/markdown.h"

namespace {

// Without "\x1b[…m"; any other escape stays.
std::string without_styles(std::string_view text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    const size_t end = text.substr(i).starts_with("\x1b[")
                           ? text.find_first_not_of("0123456789;", i + 2)
                           : std::string_view::npos;
    if (end != std::string_view::npos && text[end] == 'm')
      i = end;
    else
      plain += text[i];
  }
  return plain;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sluice;
  if (size == 0) return 0;
  const size_t piece_bytes = 1 + data[0] % 32;
  const std::string text = chat::visible_text({reinterpret_cast<const char*>(data + 1), size - 1});
  cli::Markdown markdown({.styles = true, .columns = 20});
  std::string shown;
  for (size_t at = 0; at < text.size(); at += piece_bytes)
    shown += markdown.feed(std::string_view(text).substr(at, piece_bytes));
  shown += markdown.finish();
  const std::string plain = without_styles(shown);
  SLUICE_CHECK(plain.find('\x1b') == std::string::npos);
  SLUICE_CHECK(chat::visible_text(plain) == plain);
  return 0;
}
