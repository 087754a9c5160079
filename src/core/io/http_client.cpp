#include "io/http_client.h"

#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>

#include "io/address.h"
#include "io/curl_library.h"
#include "io/names.h"

namespace sluice::io {
namespace {

constexpr int kRedirectsMax = 8;
constexpr size_t kFailureBodyBytes = 4 << 10;
constexpr double kNoteworthyWait = 5;  // seconds

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

// What libcurl calls a failure that another attempt may not see.
bool is_transient(CURLcode code) {
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_PARTIAL_FILE:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_FAIL_REWIND: return true;
    default: return false;
  }
}

// OpenSSL writes to sockets in a way that raises SIGPIPE when the other side is gone. It goes to
// this thread, which holds it back and drops it.
class PipeSignalHeld {
 public:
  PipeSignalHeld() {
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGPIPE) == 1;
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~PipeSignalHeld() {
    sigset_t pending;
    sigpending(&pending);
    if (!was_pending_ && sigismember(&pending, SIGPIPE) == 1) {
      int taken;
      sigwait(&pipe_, &taken);
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  PipeSignalHeld(const PipeSignalHeld&) = delete;
  PipeSignalHeld& operator=(const PipeSignalHeld&) = delete;

 private:
  sigset_t pipe_{}, before_{};
  bool was_pending_ = false;
};

class HeaderList {
 public:
  explicit HeaderList(const CurlLibrary& curl) : curl_(curl) {}
  ~HeaderList() { curl_.slist_free_all(list_); }
  HeaderList(const HeaderList&) = delete;
  HeaderList& operator=(const HeaderList&) = delete;
  void add(const std::string& line) {
    curl_slist* longer = curl_.slist_append(list_, line.c_str());
    SLUICE_CHECK(longer != nullptr);  // no memory
    list_ = longer;
  }
  curl_slist* get() const { return list_; }

 private:
  const CurlLibrary& curl_;
  curl_slist* list_ = nullptr;
};

bool cancelled(const HttpOptions& options) {
  return options.cancel != nullptr && options.cancel->cancelled();
}

HttpFailure final_failure(Error error) { return {std::move(error), false, std::nullopt}; }

}  // namespace

struct HttpClient::Handle {
  const CurlLibrary& library;
  CURL* curl = library.easy_init();
  explicit Handle(const CurlLibrary& from) : library(from) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() { library.easy_cleanup(curl); }
};

// What libcurl's callbacks work on during one exchange with one address.
struct HttpClient::Transfer {
  const HttpRequest& request;
  const HttpOptions& options;
  const HttpHeaders* first;  // of the redirect that led here, or null
  HttpReply reply = {};
  std::optional<Error> error = std::nullopt;  // ours: the receiver's, or a header that is too long
  bool begun = false;                         // the receiver has seen the header
  uint64_t uploaded = 0;

  bool successful() const { return reply.status >= 200 && reply.status < 300; }
  bool stop(Error why) {
    error = std::move(why);
    return false;
  }
  bool header(std::string_view line) {
    if (const auto status = parse_status_line(line)) {  // another reply: 100 Continue went before
      reply.status = *status;
      reply.headers = {};
      return true;
    }
    if (reply.headers.add(line)) return true;
    return stop({ErrorCode::kCorrupt,
                 fmt::format("{}: the server's reply has too long a header", reply.url.label())});
  }
  bool begin() {
    if (begun || request.receiver == nullptr || !successful()) return true;
    begun = true;
    reply.first_headers = first != nullptr ? *first : reply.headers;
    auto status = request.receiver->begin(reply);
    return status ? true : stop(std::move(status).error());
  }
  bool body(std::span<const std::byte> bytes) {
    if (!begin()) return false;
    if (request.receiver != nullptr && successful()) {
      auto status = request.receiver->take(bytes);
      return status ? true : stop(std::move(status).error());
    }
    const uint64_t max = successful() ? request.body_bytes_max : kFailureBodyBytes;
    const uint64_t room = max - std::min<uint64_t>(max, reply.body.size());
    if (bytes.size() > room && successful())
      return stop({ErrorCode::kCorrupt,
                   fmt::format("{}: the reply is longer than {} bytes", reply.url.label(), max)});
    const size_t taken = std::min<uint64_t>(room, bytes.size());
    reply.body.append(reinterpret_cast<const char*>(bytes.data()), taken);
    return true;
  }

