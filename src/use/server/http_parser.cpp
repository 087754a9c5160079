#include "server/http_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "server/text.h"

namespace sluice::server {
namespace {

constexpr size_t kChunkLineBytesMax = 64;

bool is_token(std::string_view text) {
  constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::ranges::all_of(text, [&](char c) {
    return is_alphanumeric(c) || kMarks.find(c) != std::string_view::npos;
  });
}

// Visible ASCII, spaces and tabs; bytes above are UTF-8 or Latin-1, and nobody's delimiters.
bool is_field_text(std::string_view text) {
  return std::ranges::all_of(text, [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte == '\t' || (byte >= 0x20 && byte != 0x7f);
  });
}

bool is_target(std::string_view text) {
  return text.starts_with('/') && std::ranges::all_of(text, [](char c) {
           return c > 0x20 && c < 0x7f && c != '#' && c != '\\';
         });
}

// Digits alone: no sign, no space, no other base.
std::optional<uint64_t> parse_digits(std::string_view text, int base) {
  uint64_t value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (text.empty() || problem != std::errc() || end != text.data() + text.size())
    return std::nullopt;
  return value;
}

}  // namespace

const std::string* HttpRequest::header(std::string_view name) const {
  const auto found = std::ranges::find(headers, name, [](const auto& h) { return h.first; });
  return found == headers.end() ? nullptr : &found->second;
}

void HttpParser::refuse(int status, std::string message) {
  state_ = State::kRefused;
  refusal_ = {status, std::move(message)};
}

size_t HttpParser::feed(std::string_view bytes) {
  const State begun = state_;
  size_t taken = 0;
  while (taken < bytes.size() && state_ == begun &&
         (state_ == State::kHead || state_ == State::kBody)) {
    const std::string_view rest = bytes.substr(taken);
    const bool data = state_ == State::kBody && (!chunked_ || chunk_ == Chunk::kData);
    taken += data ? feed_data(rest) : feed_line(rest);
  }
  return taken;
}

size_t HttpParser::feed_line(std::string_view bytes) {
  const size_t end = bytes.find('\n');
  const size_t count = end == std::string_view::npos ? bytes.size() : end + 1;
  const bool head = state_ == State::kHead;
  if (head) head_bytes_ += count;
  if (head && head_bytes_ > limits_.head_bytes_max) {
    refuse(431,
           fmt::format("request line and headers have at most {} bytes", limits_.head_bytes_max));
    return count;
  }
  line_.append(bytes.substr(0, count));
  if (!head && line_.size() > kChunkLineBytesMax) {
    refuse(400, "a chunk's size is no number");
    return count;
  }
  if (end == std::string_view::npos) return count;
  if (!line_.ends_with("\r\n")) {
    refuse(400, "a line of the request ends in a bare line feed");
    return count;
  }
  const std::string line = std::exchange(line_, {});
  const auto content = std::string_view(line).substr(0, line.size() - 2);
  if (head)
    take_line(content);
  else
    take_chunk_line(content);
  return count;
}

void HttpParser::take_line(std::string_view line) {
  if (!begun_) return take_request_line(line);
  if (line.empty()) return end_head();
  take_header(line);
}

void HttpParser::take_request_line(std::string_view line) {
  begun_ = true;
  const size_t first = line.find(' '), second = line.rfind(' ');
  if (first == std::string_view::npos || first == second)
    return refuse(400, "the request line is not `METHOD /path HTTP/1.1`");
  const std::string_view target = line.substr(first + 1, second - first - 1);
  const std::string_view version = line.substr(second + 1);
  if (version != "HTTP/1.1" && version != "HTTP/1.0")
    return refuse(505, "this server speaks HTTP/1.1");
  if (!is_token(line.substr(0, first)) || !is_target(target))
    return refuse(400, "the request line is not `METHOD /path HTTP/1.1`");
  request_.method = line.substr(0, first);
  request_.minor = version.back() - '0';
  const size_t question = target.find('?');
  request_.path = target.substr(0, question);
  if (question != std::string_view::npos) request_.query = target.substr(question + 1);
}

void HttpParser::take_header(std::string_view line) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || !is_token(line.substr(0, colon)))
    return refuse(400, "a header is not `Name: value`");
  const std::string_view value = trimmed(line.substr(colon + 1));
  if (!is_field_text(value)) return refuse(400, "a header's value has control characters");
  if (request_.headers.size() >= limits_.headers_max)
    return refuse(431, fmt::format("a request has at most {} headers", limits_.headers_max));
  request_.headers.emplace_back(lower_case(line.substr(0, colon)), value);
}

