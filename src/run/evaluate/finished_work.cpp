#include "evaluate/finished_work.h"

namespace sluice::evaluate {

Result<FinishedWork> FinishedWork::open(io::Storage& storage, const std::string& path,
                                        const Json& belongs_to) {
  std::vector<Json> records;
  SLUICE_ASSIGN(auto journal, io::Journal::open(storage, path, [&](const Json& record) -> Status {
                  records.push_back(record);
                  return {};
                }));
  if (records.empty()) {
    SLUICE_TRY(journal->append(belongs_to));
    SLUICE_TRY(journal->sync());
    SLUICE_TRY(storage.sync_directory(io::parent_folder(path)));
  } else if (records.front() != belongs_to) {
    return fail(ErrorCode::kInvalidArgument,
                "{} belongs to another model, text or measurement; remove it, or choose another "
                "output",
                path);
  } else {
    records.erase(records.begin());
  }
  return FinishedWork(std::move(journal), std::move(records));
}

Status FinishedWork::add(const Json& piece) {
  SLUICE_TRY(journal_->append(piece));
  SLUICE_TRY(journal_->sync());
  pieces_.push_back(piece);
  return {};
}

}  // namespace sluice::evaluate
