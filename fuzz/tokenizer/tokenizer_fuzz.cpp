// A whole tokenizer.json on the first line, ids as bytes behind it: what opens also encodes, and
// decodes one by one as it decodes at once. Memory is bounded by the crate itself.
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sluice;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t line = std::min(text.find('\n'), size);
  const auto opened = tokenizer::Tokenizer::open({.tokenizer = text.substr(0, line)});
  if (!opened) {
    SLUICE_CHECK(!opened.error().message.empty());
    return 0;
  }
  std::vector<uint32_t> ids(data + line, data + size);
  const std::string_view rest = text.substr(line);
  if (const auto encoded = opened->encode(rest, true); encoded && encoded->size() < 4096)
    ids.insert(ids.end(), encoded->begin(), encoded->end());
  tokenizer::Decoder decoder(*opened, false);
  std::string joined;
  for (const uint32_t id : ids) {
    const auto piece = decoder.push(id);
    if (!piece) return 0;
    // A piece with half a character would not survive.
    SLUICE_CHECK(parse_json(dump_json(Json(*piece)), "fuzz").value() == *piece);
    joined += *piece;
  }
  if (const auto last = decoder.flush()) joined += *last;
  SLUICE_CHECK(opened->decode(ids, false).value_or("") == joined);
  return 0;
}
