// An append-only file of JSON records, one a line, each with its own digest: the memory of a job
// that may be killed at any moment. Reading stops at the first damaged line, which can only be the
// torn tail of an interrupted append, or damage worth redoing work for. docs/formats.md#journal
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "io/storage.h"

namespace sluice::io {

inline constexpr uint64_t kJournalLineBytesMax = 16 * 1024 * 1024;

// One line, with its newline.
std::string journal_line(const Json& record);

struct JournalEnd {
  uint64_t records = 0;
  uint64_t valid_bytes = 0;  // length of the undamaged lines
  bool torn = false;         // something follows that is no valid line
};

using RecordCallback = std::function<Status(const Json& record)>;

// Shows every valid record in order. Memory: one line. Errors: of reading, or the callback's own.
Result<JournalEnd> read_journal(const ByteSource& source, const RecordCallback& callback);

// One thread.
class Journal {
 public:
  // Opens or creates. Records that are there already are shown to the callback; a torn tail is cut.
  // Errors: kInvalidArgument for a file that is no journal, which is left as it is.
  static Result<std::unique_ptr<Journal>> open(Storage& storage, const std::string& path,
                                               const RecordCallback& callback);
  Status append(const Json& record);
  // Makes every record appended so far durable.
  Status sync() { return file_->sync(); }

 private:
  explicit Journal(std::unique_ptr<WritableFile> file) : file_(std::move(file)) {}
  std::unique_ptr<WritableFile> file_;
};

}  // namespace sluice::io
