// Requests over http and https, and the only file that knows libcurl's ways: one exchange at a time
// on connections that are kept, redirects followed with a token that never leaves its origin, waits
// between attempts that end. What is asked for, and what the answer means, is the caller's
// business.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "io/byte_source.h"
#include "io/http_headers.h"
#include "io/url.h"

namespace sluice::io {

struct HttpOptions {
  std::string token;         // sent as Authorization: Bearer, to token_origin and nowhere else
  std::string token_origin;  // as Url::origin()
  std::string ca_file;       // certificates to trust instead of the system's; empty: the system's
  // Attempts that bring nothing, one after another.
  unsigned attempts_max = 8;
  double wait_first_s = 0.5, wait_max_s = 30;  // doubled each time, less a random part
  double retry_after_max_s = 300;              // a server that asks for more is given up
  unsigned connect_timeout_s = 20;
  // A transfer slower than this for so long is a dropped one.
  unsigned low_speed_bytes = 1024, low_speed_s = 30;
  unsigned total_s = 0;  // of one exchange with one address; 0: no limit
  // Connects to public addresses alone (io/address.h): what counts is the address that the socket
  // is about to be connected to, of every redirect too, so that no name can be resolved to another
  // one afterwards. Proxies are then not used.
  bool public_only = false;
  const CancelToken* cancel = nullptr;
  Log* log = nullptr;  // told of the longer waits
};

struct HttpReply {
  int status = 0;
  Url url;  // after redirects
  HttpHeaders headers;
  HttpHeaders first_headers;  // of the first redirect, or of the reply itself
  std::string body;           // unless a receiver took it; of a failure its beginning
};

// Takes the body of a reply with a status of 2xx. An error ends the exchange with it.
class HttpReceiver {
 public:
  virtual ~HttpReceiver() = default;
  virtual Status begin(const HttpReply& reply) = 0;
  virtual Status take(std::span<const std::byte> bytes) = 0;
};

struct HttpRequest {
  std::string method = "GET";
  Url url;
  std::vector<std::string> headers = {};  // "Name: value"
  std::string body = {};                  // of POST and PUT
  const ByteSource* upload = nullptr;
  uint64_t upload_offset = 0, upload_bytes = 0;
  uint64_t body_bytes_max = 16 << 20;  // of a reply that is kept as text
  HttpReceiver* receiver = nullptr;
  Progress* progress = nullptr;  // advanced by the bytes uploaded
};

// Why an exchange brought no reply, and whether another attempt may.
struct HttpFailure {
  Error error;
  bool transient = false;
  std::optional<double> retry_after_s;  // what the server asked for
};
using HttpResult = std::expected<HttpReply, HttpFailure>;

// A status that asks for another attempt: 408, 425, 429 and failures of the server.
bool is_transient_status(int status);

// The waits between attempts. One thread.
class HttpRetry {
 public:
  explicit HttpRetry(const HttpOptions& options);
  // Something arrived: the count begins anew.
  void progressed() { failures_ = 0; }
  // Sleeps, unless the failure is final or there have been too many: then its error, with the
  // number of attempts. kCancelled at once after a cancellation.
  Status wait(HttpFailure failure);

 private:
  const HttpOptions& options_;
  unsigned failures_ = 0;
  std::minstd_rand random_;
};

// Thread-safe. Each thread that asks has a connection for itself while it lasts.
struct CurlLibrary;

class HttpClient {
 public:
  explicit HttpClient(HttpOptions options);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  const HttpOptions& options() const { return options_; }
  // One request and its redirects, of which POST and PUT follow none. A reply with any status is a
  // success here.
  HttpResult exchange(const HttpRequest& request);
  // The same again while it fails in ways that pass, with a status of 2xx or 404 as the end; other
  // statuses become errors. Not for requests with a receiver.
  Result<HttpReply> fetch(const HttpRequest& request);
  // fetch(), where 404 is kNotFound.
  Result<HttpReply> fetch_existing(const HttpRequest& request);

 private:
  struct Handle;
  struct Transfer;
  HttpResult single(const HttpRequest& request, const Url& url, const HttpHeaders* first);
  std::unique_ptr<Handle> take_handle() EXCLUDES(mutex_);
  void give_back(std::unique_ptr<Handle> handle) EXCLUDES(mutex_);

  const HttpOptions options_;
  const std::unique_ptr<const CurlLibrary> library_;  // null: not there
  Mutex mutex_;
  std::vector<std::unique_ptr<Handle>> idle_ GUARDED_BY(mutex_);
};

// The error that a reply's status stands for: what failed where, what the server said, and for 401
// and 403 what may help. what: "https://host/file", or more.
HttpFailure status_failure(const HttpReply& reply, const std::string& what,
                           const HttpOptions& options);

}  // namespace sluice::io
