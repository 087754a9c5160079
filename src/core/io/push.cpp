#include "io/push.h"

#include <algorithm>
#include <map>
#include <optional>
#include <span>

#include "base/base64.h"
#include "base/json.h"
#include "base/sha.h"
#include "io/at_once.h"
#include "io/directory.h"
#include "io/names.h"

namespace sluice::io {
namespace {

constexpr uint64_t kSampleBytes = 512;             // of a file, by which a hub tells its kind
constexpr size_t kFilesPerQuestion = 256;          // the hub's own limit
constexpr uint64_t kCommittedBytesMax = 64 << 20;  // of small files, which travel in the commit
constexpr size_t kHashBytes = 1 << 20;
constexpr size_t kPartsAtOnce = 4;
constexpr uint64_t kPartsMax = 10'000;  // the limit of the stores behind hubs
constexpr std::string_view kRunRecord = "run.json";

// A file to be pushed, and what is found out about it on the way.
struct Item {
  std::string name;
  std::shared_ptr<ByteSource> source;
  bool large = false, ignored = false;
  std::string sha256;  // of large ones
};

std::string_view text_of(const Json& value) {
  return value.is_string() ? std::string_view(value.get_ref<const std::string&>())
                           : std::string_view();
}

class Pusher {
 public:
  Pusher(const Hub& hub, const std::string& repository, const PushOptions& options)
      : hub_(hub), repository_(repository), options_(options) {}

  Status create();
  Status ask_kinds(std::vector<Item>& items);
  Status hash(std::vector<Item>& items);
  Result<uint64_t> upload(const std::vector<Item>& items);
  Result<PushSummary> commit(const std::vector<Item>& items);

 private:
  Result<Json> post(const Url& url, const Json& body, std::vector<std::string> headers);
  Url model_api(const std::string& what) const;
  Status upload_object(const Item& item, const Json& actions);
  Status upload_parts(const Item& item, const Json& header, const Url& completion);
  Result<std::string> put(const Item& item, const Url& url, uint64_t offset, uint64_t bytes);
  Result<Url> href(const Json& action) const;

