// Foreign bytes of a connection: the first byte says how they are cut into pieces; what comes out
// as a request is held against the guard, and its body is read as every kind of request. Pieces
// must make no difference, nor the order of keys to what is JSON.
#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "server/guard.h"
#include "server/requests.h"
#include "server/responses.h"
#include "server/session_store.h"
#include "server/text.h"

namespace {

using namespace sluice;

server::HttpParser parse(std::string_view bytes, size_t piece) {
  server::HttpParser parser({.head_bytes_max = 4096, .headers_max = 20, .body_bytes_max = 4096});
  while (!bytes.empty() && parser.state() < server::HttpParser::State::kComplete)
    bytes.remove_prefix(parser.feed(bytes.substr(0, piece)));
  return parser;
}

void read_body(std::string_view body) {
  const auto json = parse_ordered_json(body, "the body");
  const auto sorted = parse_json(body, "the body");
  SLUICE_CHECK(json.has_value() == sorted.has_value());
  if (!json) return;
  SLUICE_CHECK(Json(*json) == *sorted);
  server::RequestDefaults defaults;
  defaults.vocabulary = 100;
  (void)server::parse_chat_request(*json, defaults);
  (void)server::parse_completion_request(*json, defaults);
  (void)server::requested_model(*json);
  (void)server::previous_response(*json);
  (void)server::parse_responses_request(*json, defaults, {});
  (void)server::parse_embedding_request(*json, 100, 8);
  if (const auto session = server::parse_session_request(*json))
    (void)server::check_session_name(session->name);
  (void)server::parse_tokenize_request(*json);
  (void)server::parse_detokenize_request(*json, 100);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  server::HttpParser whole = parse(bytes, bytes.size() + 1);
  const server::HttpParser pieces = parse(bytes, 1 + data[0] % 64);
  if (whole.state() != pieces.state() || whole.request().body != pieces.request().body ||
      whole.request().headers != pieces.request().headers)
    std::abort();
  read_body(bytes);
  if (whole.state() != server::HttpParser::State::kComplete) return 0;
  const server::HttpRequest request = whole.take();
  (void)server::query_value(request.query, "model");
  server::GuardOptions options;
  options.token = "secret";
  (void)server::check_request(request, options);
  read_body(request.body);
  return 0;
}
