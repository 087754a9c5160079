#include "io/http_source.h"

#include <algorithm>
#include <cstring>

#include "base/mutex.h"

namespace sluice::io {
namespace {

// Drops that each bring less than this count as attempts without progress.
constexpr size_t kProgressBytes = 64 << 10;

std::string text_of(std::optional<std::string_view> value) {
  return value ? std::string(*value) : std::string();
}

std::unexpected<Error> changed(const RemoteFile& file, std::string_view what,
                               std::string_view found, std::string_view expected) {
  return fail(ErrorCode::kCorrupt,
              "{}: has changed on the server since it was opened ({} is {}, was {})", file.label,
              what, found, expected);
}

// Takes the bytes of one range, and refuses the reply of anything else.
class RangeReceiver : public HttpReceiver {
 public:
  RangeReceiver(const RemoteFile& file, uint64_t offset, std::span<std::byte> out)
      : file_(file), offset_(offset), out_(out) {}

  size_t received() const { return received_; }

  Status begin(const HttpReply& reply) override {
    if (const auto coding = reply.headers.find("content-encoding");
        coding && *coding != "identity" && !coding->empty())
      return fail(ErrorCode::kUnsupported, "{}: the server sends it compressed, unasked",
                  file_.label);
    SLUICE_TRY(check_version(reply));
    if (reply.status == 206) return check_range(reply);
    if (offset_ != 0 || out_.size() != file_.bytes)
      return fail(ErrorCode::kUnsupported,
                  "{}: the server ignores ranges and sends whole files (status {}); download the "
                  "model first",
                  file_.label, reply.status);
    if (const auto length = reply.headers.find("content-length");
        length && parse_decimal(*length) != file_.bytes)
      return changed(file_, "its size", *length, fmt::format("{}", file_.bytes));
    return {};
  }
  Status take(std::span<const std::byte> bytes) override {
    if (bytes.size() > out_.size() - received_)
      return fail(ErrorCode::kCorrupt, "{}: the server sends more than the {} bytes asked for",
                  file_.label, out_.size());
    std::memcpy(out_.data() + received_, bytes.data(), bytes.size());
    received_ += bytes.size();
    return {};
  }

 private:
  Status check_version(const HttpReply& reply) const {
    if (!file_.linked_etag.empty()) {
      // The host that a hub redirects to has its own names for what it holds.
      const std::string linked = parse_etag(text_of(reply.first_headers.find("x-linked-etag")));
      if (linked.empty() || linked == file_.linked_etag) return {};
      return changed(file_, "its ETag", linked, file_.linked_etag);
    }
    const std::string etag = parse_etag(text_of(reply.headers.find("etag")));
    if (!file_.etag.empty()) {
      if (etag.empty() || etag_text(etag) == etag_text(file_.etag)) return {};
      return changed(file_, "its ETag", etag, file_.etag);
    }
    const std::string modified = text_of(reply.headers.find("last-modified"));
    if (file_.modified.empty() || modified.empty() || modified == file_.modified) return {};
    return changed(file_, "its date", modified, file_.modified);
  }
  Status check_range(const HttpReply& reply) const {
    const std::string text = text_of(reply.headers.find("content-range"));
    const auto range = parse_content_range(text);
    if (!range)
      return fail(ErrorCode::kCorrupt,
                  "{}: the reply to a range has no usable Content-Range (\"{}\")", file_.label,
                  text);
    if (range->size != file_.bytes)
      return changed(file_, "its size", fmt::format("{}", range->size),
                     fmt::format("{}", file_.bytes));
    if (range->first != offset_ || range->last != offset_ + out_.size() - 1)
      return fail(ErrorCode::kCorrupt, "{}: asked for bytes {}-{}, the server sends {}-{}",
                  file_.label, offset_, offset_ + out_.size() - 1, range->first, range->last);
    return {};
  }

  const RemoteFile& file_;
  const uint64_t offset_;
  const std::span<std::byte> out_;
  size_t received_ = 0;
};

class HttpSource : public ByteSource {
 public:
  HttpSource(std::shared_ptr<HttpClient> client, RemoteFile file, std::vector<std::byte> prefix)
      : client_(std::move(client)), file_(std::move(file)), prefix_(std::move(prefix)) {}

  uint64_t size() const override { return file_.bytes; }
  const std::string& label() const override { return file_.label; }
  std::string version() const override { return file_.version; }

  Status read_at(uint64_t offset, std::span<std::byte> out) const override {
    if (offset > file_.bytes || out.size() > file_.bytes - offset)
      return fail(ErrorCode::kCorrupt,
                  "{}: {} bytes at offset {} lie past the end (file has {} bytes)", file_.label,
                  out.size(), offset, file_.bytes);
    if (out.empty() || take_from_prefix(offset, out)) return {};
    HttpRetry retry(client_->options());
    size_t progress = 0;
    while (!out.empty()) {
      size_t received = 0;
      auto failure = attempt(offset, out, received);
      offset += received;
      out = out.subspan(received);
      if (!failure) continue;
      // A few bytes and a drop again and again must come to an end too.
      if ((progress += received) >= kProgressBytes) {
        progress = 0;
        retry.progressed();
      }
      SLUICE_TRY(retry.wait(std::move(*failure)));
    }
    return {};
  }