  // --- libcurl's side ---

  static size_t on_header(char* data, size_t size, size_t count, void* self) {
    std::string_view line(data, size * count);
    return static_cast<Transfer*>(self)->header(line) ? size * count : 0;
  }
  static size_t on_body(char* data, size_t size, size_t count, void* self) {
    const auto bytes = std::as_bytes(std::span(data, size * count));
    // Anything but the count ends the transfer.
    return static_cast<Transfer*>(self)->body(bytes) ? bytes.size() : bytes.size() + 1;
  }
  static size_t on_upload(char* data, size_t size, size_t count, void* self) {
    auto& transfer = *static_cast<Transfer*>(self);
    const HttpRequest& request = transfer.request;
    const uint64_t left = request.upload_bytes - transfer.uploaded;
    const std::span<char> out(data, std::min<uint64_t>(left, size * count));
    auto status = request.upload->read_at(request.upload_offset + transfer.uploaded,
                                          std::as_writable_bytes(out));
    if (!status) {
      transfer.stop(std::move(status).error());
      return CURL_READFUNC_ABORT;
    }
    transfer.uploaded += out.size();
    if (request.progress != nullptr) request.progress->advance(out.size());
    return out.size();
  }
  static curl_socket_t on_socket(void* self, curlsocktype, curl_sockaddr* address) {
    std::span<const uint8_t> bytes;
    const void* place = &address->addr;
    if (address->family == AF_INET)
      bytes = {reinterpret_cast<const uint8_t*>(&static_cast<const sockaddr_in*>(place)->sin_addr),
               4};
    if (address->family == AF_INET6)
      bytes = {
          reinterpret_cast<const uint8_t*>(&static_cast<const sockaddr_in6*>(place)->sin6_addr),
          16};
    if (is_public_address(bytes))
      return ::socket(address->family, address->socktype, address->protocol);
    auto& transfer = *static_cast<Transfer*>(self);
    transfer.stop({ErrorCode::kInvalidArgument,
                   fmt::format("{}: the address is not a public one", transfer.reply.url.label())});
    return CURL_SOCKET_BAD;
  }
  static int on_progress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    return cancelled(static_cast<Transfer*>(self)->options) ? 1 : 0;
  }
};

bool is_transient_status(int status) {
  return status == 408 || status == 425 || status == 429 ||
         (status >= 500 && status != 501 && status != 505);
}

HttpRetry::HttpRetry(const HttpOptions& options)
    : options_(options), random_(std::random_device()()) {}

Status HttpRetry::wait(HttpFailure failure) {
  if (cancelled(options_)) return fail(ErrorCode::kCancelled, "interrupted");
  if (!failure.transient) return std::unexpected(std::move(failure.error));
  if (++failures_ >= options_.attempts_max) {
    failure.error.message += fmt::format(" ({} attempts)", failures_);
    return std::unexpected(std::move(failure.error));
  }
  double seconds =
      std::min(options_.wait_max_s,
               options_.wait_first_s * std::ldexp(1.0, static_cast<int>(failures_) - 1));
  // Many readers that were thrown out together must not come back together.
  seconds *= std::uniform_real_distribution<double>(0.5, 1)(random_);
  if (failure.retry_after_s) {
    if (*failure.retry_after_s > options_.retry_after_max_s) {
      failure.error.message += fmt::format("; it asks to come back in {:.0f} s, which is too long",
                                           *failure.retry_after_s);
      return std::unexpected(std::move(failure.error));
    }
    seconds = std::max(seconds, *failure.retry_after_s);
  }
  if (seconds >= kNoteworthyWait && options_.log != nullptr)
    options_.log->info(fmt::format("{}; again in {:.0f} s", failure.error.message, seconds));
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (std::chrono::steady_clock::now() < end) {
    if (cancelled(options_)) return fail(ErrorCode::kCancelled, "interrupted");
    const std::chrono::duration<double> left = end - std::chrono::steady_clock::now();
    std::this_thread::sleep_for(std::min(left, std::chrono::duration<double>(0.05)));
  }
  return {};
}

HttpClient::HttpClient(HttpOptions options) : options_(std::move(options)), library_(load_curl()) {}

HttpClient::~HttpClient() {
  {
    MutexLock lock(mutex_);
    idle_.clear();
  }
  if (library_ != nullptr) library_->global_cleanup();
}

std::unique_ptr<HttpClient::Handle> HttpClient::take_handle() {
  MutexLock lock(mutex_);
  if (idle_.empty()) return std::make_unique<Handle>(*library_);
  auto handle = std::move(idle_.back());
  idle_.pop_back();
  return handle;
}

void HttpClient::give_back(std::unique_ptr<Handle> handle) {
  library_->easy_reset(handle->curl);  // options only: connections stay
  MutexLock lock(mutex_);
  idle_.push_back(std::move(handle));
}

HttpResult HttpClient::single(const HttpRequest& request, const Url& url,
                              const HttpHeaders* first) {
  if (library_ == nullptr)
    return std::unexpected(
        final_failure({ErrorCode::kUnsupported,
                       fmt::format("{}: libcurl, which reads addresses, is not installed "
                                   "or does not start",
                                   url.label())}));
  std::unique_ptr<Handle> handle = take_handle();
  CURL* curl = handle->curl;
  if (curl == nullptr)
    return std::unexpected(final_failure({ErrorCode::kExhausted, "no memory for a connection"}));
  Transfer transfer{request, options_, first};
  transfer.reply.url = url;
  HeaderList headers(*library_);
  for (const std::string& header : request.headers) headers.add(header);
  headers.add("Accept-Encoding: identity");
  headers.add("Expect:");  // no waiting for 100 Continue
  if (!options_.token.empty() && url.origin() == options_.token_origin)
    headers.add("Authorization: Bearer " + options_.token);

  const std::string address = url.text();
  const auto set = [this, curl](CURLoption option, auto value) {
    SLUICE_CHECK(library_->easy_setopt(curl, option, value) == CURLE_OK);
  };
  set(CURLOPT_URL, address.c_str());
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_USERAGENT, "sluice");
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  set(CURLOPT_PATH_AS_IS, 1L);
  set(CURLOPT_TCP_KEEPALIVE, 1L);
  set(CURLOPT_MAXCONNECTS, 4L);  // of this handle: the host, and where it redirects to
  set(CURLOPT_BUFFERSIZE, 64L << 10);
  set(CURLOPT_CONNECTTIMEOUT, static_cast<long>(options_.connect_timeout_s));
  set(CURLOPT_LOW_SPEED_LIMIT, static_cast<long>(options_.low_speed_bytes));
  set(CURLOPT_LOW_SPEED_TIME, static_cast<long>(options_.low_speed_s));
  set(CURLOPT_HTTPHEADER, headers.get());
  set(CURLOPT_HEADERFUNCTION, &Transfer::on_header);
  set(CURLOPT_HEADERDATA, &transfer);
  set(CURLOPT_WRITEFUNCTION, &Transfer::on_body);
  set(CURLOPT_WRITEDATA, &transfer);
  set(CURLOPT_XFERINFOFUNCTION, &Transfer::on_progress);
  set(CURLOPT_XFERINFODATA, &transfer);
  set(CURLOPT_NOPROGRESS, 0L);
  if (options_.total_s != 0) set(CURLOPT_TIMEOUT, static_cast<long>(options_.total_s));
  if (url.loopback() || options_.public_only) set(CURLOPT_PROXY, "");
  if (options_.public_only) {
    set(CURLOPT_OPENSOCKETFUNCTION, &Transfer::on_socket);
    set(CURLOPT_OPENSOCKETDATA, &transfer);
  }
  if (!options_.ca_file.empty()) set(CURLOPT_CAINFO, options_.ca_file.c_str());
  if (request.upload != nullptr) {
    set(CURLOPT_UPLOAD, 1L);
    set(CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(request.upload_bytes));
    set(CURLOPT_READFUNCTION, &Transfer::on_upload);
    set(CURLOPT_READDATA, &transfer);
    set(CURLOPT_CUSTOMREQUEST, request.method.c_str());
  } else if (request.method != "GET") {
    set(CURLOPT_POST, 1L);
    set(CURLOPT_POSTFIELDS, request.body.c_str());
    set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
    set(CURLOPT_CUSTOMREQUEST, request.method.c_str());
  }
  char detail[CURL_ERROR_SIZE] = "";
  set(CURLOPT_ERRORBUFFER, static_cast<char*>(detail));
  CURLcode code;
  {
    const PipeSignalHeld held;
    code = library_->easy_perform(curl);
  }
  if (code == CURLE_OK) transfer.begin();  // of a reply without a body
  // One that failed may not be fit for use: libcurl 7.88 leaves its buffer behind when a name is
  // not found, and then refuses to set its size.
  if (code == CURLE_OK) give_back(std::move(handle));
  if (cancelled(options_))
    return std::unexpected(final_failure({ErrorCode::kCancelled, "interrupted"}));
  if (transfer.error) return std::unexpected(final_failure(std::move(*transfer.error)));
  if (code != CURLE_OK)
    return std::unexpected(HttpFailure{
        {ErrorCode::kIo, fmt::format("{}: {}", url.label(),
                                     detail[0] != '\0' ? detail : library_->easy_strerror(code))},
        is_transient(code),
        std::nullopt});
  return std::move(transfer.reply);
}

