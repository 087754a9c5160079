#include "io/hub.h"

#include <algorithm>

#include "base/json.h"
#include "io/names.h"

namespace sluice::io {
namespace {

constexpr std::string_view kScheme = "hf://";
constexpr size_t kNameBytesMax = 96;
constexpr int kPagesMax = 200;  // of a thousand files each
constexpr size_t kCommitBytes = 40;

bool is_name_part(std::string_view part) {
  return !part.empty() && part.size() <= kNameBytesMax && part.front() != '.' &&
         part.front() != '-' && part.back() != '.' && part.back() != '-' &&
         part.find("..") == std::string_view::npos && part.find("--") == std::string_view::npos &&
         std::ranges::all_of(part, [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '-' || c == '_' || c == '.';
         });
}

bool is_hex(std::string_view text, size_t digits) {
  return text.size() == digits && std::ranges::all_of(text, [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

// Every segment a bare name, so that no path climbs.
bool is_inner_path(std::string_view path) {
  while (true) {
    const size_t slash = path.find('/');
    if (!is_bare_file_name(path.substr(0, slash))) return false;
    if (slash == std::string_view::npos) return true;
    path.remove_prefix(slash + 1);
  }
}

std::vector<std::string_view> segments(std::string_view text) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const size_t slash = std::min(text.find('/'), text.size());
    if (slash > 0) parts.push_back(text.substr(0, slash));
    text.remove_prefix(std::min(slash + 1, text.size()));
  }
  return parts;
}

std::string joined(std::span<const std::string_view> parts) {
  return fmt::format("{}", fmt::join(parts, "/"));
}

std::unexpected<Error> bad_address(std::string_view text, std::string_view why) {
  return fail(ErrorCode::kInvalidArgument,
              "{} is no address on a hub: {}; it should be hf://org/name, hf://org/name@revision "
              "or hf://org/name/folder",
              printable(text), why);
}

std::string_view without_slashes(std::string_view text) {
  while (text.ends_with('/')) text.remove_suffix(1);
  return text;
}

Result<HubFile> file_from_json(const Json& entry, const std::string& label) {
  HubFile file;
  SLUICE_ASSIGN(file.path, json_string(entry, "path", label));
  if (!is_inner_path(file.path))
    return fail(ErrorCode::kCorrupt, "{}: lists a file named \"{}\"", label, printable(file.path));
  SLUICE_ASSIGN(const int64_t bytes, json_int(entry, "size", 0, INT64_MAX, label));
  file.bytes = static_cast<uint64_t>(bytes);
  if (const Json* lfs = json_find(entry, "lfs")) {
    SLUICE_ASSIGN(file.sha256, json_string(*lfs, "oid", label));
    SLUICE_ASSIGN(const int64_t content, json_int(*lfs, "size", 0, INT64_MAX, label));
    file.bytes = static_cast<uint64_t>(content);
    if (!is_hex(file.sha256, 64))
      return fail(ErrorCode::kCorrupt, "{}: {} has no usable SHA-256 (\"{}\")", label, file.path,
                  printable(file.sha256));
  } else {
    SLUICE_ASSIGN(file.git_sha, json_string(entry, "oid", label));
    if (!is_hex(file.git_sha, kCommitBytes))
      return fail(ErrorCode::kCorrupt, "{}: {} has no usable SHA-1 (\"{}\")", label, file.path,
                  printable(file.git_sha));
  }
  return file;
}

Status add_page(const Json& page, const std::string& label, std::vector<HubFile>& files) {
  if (!page.is_array()) return fail(ErrorCode::kCorrupt, "{}: should be a list of files", label);
  for (const Json& entry : page) {
    SLUICE_ASSIGN(const std::string type, json_string(entry, "type", label));
    if (type != "file") continue;
    SLUICE_ASSIGN(HubFile file, file_from_json(entry, label));
    files.push_back(std::move(file));
  }
  return {};
}

}  // namespace

std::string HubAddress::text() const {
  std::string out = std::string(kScheme) + repository;
  if (revision != "main") out += "@" + percent_encode(revision);
  if (!folder.empty()) out += "/" + folder;
  return out;
}

bool is_repository_name(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return is_name_part(text);
  return is_name_part(text.substr(0, slash)) && is_name_part(text.substr(slash + 1));
}

Result<HubAddress> parse_hub_address(std::string_view text) {
  const std::string_view whole = text;
  if (text.starts_with(kScheme)) text.remove_prefix(kScheme.size());
  text = without_slashes(text);
  HubAddress address;
  const size_t at = text.find('@');
  std::vector<std::string_view> parts = segments(text.substr(0, at));
  if (at == std::string_view::npos) {
    const size_t name_parts = std::min<size_t>(2, parts.size());
    address.repository = joined(std::span(parts).first(name_parts));
    address.folder = joined(std::span(parts).subspan(name_parts));
  } else {
    if (parts.size() > 2) return bad_address(whole, "@revision belongs behind the name");
    address.repository = joined(parts);
    std::vector<std::string_view> rest = segments(text.substr(at + 1));
    if (rest.empty()) return bad_address(whole, "the revision is missing");
    // Pull requests are the one kind of revision with slashes that everybody writes.
    const size_t revision_parts = rest.size() >= 3 && rest[0] == "refs" ? 3 : 1;
    SLUICE_ASSIGN(address.revision, percent_decode(joined(std::span(rest).first(revision_parts))));
    address.folder = joined(std::span(rest).subspan(revision_parts));
  }
  if (!is_repository_name(address.repository))
    return bad_address(whole, "that is no name of a repository");
  if (!is_inner_path(address.revision)) return bad_address(whole, "that is no revision");
  if (!address.folder.empty() && !is_inner_path(address.folder))
    return bad_address(whole, "that is no folder");
  return address;
}

std::optional<HubAddress> hub_page_address(const Url& page, const Url& endpoint) {
  if (page.origin() != endpoint.origin()) return std::nullopt;
  const auto parts = segments(page.path);
  if (parts.size() < 2 || parts[0] == "api" || parts[0] == "datasets" || parts[0] == "spaces")
    return std::nullopt;
  std::string text = joined(std::span(parts).first(2));
  if (parts.size() >= 4 && parts[2] == "tree")
    text += "@" + joined(std::span(parts).subspan(3));
  else if (parts.size() != 2)
    return std::nullopt;
  const auto address = parse_hub_address(text);
  return address ? std::optional(*address) : std::nullopt;
}

Url Hub::api(const std::string& path) const { return file_in(endpoint_, "api/" + path); }

std::string Hub::gated_text(const std::string& repository) const {
  const std::string page = file_in(endpoint_, repository).text();
  return client_->options().token.empty()
             ? fmt::format(
                   "{} is gated; accept its licence at {} and set HF_TOKEN to a token of "
                   "your account",
                   repository, page)
             : fmt::format(
                   "{} is gated and this token has no access to it; accept its licence at "
                   "{}, or ask there",
                   repository, page);
}

Error Hub::explain(const HttpReply& reply, const std::string& repository) const {
  const std::string page = file_in(endpoint_, repository).text();
  const auto code = reply.headers.find("x-error-code");
  const bool known = !client_->options().token.empty();
  if (code == "GatedRepo") return {ErrorCode::kNotFound, gated_text(repository)};
  if (code == "RevisionNotFound")
    return {ErrorCode::kNotFound, fmt::format("{} has no such revision; see {}", repository, page)};
  if (code == "EntryNotFound")
    return {ErrorCode::kNotFound,
            fmt::format("{} has no such file or folder; see {}", repository, page)};
  if (reply.status == 401 || reply.status == 404) {
    return {ErrorCode::kNotFound,
            known ? fmt::format("{}: there is no such repository, or this token may not see it; "
                                "see {}",
                                repository, page)
                  : fmt::format("{}: there is no such repository, or it is private: then set "
                                "HF_TOKEN; see {}",
                                repository, page)};
  }
  Error error = status_failure(reply, page, client_->options()).error;
  const auto message = reply.headers.find("x-error-message");
  if (message) error.message += fmt::format(": {}", printable(*message));
  return error;
}

Result<HttpReply> Hub::ask(const HttpRequest& request, const std::string& repository) const {
  HttpRetry retry(client_->options());
  while (true) {
    auto reply = client_->exchange(request);
    if (reply && reply->status >= 200 && reply->status < 300) return std::move(*reply);
    if (reply && !is_transient_status(reply->status))
      return std::unexpected(explain(*reply, repository));
    SLUICE_TRY(retry.wait(reply ? status_failure(*reply, request.url.label(), client_->options())
                                : std::move(reply).error()));
  }
}

Result<Json> Hub::call(const HttpRequest& request, const std::string& repository) const {
  SLUICE_ASSIGN(const HttpReply reply, ask(request, repository));
  return parse_json(reply.body, request.url.label());
}

Result<HubAddress> Hub::resolve(const HubAddress& address) const {
  HubAddress resolved = address;
  if (is_hex(address.revision, kCommitBytes)) return resolved;
  Url url = api(fmt::format("models/{}/revision/", address.repository));
  url.path += percent_encode(address.revision);
  SLUICE_ASSIGN(const Json info, call({.url = url}, address.repository));
  SLUICE_ASSIGN(resolved.revision, json_string(info, "sha", url.label()));
  if (!is_hex(resolved.revision, kCommitBytes))
    return fail(ErrorCode::kCorrupt, "{}: \"{}\" is no commit", url.label(),
                printable(resolved.revision));
  return resolved;
}

Result<HubSnapshot> Hub::list(const HubAddress& address, bool recursive) const {
  HubSnapshot snapshot;
  SLUICE_ASSIGN(snapshot.address, resolve(address));
  const HubAddress& at = snapshot.address;
  Url url = api(fmt::format("models/{}/tree/{}", at.repository, at.revision));
  if (!at.folder.empty()) url.path += "/" + percent_encode(at.folder, true);
  if (recursive) url.query = "recursive=true";
  for (int page = 0; page < kPagesMax; ++page) {
    SLUICE_ASSIGN(const HttpReply reply, ask({.url = url}, at.repository));
    SLUICE_ASSIGN(const Json json, parse_json(reply.body, url.label()));
    SLUICE_TRY(add_page(json, url.label(), snapshot.files));
    const auto link = reply.headers.find("link");
    const auto next = link ? parse_next_link(*link) : std::nullopt;
    if (!next) {
      std::ranges::sort(snapshot.files, {}, &HubFile::path);
      return snapshot;
    }
    const std::string origin = url.origin();
    SLUICE_ASSIGN(url, resolve_reference(url, *next));
    if (url.origin() != origin)
      return fail(ErrorCode::kCorrupt, "{}: continues its list of files at {}", origin,
                  url.origin());
  }
  return fail(ErrorCode::kUnsupported, "{}: lists more than {} pages of files", at.text(),
              kPagesMax);
}

RemoteFile Hub::remote_file(const HubAddress& address, const HubFile& file) const {
  Url url = endpoint_;
  if (!url.path.ends_with('/')) url.path += '/';
  url.path += fmt::format("{}/resolve/{}/{}", address.repository, address.revision,
                          percent_encode(file.path, true));
  RemoteFile remote{.url = url,
                    .label = fmt::format("hf://{}/{}", address.repository, file.path),
                    .bytes = file.bytes};
  if (!file.sha256.empty())
    remote.linked_etag = fmt::format("\"{}\"", file.sha256);
  else
    remote.etag = fmt::format("\"{}\"", file.git_sha);
  // The commit is in it because small files travel along with the weights.
  remote.version =
      fmt::format("{};{}", address.revision, file.sha256.empty() ? file.git_sha : file.sha256);
  remote.refusal = gated_text(address.repository);
  return remote;
}

}  // namespace sluice::io