 private:
  bool take_from_prefix(uint64_t offset, std::span<std::byte> out) const {
    MutexLock lock(mutex_);
    if (offset + out.size() <= prefix_.size()) {
      std::memcpy(out.data(), prefix_.data() + offset, out.size());
      return true;
    }
    std::vector<std::byte>().swap(prefix_);
    return false;
  }

  // A signed address that an earlier redirect led to.
  std::optional<Url> target() const {
    MutexLock lock(mutex_);
    return target_;
  }
  void set_target(std::optional<Url> url) const {
    MutexLock lock(mutex_);
    target_ = std::move(url);
  }

  // Nothing when everything arrived.
  std::optional<HttpFailure> attempt(uint64_t offset, std::span<std::byte> out,
                                     size_t& received) const {
    const std::optional<Url> known = target();
    RangeReceiver receiver(file_, offset, out);
    HttpRequest request{
        .url = known.value_or(file_.url),
        .headers = {fmt::format("Range: bytes={}-{}", offset, offset + out.size() - 1)},
        .receiver = &receiver};
    if (file_.conditional) request.headers.push_back("If-Match: " + file_.etag);
    auto reply = client_->exchange(request);
    received = receiver.received();
    if (!reply) {
      HttpFailure failure = std::move(reply).error();
      // Messages must not hold signed addresses, nor name hosts that nobody asked for.
      if (failure.transient) failure.error = in_context(file_.label, failure.error).error();
      return failure;
    }
    if (reply->status >= 200 && reply->status < 300) {
      if (!known && reply->url != file_.url) set_target(reply->url);
      if (received == out.size()) return std::nullopt;
      return HttpFailure{{ErrorCode::kIo, fmt::format("{}: {} of {} bytes arrived", file_.label,
                                                      received, out.size())},
                         true,
                         std::nullopt};
    }
    return refused(*reply, known.has_value());
  }

  HttpFailure refused(const HttpReply& reply, bool from_target) const {
    // A signature that has run out: asked at the source again, that gives a new one.
    if (from_target && !is_transient_status(reply.status)) {
      set_target(std::nullopt);
      return {status_failure(reply, file_.label, client_->options()).error, true, 0};
    }
    if ((reply.status == 401 || reply.status == 403) && !file_.refusal.empty() &&
        reply.url.origin() == file_.url.origin())
      return {{ErrorCode::kNotFound, file_.refusal}, false, std::nullopt};
    if (reply.status == 412)
      return {changed(file_, "its ETag", "another", file_.etag).error(), false, std::nullopt};
    if (reply.status == 416)
      return {changed(file_, "its size", "smaller", fmt::format("{}", file_.bytes)).error(), false,
              std::nullopt};
    return status_failure(reply, file_.label, client_->options());
  }

  const std::shared_ptr<HttpClient> client_;
  const RemoteFile file_;
  mutable Mutex mutex_;
  mutable std::optional<Url> target_ GUARDED_BY(mutex_);
  mutable std::vector<std::byte> prefix_ GUARDED_BY(mutex_);
};

// Wants nothing of a body but to know that it begins.
class ProbeReceiver : public HttpReceiver {
 public:
  std::optional<HttpReply> reply;
  Status begin(const HttpReply& found) override {
    reply = found;
    // A server that ignores the range would send it all.
    return found.status == 206 ? Status{} : fail(ErrorCode::kCancelled, "seen enough");
  }
  Status take(std::span<const std::byte>) override { return {}; }
};

// What the headers of a probe's reply say.
Result<RemoteFile> describe(const HttpReply& reply, const Url& url) {
  RemoteFile file{.url = url, .label = url.label()};
  std::optional<uint64_t> size;
  if (reply.status == 206) {
    const auto range = parse_content_range(text_of(reply.headers.find("content-range")));
    if (range) size = range->size;
  } else if (reply.status == 416) {
    size = parse_unsatisfied_range(text_of(reply.headers.find("content-range")));
  } else {
    size = parse_decimal(text_of(reply.headers.find("content-length")));
  }
  if (!size)
    return fail(ErrorCode::kUnsupported, "{}: the server does not say how long it is", file.label);
  file.bytes = *size;
  file.etag = parse_etag(text_of(reply.headers.find("etag")));
  file.conditional = is_strong_etag(file.etag);
  file.modified = text_of(reply.headers.find("last-modified"));
  file.version = fmt::format("{};{}", file.bytes, file.etag.empty() ? file.modified : file.etag);
  return file;
}

}  // namespace

Result<std::optional<RemoteFile>> find_remote_file(HttpClient& client, const Url& url) {
  HttpRetry retry(client.options());
  while (true) {
    ProbeReceiver receiver;
    auto reply =
        client.exchange({.url = url, .headers = {"Range: bytes=0-0"}, .receiver = &receiver});
    if (receiver.reply) {
      SLUICE_ASSIGN(RemoteFile file, describe(*receiver.reply, url));
      return file;
    }
    if (reply && reply->status == 416) {
      SLUICE_ASSIGN(RemoteFile file, describe(*reply, url));
      return file;
    }
    if (reply && (reply->status == 404 || reply->status == 410)) return std::nullopt;
    SLUICE_TRY(retry.wait(reply ? status_failure(*reply, url.label(), client.options())
                                : std::move(reply).error()));
  }
}

std::shared_ptr<ByteSource> http_source(std::shared_ptr<HttpClient> client, RemoteFile file,
                                        std::vector<std::byte> prefix) {
  return std::make_shared<HttpSource>(std::move(client), std::move(file), std::move(prefix));
}

}  // namespace sluice::io