  const Hub& hub_;
  const std::string& repository_;
  const PushOptions& options_;
};

Result<Json> Pusher::post(const Url& url, const Json& body, std::vector<std::string> headers) {
  if (headers.empty()) headers.push_back("Content-Type: application/json");
  return hub_.call(
      {.method = "POST", .url = url, .headers = std::move(headers), .body = dump_json(body)},
      repository_);
}

Url Pusher::model_api(const std::string& what) const {
  Url url = hub_.api(fmt::format("models/{}/{}/", repository_, what));
  url.path += percent_encode(options_.revision);
  return url;
}

Status Pusher::create() {
  const size_t slash = repository_.find('/');
  const HttpRequest request{.method = "POST",
                            .url = hub_.api("repos/create"),
                            .headers = {"Content-Type: application/json"},
                            .body = dump_json({{"type", "model"},
                                               {"organization", repository_.substr(0, slash)},
                                               {"name", repository_.substr(slash + 1)},
                                               {"private", options_.is_private}})};
  HttpRetry retry(hub_.client()->options());
  while (true) {
    auto reply = hub_.client()->exchange(request);
    if (reply && ((reply->status >= 200 && reply->status < 300) || reply->status == 409)) return {};
    if (reply && (reply->status == 401 || reply->status == 403))
      return fail(ErrorCode::kNotFound,
                  "{}: this token may not create it (the hub answers {}); it needs the right to "
                  "write",
                  repository_, reply->status);
    SLUICE_TRY(
        retry.wait(reply ? status_failure(*reply, request.url.label(), hub_.client()->options())
                         : std::move(reply).error()));
  }
}

Status Pusher::ask_kinds(std::vector<Item>& items) {
  const Url url = model_api("preupload");
  for (size_t first = 0; first < items.size(); first += kFilesPerQuestion) {
    const auto some =
        std::span(items).subspan(first, std::min(kFilesPerQuestion, items.size() - first));
    Json files = Json::array();
    for (const Item& item : some) {
      std::vector<std::byte> sample(std::min(kSampleBytes, item.source->size()));
      SLUICE_TRY(item.source->read_at(0, sample));
      files.push_back(
          {{"path", item.name}, {"sample", base64(sample)}, {"size", item.source->size()}});
    }
    SLUICE_ASSIGN(const Json answer, post(url, {{"files", std::move(files)}}, {}));
    SLUICE_ASSIGN(const Json* kinds, json_array(answer, "files", url.label()));
    std::map<std::string, const Json*> by_name;
    for (const Json& kind : *kinds)
      if (const Json* path = json_find(kind, "path")) by_name[std::string(text_of(*path))] = &kind;
    for (Item& item : some) {
      const auto found = by_name.find(item.name);
      const Json* mode = found == by_name.end() ? nullptr : json_find(*found->second, "uploadMode");
      if (mode == nullptr || (text_of(*mode) != "lfs" && text_of(*mode) != "regular"))
        return fail(ErrorCode::kCorrupt, "{}: the answer does not say how to send {}", url.label(),
                    item.name);
      // Stores take no empty objects.
      item.large = text_of(*mode) == "lfs" && item.source->size() > 0;
      const Json* ignore = json_find(*found->second, "shouldIgnore");
      item.ignored = ignore != nullptr && *ignore == true;
    }
  }
  return {};
}

Status Pusher::hash(std::vector<Item>& items) {
  uint64_t total = 0;
  for (const Item& item : items) total += item.large ? item.source->size() : 0;
  if (options_.progress != nullptr) options_.progress->begin("hash", total);
  for (Item& item : items) {
    if (!item.large) continue;
    ShaHasher hasher(ShaKind::kSha256);
    std::vector<std::byte> piece;
    for (uint64_t at = 0; at < item.source->size(); at += piece.size()) {
      if (options_.cancel != nullptr && options_.cancel->cancelled())
        return fail(ErrorCode::kCancelled, "interrupted");
      piece.resize(std::min<uint64_t>(kHashBytes, item.source->size() - at));
      SLUICE_TRY(item.source->read_at(at, piece));
      hasher.update(piece);
      if (options_.progress != nullptr) options_.progress->advance(piece.size());
    }
    item.sha256 = hasher.finish();
  }
  if (options_.progress != nullptr) options_.progress->end();
  return {};
}

Result<Url> Pusher::href(const Json& action) const {
  SLUICE_ASSIGN(const std::string text, json_string(action, "href", "the store's answer"));
  SLUICE_ASSIGN(Url url, parse_url(text));
  if (!url.encrypted() && !url.loopback())
    return fail(ErrorCode::kIo, "{}: the hub wants the upload unencrypted", url.origin());
  return url;
}

// Returns the etag of what arrived. The token is the hub's alone: the address is signed.
Result<std::string> Pusher::put(const Item& item, const Url& url, uint64_t offset, uint64_t bytes) {
  HttpRetry retry(hub_.client()->options());
  while (true) {
    auto reply = hub_.client()->exchange({.method = "PUT",
                                          .url = url,
                                          .upload = item.source.get(),
                                          .upload_offset = offset,
                                          .upload_bytes = bytes,
                                          .progress = options_.progress});
    if (reply && reply->status >= 200 && reply->status < 300)
      return std::string(reply->headers.find("etag").value_or(""));
    SLUICE_TRY(
        retry.wait(reply ? status_failure(*reply, fmt::format("{} to {}", item.name, url.origin()),
                                          hub_.client()->options())
                         : std::move(reply).error()));
  }
}

// header: "chunk_size", and an address for each part under its number. completion then joins them.
Status Pusher::upload_parts(const Item& item, const Json& header, const Url& completion) {
  const Json& said = *json_find(header, "chunk_size");
  const auto chunk = said.is_number_unsigned() ? std::optional(said.get<uint64_t>())
                                               : parse_decimal(text_of(said));
  const uint64_t size = item.source->size();
  const uint64_t count = chunk.value_or(0) == 0 ? 0 : size / *chunk + (size % *chunk != 0);
  if (count == 0 || count > kPartsMax)
    return fail(ErrorCode::kCorrupt, "{}: the hub wants it in {} parts", item.name, count);
  std::vector<std::string> etags(count);
  SLUICE_TRY(at_once(
      count,
      [&](size_t i) -> Status {
        const Json* address = json_find(header, fmt::format("{}", i + 1));
        if (address == nullptr) address = json_find(header, fmt::format("{:05}", i + 1));
        if (address == nullptr)
          return fail(ErrorCode::kCorrupt, "{}: the hub has no address for part {} of {}",
                      item.name, i + 1, count);
        SLUICE_ASSIGN(const Url url, href({{"href", *address}}));
        SLUICE_ASSIGN(etags[i], put(item, url, i * *chunk, std::min(*chunk, size - i * *chunk)));
        if (etags[i].empty())
          return fail(ErrorCode::kCorrupt, "{}: the store does not confirm part {}", item.name,
                      i + 1);
        return {};
      },
      kPartsAtOnce));
  Json parts = Json::array();
  for (size_t i = 0; i < count; ++i) parts.push_back({{"partNumber", i + 1}, {"etag", etags[i]}});
  SLUICE_TRY(hub_.ask({.method = "POST",
                       .url = completion,
                       .headers = {"Content-Type: application/vnd.git-lfs+json",
                                   "Accept: application/vnd.git-lfs+json"},
                       .body = dump_json({{"oid", item.sha256}, {"parts", std::move(parts)}})},
                      repository_));
  return {};
}

Status Pusher::upload_object(const Item& item, const Json& actions) {
  SLUICE_ASSIGN(const Json* action, json_object(actions, "upload", item.name));
  SLUICE_ASSIGN(const Url url, href(*action));
  const Json* header = json_find(*action, "header");
  if (header != nullptr && json_find(*header, "chunk_size") != nullptr)
    SLUICE_TRY(upload_parts(item, *header, url));
  else
    SLUICE_TRY(put(item, url, 0, item.source->size()));
  const Json* confirm = json_find(actions, "verify");
  if (confirm == nullptr) return {};
  SLUICE_ASSIGN(const Url confirm_url, href(*confirm));
  SLUICE_TRY(hub_.ask({.method = "POST",
                       .url = confirm_url,
                       .headers = {"Content-Type: application/json"},
                       .body = dump_json({{"oid", item.sha256}, {"size", item.source->size()}})},
                      repository_));
  return {};
}

Result<uint64_t> Pusher::upload(const std::vector<Item>& items) {
  std::map<std::string, const Item*> by_sha;
  Json objects = Json::array();
  for (const Item& item : items)
    if (item.large && !item.ignored && by_sha.emplace(item.sha256, &item).second)
      objects.push_back({{"oid", item.sha256}, {"size", item.source->size()}});
  if (objects.empty()) return uint64_t{0};
  Url url = file_in(hub_.endpoint(), repository_ + ".git/info/lfs/objects/batch");
  SLUICE_ASSIGN(const Json answer, post(url,
                                        {{"operation", "upload"},
                                         {"transfers", {"basic", "multipart"}},
                                         {"objects", std::move(objects)},
                                         {"hash_algo", "sha256"},
                                         {"ref", {{"name", options_.revision}}}},
                                        {"Content-Type: application/vnd.git-lfs+json",
                                         "Accept: application/vnd.git-lfs+json"}));
  SLUICE_ASSIGN(const Json* answers, json_array(answer, "objects", url.label()));
  std::vector<std::pair<const Item*, const Json*>> missing;
  uint64_t bytes = 0;
  for (const Json& object : *answers) {
    SLUICE_ASSIGN(const std::string sha, json_string(object, "oid", url.label()));
    const auto item = by_sha.find(sha);
    if (item == by_sha.end()) continue;
    if (const Json* error = json_find(object, "error")) {
      const Json* message = json_find(*error, "message");
      return fail(ErrorCode::kIo, "{}: the hub does not take it: {}", item->second->name,
                  printable(message == nullptr ? "no reason given" : text_of(*message)));
    }
    const Json* actions = json_find(object, "actions");
    if (actions != nullptr && json_find(*actions, "upload") != nullptr) {
      missing.emplace_back(item->second, actions);
      bytes += item->second->source->size();
    }
    by_sha.erase(item);
  }
  if (!by_sha.empty())
    return fail(ErrorCode::kCorrupt, "{}: the answer leaves out {}", url.label(),
                by_sha.begin()->second->name);
  if (options_.progress != nullptr) options_.progress->begin("push", bytes);
  for (const auto& [item, actions] : missing) SLUICE_TRY(upload_object(*item, *actions));
  if (options_.progress != nullptr) options_.progress->end();
  return bytes;
}

// Lines of JSON: a head, then every file, the small ones with their content.
Result<PushSummary> Pusher::commit(const std::vector<Item>& items) {
  PushSummary summary;
  std::string body = dump_json({{"key", "header"},
                                {"value", {{"summary", options_.message}, {"description", ""}}}}) +
                     "\n";
  for (const Item& item : items) {
    if (item.ignored) {
      options_.log->info(
          fmt::format("{}: left out, as the repository's .gitignore says", item.name));
      continue;
    }
    Json line;
    if (item.large) {
      line = {{"key", "lfsFile"},
              {"value",
               {{"path", item.name},
                {"algo", "sha256"},
                {"oid", item.sha256},
                {"size", item.source->size()}}}};
    } else {
      SLUICE_ASSIGN(const std::string text, read_text(*item.source, kCommittedBytesMax));
      line = {{"key", "file"},
              {"value",
               {{"path", item.name},
                {"content", base64(std::as_bytes(std::span(text)))},
                {"encoding", "base64"}}}};
    }
    body += dump_json(line) + "\n";
    if (body.size() > 2 * kCommittedBytesMax)
      return fail(ErrorCode::kUnsupported, "small files of more than {} bytes in one commit",
                  kCommittedBytesMax);
    ++summary.files;
    summary.bytes += item.source->size();
  }
  const Url url = model_api("commit");
  SLUICE_ASSIGN(const Json answer, hub_.call({.method = "POST",
                                              .url = url,
                                              .headers = {"Content-Type: application/x-ndjson"},
                                              .body = std::move(body)},
                                             repository_));
  SLUICE_ASSIGN(summary.commit, json_string(answer, "commitOid", url.label()));
  summary.url = file_in(hub_.endpoint(), repository_).text();
  return summary;
}

}  // namespace

Result<std::vector<std::string>> files_to_push(Storage& storage, const std::string& folder) {
  SLUICE_ASSIGN(std::vector<std::string> names, storage.list_directory(folder));
  std::erase_if(names, [](const std::string& name) {
    return name.starts_with('.') || name == kRunRecord || name.ends_with(kUnfinishedSuffix) ||
           !is_bare_file_name(name);
  });
  return names;
}

Result<PushSummary> push(Storage& storage, const Hub& hub, const std::string& folder,
                         const std::string& repository, const PushOptions& options) {
  if (repository.find('/') == std::string::npos || !is_repository_name(repository))
    return fail(ErrorCode::kInvalidArgument, "{} is no name of a repository; it should be org/name",
                printable(repository));
  if (hub.client()->options().token.empty())
    return fail(ErrorCode::kInvalidArgument,
                "a hub wants to know who uploads: set HF_TOKEN to a token that may write");
  SLUICE_ASSIGN(const std::vector<std::string> names, files_to_push(storage, folder));
  std::vector<Item> items;
  for (const std::string& name : names) {
    auto source = storage.open_source(fmt::format("{}/{}", folder, name));
    if (!source && source.error().code == ErrorCode::kUnsupported) continue;  // a folder
    if (!source) return std::unexpected(std::move(source).error());
    items.push_back({.name = name, .source = std::move(*source), .sha256 = {}});
  }
  if (items.empty())
    return fail(ErrorCode::kInvalidArgument, "{}: there is no file in it to upload", folder);
  Pusher pusher(hub, repository, options);
  if (options.create) SLUICE_TRY(pusher.create());
  SLUICE_TRY(pusher.ask_kinds(items));
  SLUICE_TRY(pusher.hash(items));
  SLUICE_ASSIGN(const uint64_t uploaded, pusher.upload(items));
  SLUICE_ASSIGN(PushSummary summary, pusher.commit(items));
  summary.uploaded_bytes = uploaded;
  return summary;
}

}  // namespace sluice::io
