// A hub of models with Hugging Face's API: what hf:// addresses mean, and what a repository holds
// at one commit. docs/hub.md
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "io/http_client.h"
#include "io/http_source.h"

namespace sluice::io {

// hf://org/name[@revision][/folder]
struct HubAddress {
  std::string repository;         // "org/name", or "name" alone for the oldest ones
  std::string revision = "main";  // branch, tag or commit; may hold slashes
  std::string folder;             // inside the repository, without slashes at its ends
  bool operator==(const HubAddress&) const = default;
  std::string text() const;
};

// "org/name" or "name" in the characters that hubs allow.
bool is_repository_name(std::string_view text);
// text: with or without hf:// in front. A revision with slashes has them as %2F, but for
// refs/pr/N. Errors: kInvalidArgument.
Result<HubAddress> parse_hub_address(std::string_view text);
// What people copy from a browser: the pages of a repository, a branch or a folder under endpoint.
// Nothing for another address.
std::optional<HubAddress> hub_page_address(const Url& page, const Url& endpoint);

struct HubFile {
  std::string path;  // inside the repository
  uint64_t bytes = 0;
  std::string sha256;   // of a large file's content; empty for small ones
  std::string git_sha;  // of a small one's git blob
};

// What a repository holds at one commit.
struct HubSnapshot {
  HubAddress address;          // its revision is the commit
  std::vector<HubFile> files;  // sorted by path
};

// Thread-safe.
class Hub {
 public:
  Hub(std::shared_ptr<HttpClient> client, Url endpoint)
      : client_(std::move(client)), endpoint_(std::move(endpoint)) {}

  const Url& endpoint() const { return endpoint_; }
  const std::shared_ptr<HttpClient>& client() const { return client_; }
  // The commit that the address names now. Errors: kNotFound, with what may help for a repository
  // that is gated or private.
  Result<HubAddress> resolve(const HubAddress& address) const;
  // The files of the address's folder, or of everything below it. The address is resolved first.
  Result<HubSnapshot> list(const HubAddress& address, bool recursive) const;
  RemoteFile remote_file(const HubAddress& address, const HubFile& file) const;
  // endpoint/api/…
  Url api(const std::string& path) const;
  // Why a repository's files are refused, though they are listed, and what to do.
  std::string gated_text(const std::string& repository) const;
  // What a refusal means for this repository: gated, private, misspelt.
  Error explain(const HttpReply& reply, const std::string& repository) const;
  // A call of the API. Errors: whatever is no success, explained.
  Result<HttpReply> ask(const HttpRequest& request, const std::string& repository) const;
  // The same where the answer is a JSON value.
  Result<Json> call(const HttpRequest& request, const std::string& repository) const;

 private:
  const std::shared_ptr<HttpClient> client_;
  const Url endpoint_;
};

}  // namespace sluice::io
