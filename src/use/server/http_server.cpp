#include "server/http_server.h"

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <event2/thread.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cstring>
#include <deque>
#include <unordered_map>

#include "base/clock.h"

namespace sluice::server {
namespace {

// What is read ahead of a request's turn; more stays with the system, and so with the client.
constexpr size_t kReadBytes = 64 << 10;

template <auto Free>
struct Freer {
  template <class T>
  void operator()(T* object) const {
    Free(object);
  }
};

std::string_view reason(int status) {
  switch (status) {
    case 200: return "OK";
    case 204: return "No Content";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 411: return "Length Required";
    case 413: return "Content Too Large";
    case 415: return "Unsupported Media Type";
    case 417: return "Expectation Failed";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 503: return "Service Unavailable";
    case 505: return "HTTP Version Not Supported";
    default: return "Error";
  }
}

Result<sockaddr_storage> parse_address(const std::string& host, uint16_t port, int* length) {
  sockaddr_storage storage{};
  auto* four = reinterpret_cast<sockaddr_in*>(&storage);
  auto* six = reinterpret_cast<sockaddr_in6*>(&storage);
  const std::string address = host == "localhost" ? "127.0.0.1" : host;
  if (inet_pton(AF_INET, address.c_str(), &four->sin_addr) == 1) {
    four->sin_family = AF_INET;
    four->sin_port = htons(port);
    *length = sizeof *four;
  } else if (inet_pton(AF_INET6, address.c_str(), &six->sin6_addr) == 1) {
    six->sin6_family = AF_INET6;
    six->sin6_port = htons(port);
    *length = sizeof *six;
  } else {
    return fail(ErrorCode::kInvalidArgument, "--host {}: an address such as 127.0.0.1 is wanted",
                host);
  }
  return storage;
}

std::string address_text(const sockaddr* address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address->sa_family == AF_INET)
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(address)->sin_addr, text, sizeof text);
  else if (address->sa_family == AF_INET6)
    inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr, text,
              sizeof text);
  return text;
}

}  // namespace

