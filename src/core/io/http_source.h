// A file behind an address, read by ranges. The version that was found first is the only one that
// is ever read: whatever the server says of version, size and place is held against it in every
// reply.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "io/byte_source.h"
#include "io/http_client.h"

namespace sluice::io {

// What is known of a file before its bytes are asked for.
struct RemoteFile {
  Url url;
  std::string label = {};  // for messages
  uint64_t bytes = 0;
  std::string etag = {};      // quoted; compared where it is known
  bool conditional = false;   // the etag may be made a condition of requests
  std::string modified = {};  // Last-Modified, compared where there is no etag
  // A hub's own name of the content, which comes with its redirect; the etag of the host that it
  // redirects to is another.
  std::string linked_etag = {};
  std::string version = {};  // ByteSource::version()
  std::string refusal = {};  // what 401 and 403 mean; empty: what they always do
};

// Asks a server for a file's first byte, which tells whether it is there, its size and version.
// Nothing when it is not there. Errors: the server cannot be reached or refuses.
Result<std::optional<RemoteFile>> find_remote_file(HttpClient& client, const Url& url);

// prefix: bytes of the beginning that are known already; given back as soon as others are read.
// Reads are retried as HttpOptions say and go on behind the last byte that arrived. Errors besides
// ByteSource's: kCorrupt when the file has changed, kUnsupported when the server knows no ranges
// and not the whole file is wanted.
std::shared_ptr<ByteSource> http_source(std::shared_ptr<HttpClient> client, RemoteFile file,
                                        std::vector<std::byte> prefix = {});

}  // namespace sluice::io
