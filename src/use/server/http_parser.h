// Requests of HTTP/1.1 out of a connection's bytes, strictly: what two programs could read in two
// ways (lengths that disagree, folded lines, spaces before colons, bare line feeds) is refused, so
// that nothing can be smuggled past whatever stands in front. Knows nothing of sockets.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sluice::server {

struct HttpRequest {
  std::string method, path, query;                           // as sent: nothing is unescaped
  int minor = 1;                                             // HTTP/1.minor
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;
  bool keep_alive = true, expects_continue = false;

  // The first of that name, which is in lower case; null when there is none.
  const std::string* header(std::string_view name) const;
};

struct HttpLimits {
  size_t head_bytes_max = 32 << 10;  // request line and headers
  size_t headers_max = 100;
  uint64_t body_bytes_max = 8 << 20;
};

// What is wrong with a request, as status and sentence. The connection is to be closed behind it.
struct HttpRefusal {
  int status = 400;
  std::string message;
};

// One connection's requests, one after another. One thread.
class HttpParser {
 public:
  enum class State : uint8_t { kHead, kBody, kComplete, kRefused };

  explicit HttpParser(const HttpLimits& limits) : limits_(limits) {}

  // Takes bytes up to the end of the head, and at the next call up to the end of the body; returns
  // how many. None are taken once complete or refused.
  size_t feed(std::string_view bytes);
  State state() const { return state_; }
  const HttpRefusal& refusal() const { return refusal_; }
  // The head from kBody on, the body too when complete.
  const HttpRequest& request() const { return request_; }
  // Gives the complete request, and begins the next one.
  HttpRequest take();
  // Nothing of a request has come yet.
  bool idle() const { return state_ == State::kHead && line_.empty() && !begun_; }

 private:
  enum class Chunk : uint8_t { kSize, kData, kDataEnd, kTrailer };

  void take_line(std::string_view line);
  void take_request_line(std::string_view line);
  void take_header(std::string_view line);
  void end_head();
  void choose_length();
  void take_chunk_line(std::string_view line);
  size_t feed_line(std::string_view bytes);
  size_t feed_data(std::string_view bytes);
  void refuse(int status, std::string message);

  HttpLimits limits_;
  State state_ = State::kHead;
  HttpRefusal refusal_;
  HttpRequest request_;
  std::string line_;
  size_t head_bytes_ = 0;
  bool begun_ = false, chunked_ = false;
  Chunk chunk_ = Chunk::kSize;
  uint64_t left_ = 0;  // of the body, or of its chunk
};

}  // namespace sluice::server