void HttpParser::end_head() {
  for (const std::string_view name : {"host", "content-length", "transfer-encoding", "content-type",
                                      "authorization", "origin", "expect"}) {
    const auto count =
        std::ranges::count(request_.headers, name, [](const auto& h) { return h.first; });
    if (count > 1) return refuse(400, fmt::format("the header {} is there {} times", name, count));
  }
  if (request_.minor == 1 && request_.header("host") == nullptr)
    return refuse(400, "the header Host is missing");
  const std::string* connection = request_.header("connection");
  const std::string wish = connection == nullptr ? "" : lower_case(*connection);
  request_.keep_alive = request_.minor == 1 ? wish != "close" : wish == "keep-alive";
  if (const std::string* expect = request_.header("expect")) {
    if (lower_case(*expect) != "100-continue")
      return refuse(417, "of Expect, 100-continue alone is known");
    request_.expects_continue = true;
  }
  choose_length();
}

void HttpParser::choose_length() {
  const std::string* length = request_.header("content-length");
  const std::string* encoding = request_.header("transfer-encoding");
  if (length != nullptr && encoding != nullptr)
    return refuse(400, "Content-Length and Transfer-Encoding contradict each other");
  if (encoding != nullptr && (request_.minor != 1 || lower_case(*encoding) != "chunked"))
    return refuse(501, "of Transfer-Encoding, chunked alone is known");
  chunked_ = encoding != nullptr;
  if (length != nullptr) {
    const auto bytes = parse_digits(*length, 10);
    if (!bytes) return refuse(400, "Content-Length is no number");
    if (*bytes > limits_.body_bytes_max)
      return refuse(413, fmt::format("a body has at most {} bytes", limits_.body_bytes_max));
    left_ = *bytes;
  }
  const bool body = chunked_ || left_ > 0;
  if (body && (request_.method == "GET" || request_.method == "HEAD"))
    return refuse(400, request_.method + " takes no body");
  if (request_.method == "POST" && length == nullptr && !chunked_)
    return refuse(411, "a POST tells its length");
  state_ = body ? State::kBody : State::kComplete;
}

size_t HttpParser::feed_data(std::string_view bytes) {
  const auto count = static_cast<size_t>(std::min<uint64_t>(left_, bytes.size()));
  request_.body.append(bytes.substr(0, count));
  left_ -= count;
  if (left_ > 0) return count;
  if (chunked_)
    chunk_ = Chunk::kDataEnd;
  else
    state_ = State::kComplete;
  return count;
}

void HttpParser::take_chunk_line(std::string_view line) {
  if (chunk_ == Chunk::kDataEnd) {
    if (!line.empty()) return refuse(400, "a chunk is longer than it says");
    chunk_ = Chunk::kSize;
    return;
  }
  if (chunk_ == Chunk::kTrailer) {
    if (!line.empty()) return refuse(400, "trailers are not taken");
    state_ = State::kComplete;
    return;
  }
  const auto size = parse_digits(line, 16);
  if (!size) return refuse(400, "a chunk's size is no number");
  if (*size > limits_.body_bytes_max - request_.body.size())
    return refuse(413, fmt::format("a body has at most {} bytes", limits_.body_bytes_max));
  left_ = *size;
  chunk_ = left_ == 0 ? Chunk::kTrailer : Chunk::kData;
}

HttpRequest HttpParser::take() {
  HttpRequest request = std::move(request_);
  *this = HttpParser(limits_);
  return request;
}

}  // namespace sluice::server