HttpResult HttpClient::exchange(const HttpRequest& request) {
  Url url = request.url;
  std::optional<HttpHeaders> first;
  for (int hop = 0; hop <= kRedirectsMax; ++hop) {
    auto reply = single(request, url, first ? &*first : nullptr);
    if (!reply) return reply;
    if (!first) first = reply->headers;
    const auto location = reply->headers.find("location");
    if (!is_redirect(reply->status) || !location || request.method != "GET") {
      reply->first_headers = std::move(*first);
      return reply;
    }
    auto next = resolve_reference(url, *location);
    if (!next)
      return std::unexpected(
          final_failure(in_context(url.label() + ": redirected", std::move(next).error()).error()));
    if (url.encrypted() && !next->encrypted())
      return std::unexpected(
          final_failure({ErrorCode::kIo, fmt::format("{}: redirected to {}, which is not encrypted",
                                                     url.label(), next->origin())}));
    url = std::move(*next);
  }
  return std::unexpected(
      final_failure({ErrorCode::kIo, fmt::format("{}: redirected more than {} times",
                                                 request.url.label(), kRedirectsMax)}));
}

HttpFailure status_failure(const HttpReply& reply, const std::string& what,
                           const HttpOptions& options) {
  HttpFailure failure;
  failure.transient = is_transient_status(reply.status);
  if (failure.transient)
    if (const auto value = reply.headers.find("retry-after"))
      failure.retry_after_s = parse_retry_after(*value, std::time(nullptr));
  ErrorCode code = ErrorCode::kIo;
  std::string text = fmt::format("{}: the server answers {}", what, reply.status);
  switch (reply.status) {
    case 401:
    case 403:
      code = ErrorCode::kNotFound;
      text += options.token.empty() ? ", it wants to know who asks" : ", it refuses this token";
      break;
    case 404:
    case 410:
      code = ErrorCode::kNotFound;
      text = fmt::format("{}: not found on the server ({})", what, reply.status);
      break;
    case 429: text += ", too many requests"; break;
    default: break;
  }
  failure.error = {code, std::move(text)};
  return failure;
}

Result<HttpReply> HttpClient::fetch(const HttpRequest& request) {
  SLUICE_CHECK(request.receiver == nullptr);
  HttpRetry retry(options_);
  while (true) {
    auto reply = exchange(request);
    if (reply && ((reply->status >= 200 && reply->status < 300) || reply->status == 404))
      return std::move(*reply);
    SLUICE_TRY(retry.wait(reply ? status_failure(*reply, request.url.label(), options_)
                                : std::move(reply).error()));
  }
}

Result<HttpReply> HttpClient::fetch_existing(const HttpRequest& request) {
  SLUICE_ASSIGN(HttpReply reply, fetch(request));
  if (reply.status == 404)
    return std::unexpected(status_failure(reply, request.url.label(), options_).error);
  return reply;
}

}  // namespace sluice::io
