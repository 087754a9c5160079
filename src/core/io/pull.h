// Downloads a model from a hub: the files that a model needs, over several connections, continued
// where an earlier attempt stopped, and each under its name only once its SHA has been checked.
// docs/hub.md
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/thread.h"
#include "io/hub.h"
#include "io/storage.h"

namespace sluice::io {

struct PullOptions {
  std::vector<std::string> include;  // patterns with * and ?; empty: what choose_files() takes
  unsigned connections = 8;
  const CancelToken* cancel = nullptr;
  Progress* progress = nullptr;  // begun and ended here
  Log* log = nullptr;            // required
};

struct PullSummary {
  HubAddress address;  // with the commit
  std::vector<HubFile> files;
  uint64_t bytes = 0;          // of all files
  uint64_t fetched_bytes = 0;  // the rest was there
};

// * is any text, / included, and ? any character.
bool matches_pattern(std::string_view text, std::string_view pattern);

// Which of the files below the address's folder to download. Without patterns: what lies in the
// folder itself, the weights as safetensors where there are any and else as the one GGUF model, and
// no weights in other forms. Errors: kInvalidArgument when nothing matches; kUnsupported naming the
// choices when there are several GGUF models and nothing else.
Result<std::vector<HubFile>> choose_files(const HubSnapshot& snapshot,
                                          const std::vector<std::string>& include);

// Downloads into folder, which is created. Unfinished files end in ".part" and carry the beginning
// of their content's name. Errors: kExhausted before anything is fetched when the disk is too
// small; kInvalidArgument when another file lies under a name; kCorrupt for a wrong SHA; kIo and
// kCancelled, after which the same call goes on.
Result<PullSummary> pull(Storage& storage, const Hub& hub, const HubAddress& address,
                         const std::string& folder, const PullOptions& options);

}  // namespace sluice::io