bool is_loopback(std::string_view host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

struct HttpServer::State {
  HttpServerOptions options;
  Handler handler;
  ErrorBody error_body;
  OnRefused on_refused;
  std::unique_ptr<event_base, Freer<event_base_free>> base;
  std::unique_ptr<evconnlistener, Freer<evconnlistener_free>> listener;
  std::unique_ptr<event, Freer<event_free>> wake, ticker;
  std::unordered_map<HttpConnection*, std::shared_ptr<HttpConnection>> connections;
  std::function<void()> tick;
  uint16_t port = 0;

  Mutex mutex;
  std::deque<std::function<void()>> posted GUARDED_BY(mutex);

  void accept(evutil_socket_t socket, const sockaddr* address);
  void make_room();
  void run_posted();
  void sweep();
};

// One client. Owned by the server's table; leaves it when it is done.
class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(HttpServer::State& server, evutil_socket_t socket, std::string client)
      : server_(server), client_(std::move(client)), parser_(server.options.limits) {
    buffers_.reset(bufferevent_socket_new(server.base.get(), socket, BEV_OPT_CLOSE_ON_FREE));
  }

  bool begin() {
    if (buffers_ == nullptr) return false;
    bufferevent_setcb(
        buffers_.get(), [](bufferevent*, void* self) { of(self)->read(); },
        [](bufferevent*, void* self) { of(self)->written(); },
        [](bufferevent*, short, void* self) { of(self)->close(); }, this);
    bufferevent_setwatermark(buffers_.get(), EV_READ, 0, kReadBytes);
    const double seconds = server_.options.write_s_max;
    const timeval write{static_cast<time_t>(seconds), 0};
    bufferevent_set_timeouts(buffers_.get(), nullptr, &write);
    bufferevent_enable(buffers_.get(), EV_READ | EV_WRITE);
    return true;
  }

  const std::string& client() const { return client_; }
  const HttpServerOptions& options() const { return server_.options; }
  bool waiting_for_head() const { return !busy_ && parser_.state() == HttpParser::State::kHead; }
  double waited_s() const { return waiting_.seconds(); }

  void send(std::string_view bytes) {
    if (closed_) return;
    evbuffer* output = bufferevent_get_output(buffers_.get());
    bufferevent_write(buffers_.get(), bytes.data(), bytes.size());
    if (evbuffer_get_length(output) > server_.options.unread_bytes_max + bytes.size()) close();
  }

  // The reply has ended.
  void done(bool keep_alive) {
    if (closed_) return;
    busy_ = false;
    exchange_.reset();
    waiting_ = {};
    if (!keep_alive) return close_when_written();
    // Not at once: this may be within read().
    server_post([self = weak_from_this()] {
      if (const auto connection = self.lock()) connection->read();
    });
  }

  void check_time() {
    if (busy_ || closing_) return;
    const double limit =
        parser_.idle() ? server_.options.idle_s_max : server_.options.request_s_max;
    if (waiting_.seconds() < limit) return;
    if (parser_.idle()) return close();
    refuse(408, "the request took too long to arrive", "request_timeout");
  }

  void close() {
    if (closed_) return;
    closed_ = true;
    const auto self = shared_from_this();
    server_.connections.erase(this);
    if (const auto exchange = exchange_.lock()) exchange->gone();
    // Not within its own callback.
    bufferevent_disable(buffers_.get(), EV_READ | EV_WRITE);
    bufferevent_setcb(buffers_.get(), nullptr, nullptr, nullptr, nullptr);
    server_post([self] {});
  }

 private:
  static HttpConnection* of(void* self) { return static_cast<HttpConnection*>(self); }

  void server_post(std::function<void()> function) {
    MutexLock lock(server_.mutex);
    server_.posted.push_back(std::move(function));
    event_active(server_.wake.get(), EV_READ, 0);
  }

  void read() {
    const auto self = shared_from_this();
    evbuffer* input = bufferevent_get_input(buffers_.get());
    while (!busy_ && !closing_ && !closed_ && evbuffer_get_length(input) > 0) {
      if (parser_.idle()) waiting_ = {};
      const size_t there = evbuffer_get_contiguous_space(input);
      const auto* bytes =
          reinterpret_cast<const char*>(evbuffer_pullup(input, static_cast<ev_ssize_t>(there)));
      const auto before = parser_.state();
      const size_t taken = parser_.feed({bytes, there});
      evbuffer_drain(input, taken);
      advance(before);
    }
    // What comes behind a refusal is nobody's.
    if (closing_ && !closed_) evbuffer_drain(input, evbuffer_get_length(input));
  }

  void advance(HttpParser::State before) {
    const HttpParser::State now = parser_.state();
    if (now == HttpParser::State::kRefused)
      return refuse(parser_.refusal().status, parser_.refusal().message, "bad_request");
    if (before == HttpParser::State::kHead && now != before) {
      if (const auto refusal = check_request(parser_.request(), server_.options.guard))
        return refuse(refusal->status, refusal->message, refusal->code);
      if (now == HttpParser::State::kBody && parser_.request().expects_continue)
        send("HTTP/1.1 100 Continue\r\n\r\n");
    }
    if (now == HttpParser::State::kComplete) hand_over();
  }

  void hand_over() {
    busy_ = true;
    const auto exchange = std::make_shared<Exchange>(weak_from_this(), parser_.take());
    exchange_ = exchange;
    server_.handler(exchange);
  }

  void refuse(int status, std::string_view message, std::string_view code) {
    const std::string body = server_.error_body(status, message, code);
    const std::string challenge = status == 401 ? "WWW-Authenticate: Bearer\r\n" : "";
    send(
        fmt::format("HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n"
                    "{}Connection: close\r\n\r\n{}",
                    status, reason(status), body.size(), challenge, body));
    server_.on_refused(status);
    close_when_written();
  }

  void close_when_written() {
    closing_ = true;
    if (!closed_ && evbuffer_get_length(bufferevent_get_output(buffers_.get())) == 0) finish();
  }

  void written() {
    if (closing_ && evbuffer_get_length(bufferevent_get_output(buffers_.get())) == 0) finish();
  }

  // Our side ends first; bytes that the client is still sending must not reset the connection
  // before it has read the reply, so the rest is closed at its end or by the sweep.
  void finish() {
    if (closed_ || finished_) return;
    finished_ = true;
    ::shutdown(bufferevent_getfd(buffers_.get()), SHUT_WR);
    lingering_ = {};
  }

 public:
  bool lingers_too_long() const { return finished_ && lingering_.seconds() > 1; }

 private:
  HttpServer::State& server_;
  const std::string client_;
  std::unique_ptr<bufferevent, Freer<bufferevent_free>> buffers_;
  HttpParser parser_;
  std::weak_ptr<Exchange> exchange_;
  Stopwatch waiting_, lingering_;  // since the request, or the pause before it, began; our end
  bool busy_ = false, closing_ = false, closed_ = false, finished_ = false;
};

