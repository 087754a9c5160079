// The finished pieces of a long measurement in a journal, which an interrupted one goes on from:
// what is in it is not done again. The first record says what the work belongs to.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "io/journal.h"

namespace sluice::evaluate {

// One thread.
class FinishedWork {
 public:
  // Begins the file, or goes on with what is there. kInvalidArgument when that belongs to something
  // else; the journal's errors.
  static Result<FinishedWork> open(io::Storage& storage, const std::string& path,
                                   const Json& belongs_to);

  // In order, without the first.
  const std::vector<Json>& pieces() const { return pieces_; }
  // Durable when it returns.
  Status add(const Json& piece);

 private:
  FinishedWork(std::unique_ptr<io::Journal> journal, std::vector<Json> pieces)
      : journal_(std::move(journal)), pieces_(std::move(pieces)) {}
  std::unique_ptr<io::Journal> journal_;
  std::vector<Json> pieces_;
};

}  // namespace sluice::evaluate
