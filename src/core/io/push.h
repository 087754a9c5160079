// Uploads a folder to a hub as one commit: large files to its store first, in parts where it says
// so, and then the list of everything. What the store holds already is not sent again, so that an
// interrupted push goes on where it stopped. docs/hub.md
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/thread.h"
#include "io/hub.h"
#include "io/storage.h"

namespace sluice::io {

struct PushOptions {
  std::string revision = "main";
  std::string message;      // of the commit
  bool create = false;      // the repository, unless it is there
  bool is_private = false;  // when it is created
  const CancelToken* cancel = nullptr;
  Progress* progress = nullptr;  // begun and ended here, once for each stage
  Log* log = nullptr;            // required
};

struct PushSummary {
  std::string commit, url;
  uint64_t files = 0, bytes = 0;  // in the commit
  uint64_t uploaded_bytes = 0;    // to the store of large files; the rest was there
};

// The files of the folder itself that are pushed: all but hidden and unfinished ones, and but
// run.json, which tells of the machine that it was made on.
Result<std::vector<std::string>> files_to_push(Storage& storage, const std::string& folder);

// Errors: kInvalidArgument without a token, for a name that is none, or an empty folder; kNotFound
// for a repository that is not there; kIo and kCancelled, after which the same call goes on.
Result<PushSummary> push(Storage& storage, const Hub& hub, const std::string& folder,
                         const std::string& repository, const PushOptions& options);

}  // namespace sluice::io
