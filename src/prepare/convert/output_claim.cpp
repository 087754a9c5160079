#include "convert/output_claim.h"

#include "io/journal.h"

namespace sluice::convert {

// "a/b/" and "a/b" are one folder, whose neighbours are a/b.partial and a/b.journal.
std::string output_name(const std::string& out) {
  std::string name = out;
  while (name.size() > 1 && name.back() == '/') name.pop_back();
  return name;
}

std::string partial_path(const std::string& out) { return output_name(out) + ".partial"; }
std::string journal_path(const std::string& out) { return output_name(out) + ".journal"; }

OutputClaim::OutputClaim(io::Storage& storage, std::string out, std::unique_ptr<io::LockFile> lock)
    : storage_(storage), out_(std::move(out)), lock_(std::move(lock)) {}

OutputClaim::~OutputClaim() {
  // Once the journal has been removed, another process may have begun one of its own.
  if (finished_) return;
  const auto begun = journal_is_begun();
  if (!begun || *begun) return;
  // A folder that holds something stays: removing it fails. What it was begun from is then worth
  // knowing.
  const bool removed = storage_.remove(partial_path(out_)).has_value();
  const auto empty = journal_is_empty();
  if (removed || (empty && *empty)) (void)storage_.remove(journal_path(out_));
}

// Whether there is more than a note of the source.
Result<bool> OutputClaim::journal_is_begun() const {
  SLUICE_ASSIGN(const auto journal, storage_.open_source(journal_path(out_)));
  bool begun = false;
  SLUICE_TRY(io::read_journal(*journal, [&](const Json& record) -> Status {
    begun = begun || record.contains("plan");
    return {};
  }));
  return begun;
}

Result<bool> OutputClaim::journal_is_empty() const {
  SLUICE_ASSIGN(const auto journal, storage_.open_source(journal_path(out_)));
  return journal->size() == 0;
}

Status OutputClaim::check_names() {
  const std::string partial = partial_path(out_);
  if (storage_.exists(out_)) {
    SLUICE_ASSIGN(const bool empty, journal_is_empty());
    published_ = !empty && !storage_.exists(partial);
    if (published_) return {};
    return fail(ErrorCode::kInvalidArgument,
                "{} exists already; remove it or choose another output", out_);
  }
  SLUICE_TRY(storage_.create_directory(partial));
  return storage_.sync_directory(io::parent_folder(out_));
}

Result<std::unique_ptr<OutputClaim>> OutputClaim::take(io::Storage& storage,
                                                       const std::string& out) {
  SLUICE_ASSIGN(auto lock, storage.lock(journal_path(out)));
  std::unique_ptr<OutputClaim> claim(new OutputClaim(storage, output_name(out), std::move(lock)));
  SLUICE_TRY(claim->check_names());
  return claim;
}

}  // namespace sluice::convert
