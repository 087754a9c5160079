#include "cli/web_fetch.h"

#include "io/http_client.h"

namespace sluice::cli {
namespace {

constexpr uint64_t kPageBytesMax = 4 << 20;
constexpr unsigned kSeconds = 30;

Result<chat::WebPage> fetch(bool public_only, const std::string& address,
                            const std::vector<std::string>& headers, const CancelToken* cancel) {
  io::HttpOptions options;
  options.attempts_max = 2;
  options.connect_timeout_s = 10;
  options.total_s = kSeconds;
  options.public_only = public_only;
  options.cancel = cancel;
  io::HttpClient client(options);
  io::HttpRequest request;
  SLUICE_ASSIGN(request.url, io::parse_url(address));
  request.headers = headers;
  request.body_bytes_max = kPageBytesMax;
  SLUICE_ASSIGN(io::HttpReply reply, client.fetch_existing(request));
  return chat::WebPage{reply.url.text(),
                       std::string(reply.headers.find("content-type").value_or("")),
                       std::move(reply.body)};
}

chat::WebFetch fetcher(bool public_only) {
  return [public_only](const std::string& address, const std::vector<std::string>& headers,
                       const CancelToken* cancel) {
    return fetch(public_only, address, headers, cancel);
  };
}

}  // namespace

chat::WebFetch fetch_public() { return fetcher(true); }
chat::WebFetch fetch_chosen() { return fetcher(false); }

}  // namespace sluice::cli