Exchange::Exchange(std::weak_ptr<HttpConnection> connection, HttpRequest request)
    : connection_(std::move(connection)), request_(std::move(request)) {
  if (const auto there = connection_.lock()) client_ = there->client();
}

Exchange::~Exchange() {
  const auto connection = connection_.lock();
  if (!ended_ && connection) connection->close();
}

std::string Exchange::head(int status, std::string_view content_type,
                           const Headers& headers) const {
  std::string text = fmt::format(
      "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nX-Content-Type-Options: nosniff\r\n"
      "Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\n",
      status, reason(status), content_type);
  for (const auto& [name, value] : headers) text += fmt::format("{}: {}\r\n", name, value);
  if (const auto connection = connection_.lock()) {
    const std::string origin = allowed_origin(request_, connection->options().guard);
    if (!origin.empty())
      text += fmt::format(
          "Access-Control-Allow-Origin: {}\r\nVary: Origin\r\n"
          "Access-Control-Allow-Headers: authorization, content-type\r\n"
          "Access-Control-Allow-Methods: GET, POST, DELETE\r\n",
          origin);
  }
  return text + fmt::format("Connection: {}\r\n", request_.keep_alive ? "keep-alive" : "close");
}

void Exchange::reply(int status, std::string_view content_type, std::string_view body,
                     const Headers& headers) {
  SLUICE_CHECK(!streaming_ && !ended_);
  status_ = status;
  ended_ = true;
  const auto connection = connection_.lock();
  if (!connection) return;
  connection->send(head(status, content_type, headers) +
                   fmt::format("Content-Length: {}\r\n\r\n", body.size()));
  if (request_.method != "HEAD") connection->send(body);
  connection->done(request_.keep_alive);
}

