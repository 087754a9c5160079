// The right to work on an output: one process at a time, from before anything is written to the
// final name. Two commands on one output exclude each other, and a command that is refused leaves
// nothing behind.
#pragma once

#include <memory>
#include <string>

#include "io/storage.h"

namespace sluice::convert {

// The output's path as its neighbours' names begin: without slashes at the end.
std::string output_name(const std::string& out);
// Where an unfinished output lies: written here, renamed to its own name when complete.
std::string partial_path(const std::string& out);
// The journal of an unfinished output, which is also its lock.
std::string journal_path(const std::string& out);

// Held while it lives. One thread.
class OutputClaim {
 public:
  // Locks the journal and creates the partial folder, durably. Errors: kIo naming the journal when
  // another process holds it; kInvalidArgument when out exists and is complete or somebody else's.
  static Result<std::unique_ptr<OutputClaim>> take(io::Storage& storage, const std::string& out);
  // What is still empty, journal or folder, goes.
  ~OutputClaim();
  OutputClaim(const OutputClaim&) = delete;
  OutputClaim& operator=(const OutputClaim&) = delete;

  // Without slashes at the end.
  const std::string& out() const { return out_; }
  // An earlier run was stopped after the folder took its final name, before its journal went.
  bool published() const { return published_; }
  // The journal has been removed; nothing is left to hold.
  void finish() { finished_ = true; }

 private:
  OutputClaim(io::Storage& storage, std::string out, std::unique_ptr<io::LockFile> lock);
  Result<bool> journal_is_empty() const;
  Result<bool> journal_is_begun() const;
  Status check_names();

  io::Storage& storage_;
  const std::string out_;
  const std::unique_ptr<io::LockFile> lock_;
  bool published_ = false, finished_ = false;
};

}  // namespace sluice::convert
