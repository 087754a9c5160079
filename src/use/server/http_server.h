// Connections and replies over libevent: one thread, one loop. Requests come out of HttpParser, are
// held against the guard before their body is read, and go to a handler, which replies at once or
// later, whole or as a stream. The only file that knows libevent is this one's source.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/thread.h"
#include "server/guard.h"
#include "server/http_parser.h"

namespace sluice::server {

struct HttpServerOptions {
  std::string host = "127.0.0.1";  // an address, or localhost
  uint16_t port = 8080;            // 0: any
  HttpLimits limits;
  size_t connections_max = 1024;
  double request_s_max = 30;            // from a request's first byte to its last
  double idle_s_max = 75;               // between requests
  double write_s_max = 60;              // without the client taking anything
  uint64_t unread_bytes_max = 4 << 20;  // of a stream that the client does not take
  GuardOptions guard;
};

using Headers = std::vector<std::pair<std::string, std::string>>;

class HttpConnection;

// One request and its reply. The loop's thread. When the client has gone, replying does nothing.
class Exchange {
 public:
  Exchange(std::weak_ptr<HttpConnection> connection, HttpRequest request);
  ~Exchange();  // without a reply, the connection is closed
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  const HttpRequest& request() const { return request_; }
  // The client's address.
  const std::string& client() const { return client_; }
  void reply(int status, std::string_view content_type, std::string_view body,
             const Headers& headers = {});
  // A reply of pieces: begin_stream(), write() any number of times, end_stream().
  void begin_stream(std::string_view content_type);
  void write(std::string_view piece);
  void end_stream();
  // Called once, should the client go, or leave too much untaken, before the reply has ended.
  void on_gone(std::function<void()> callback);
  bool replied() const { return ended_; }
  int status() const { return status_; }

 private:
  friend class HttpConnection;
  void gone();
  std::string head(int status, std::string_view content_type, const Headers& headers) const;

  std::weak_ptr<HttpConnection> connection_;
  const HttpRequest request_;
  std::string client_;
  std::function<void()> on_gone_;
  int status_ = 0;
  bool streaming_ = false, ended_ = false;
};

using Handler = std::function<void(std::shared_ptr<Exchange>)>;
// The body of an error, of type application/json.
using ErrorBody =
    std::function<std::string(int status, std::string_view message, std::string_view code)>;
// Told of what never reached the handler.
using OnRefused = std::function<void(int status)>;

class HttpServer {
 public:
  // Binds. kInvalidArgument for a host that is no address; kIo when it cannot be bound.
  static Result<std::unique_ptr<HttpServer>> open(const HttpServerOptions& options, Handler handler,
                                                  ErrorBody error_body, OnRefused on_refused);
  ~HttpServer();

  uint16_t port() const;
  // Runs the loop until stop(); tick is called some ten times a second.
  void run(const std::function<void()>& tick);
  // No connection is accepted any more.
  void stop_listening();
  void stop();
  // Runs a function on the loop's thread. Thread-safe; the only function here that is.
  void post(std::function<void()> function);
  size_t connections() const;

 private:
  friend class HttpConnection;
  struct State;
  explicit HttpServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Whether it is one of this machine's own addresses; names other than localhost are not.
bool is_loopback(std::string_view host);

}  // namespace sluice::server
