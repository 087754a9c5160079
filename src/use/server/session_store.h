// Sessions kept on disk by name, below one folder: what is there, what may be added, what a name
// may be. Each model's are in a folder of its own, called as its identity is; the files are the
// engine's.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/mutex.h"
#include "runtime/engine.h"

namespace sluice::server {

struct SessionStoreOptions {
  std::string folder;      // empty: sessions are not kept
  size_t count_max = 100;  // of sessions, all models' together
  uint64_t bytes_max = 0;  // of their files; 0: no bound
};

struct KeptSession {
  std::string name;
  std::string model;  // its identity
  uint64_t bytes = 0;
  int64_t saved_s = 0;  // Unix time
};

// Letters, digits, '-', '_' and '.', the first one no '.'; at most 64. kInvalidArgument.
Status check_session_name(std::string_view name);

// Thread-safe.
class SessionStore {
 public:
  explicit SessionStore(SessionStoreOptions options) : options_(std::move(options)) {}

  // kUnsupported where no folder was given.
  Status offered() const;
  // Of all models, by name. kIo.
  Result<std::vector<KeptSession>> list() const;
  // kInvalidArgument for the name, kNotFound.
  Result<KeptSession> find(std::string_view model, std::string_view name) const;
  // In place of one of that name. bytes: what it will take. Errors: kInvalidArgument for the name;
  // kExhausted where it is too much, with the numbers; the session's.
  Status save(std::string_view model, std::string_view name, const runtime::Session& session,
              uint64_t bytes) EXCLUDES(mutex_);
  // Errors: find()'s, the session's.
  Status load(std::string_view model, std::string_view name, runtime::Session& session) const;
  // Errors: find()'s, kIo.
  Status remove(std::string_view model, std::string_view name) const;

 private:
  std::string path(std::string_view model, std::string_view name) const;
  Status check_room(std::string_view model, std::string_view name, uint64_t bytes) const;

  const SessionStoreOptions options_;
  Mutex mutex_;  // one is saved at a time, so that together they keep to the limits
};

}  // namespace sluice::server