// HTTP/1.0 knows no chunks; there the connection's end is the stream's.
void Exchange::begin_stream(std::string_view content_type) {
  SLUICE_CHECK(!streaming_ && !ended_);
  status_ = 200;
  streaming_ = true;
  const auto connection = connection_.lock();
  if (!connection) return;
  connection->send(head(200, content_type, {}) +
                   (request_.minor == 1 ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n"));
}

void Exchange::write(std::string_view piece) {
  const auto connection = connection_.lock();
  if (!streaming_ || ended_ || !connection || piece.empty()) return;
  if (request_.minor == 0) return connection->send(piece);
  connection->send(fmt::format("{:x}\r\n{}\r\n", piece.size(), piece));
}

void Exchange::end_stream() {
  if (ended_) return;
  ended_ = true;
  const auto connection = connection_.lock();
  if (!connection) return;
  if (request_.minor == 1) connection->send("0\r\n\r\n");
  connection->done(request_.keep_alive && request_.minor == 1);
}

void Exchange::on_gone(std::function<void()> callback) { on_gone_ = std::move(callback); }

void Exchange::gone() {
  if (ended_ || !on_gone_) return;
  ended_ = true;
  std::exchange(on_gone_, nullptr)();
}

void HttpServer::State::accept(evutil_socket_t socket, const sockaddr* address) {
  make_room();
  const int on = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // tokens are small
  auto connection = std::make_shared<HttpConnection>(*this, socket, address_text(address));
  if (!connection->begin()) return static_cast<void>(evutil_closesocket(socket));
  connections.emplace(connection.get(), std::move(connection));
}

// Whoever has kept us waiting for a request the longest goes first; a client that is being answered
// does not.
void HttpServer::State::make_room() {
  if (connections.size() < options.connections_max) return;
  std::shared_ptr<HttpConnection> slowest;
  for (const auto& [key, connection] : connections)
    if (connection->waiting_for_head() &&
        (!slowest || connection->waited_s() > slowest->waited_s()))
      slowest = connection;
  if (slowest) slowest->close();
}

void HttpServer::State::run_posted() {
  std::deque<std::function<void()>> functions;
  {
    MutexLock lock(mutex);
    functions.swap(posted);
  }
  for (const auto& function : functions) function();
}

void HttpServer::State::sweep() {
  std::vector<std::shared_ptr<HttpConnection>> all;
  for (const auto& [key, connection] : connections) all.push_back(connection);
  for (const auto& connection : all) {
    connection->check_time();
    if (connection->lingers_too_long()) connection->close();
  }
  if (tick) tick();
}

HttpServer::HttpServer(std::unique_ptr<State> state) : state_(std::move(state)) {}

HttpServer::~HttpServer() {
  state_->listener.reset();
  state_->run_posted();
  const auto connections = std::exchange(state_->connections, {});
  for (const auto& [key, connection] : connections) connection->close();
  state_->run_posted();
}

Result<std::unique_ptr<HttpServer>> HttpServer::open(const HttpServerOptions& options,
                                                     Handler handler, ErrorBody error_body,
                                                     OnRefused on_refused) {
  SLUICE_CHECK(is_loopback(options.host) || !options.guard.token.empty());
  evthread_use_pthreads();
  auto state = std::make_unique<State>();
  state->options = options;
  state->handler = std::move(handler);
  state->error_body = std::move(error_body);
  state->on_refused = std::move(on_refused);
  int length = 0;
  SLUICE_ASSIGN(const sockaddr_storage address, parse_address(options.host, options.port, &length));
  state->base.reset(event_base_new());
  if (state->base == nullptr) return fail(ErrorCode::kIo, "libevent has no loop for this system");
  state->listener.reset(evconnlistener_new_bind(
      state->base.get(),
      [](evconnlistener*, evutil_socket_t socket, sockaddr* from, int, void* self) {
        static_cast<State*>(self)->accept(socket, from);
      },
      state.get(), LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE, 1024,
      reinterpret_cast<const sockaddr*>(&address), length));
  if (state->listener == nullptr)
    return fail(ErrorCode::kIo, "{}:{} cannot be listened on: {}", options.host, options.port,
                std::strerror(errno));
  sockaddr_storage bound{};
  socklen_t bound_length = sizeof bound;
  ::getsockname(evconnlistener_get_fd(state->listener.get()), reinterpret_cast<sockaddr*>(&bound),
                &bound_length);
  state->port =
      ntohs(bound.ss_family == AF_INET ? reinterpret_cast<const sockaddr_in*>(&bound)->sin_port
                                       : reinterpret_cast<const sockaddr_in6*>(&bound)->sin6_port);
  state->wake.reset(event_new(
      state->base.get(), -1, EV_PERSIST,
      [](evutil_socket_t, short, void* self) { static_cast<State*>(self)->run_posted(); },
      state.get()));
  state->ticker.reset(event_new(
      state->base.get(), -1, EV_PERSIST,
      [](evutil_socket_t, short, void* self) { static_cast<State*>(self)->sweep(); }, state.get()));
  const timeval often{0, 100'000};
  event_add(state->ticker.get(), &often);
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(state)));
}

uint16_t HttpServer::port() const { return state_->port; }
size_t HttpServer::connections() const { return state_->connections.size(); }

void HttpServer::run(const std::function<void()>& tick) {
  state_->tick = tick;
  event_base_loop(state_->base.get(), EVLOOP_NO_EXIT_ON_EMPTY);
}

void HttpServer::stop_listening() { evconnlistener_disable(state_->listener.get()); }
void HttpServer::stop() { event_base_loopexit(state_->base.get(), nullptr); }

void HttpServer::post(std::function<void()> function) {
  MutexLock lock(state_->mutex);
  state_->posted.push_back(std::move(function));
  event_active(state_->wake.get(), EV_READ, 0);
}

}  // namespace sluice::server
