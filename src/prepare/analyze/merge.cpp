// Joins the files that the parts of an analysis wrote.
#include <memory>

#include "analyze/analyze.h"
#include "io/journal.h"

namespace sluice::analyze {
namespace {

// One part's file, checked as far as its header and its end go. Its lock is held.
struct PartFile {
  std::string path;
  std::unique_ptr<io::LockFile> lock;
  std::shared_ptr<io::ByteSource> source;
  AnalysisHeader header;
  uint64_t records = 0;
  bool complete = false;
};

Result<PartFile> open_part(io::Storage& storage, const std::string& path) {
  PartFile part;
  part.path = path;
  SLUICE_ASSIGN(part.lock, storage.lock(path));
  SLUICE_ASSIGN(part.source, storage.open_source(path));
  uint64_t count = 0;
  SLUICE_TRY(io::read_journal(*part.source, [&](const Json& record) -> Status {
    if (count++ == 0) {
      SLUICE_ASSIGN(part.header, header_from_json(record, path));
    } else if (record.contains("complete")) {
      part.complete = true;
    } else {
      ++part.records;
    }
    return {};
  }));
  return part;
}

Status append_records(const io::ByteSource& source, io::Journal& out) {
  uint64_t count = 0;
  SLUICE_TRY(io::read_journal(source, [&](const Json& record) -> Status {
    if (count++ == 0 || record.contains("complete")) return {};
    return out.append(record);
  }));
  return {};
}

Result<std::vector<PartFile>> open_parts(io::Storage& storage, const std::string& path,
                                         uint32_t count) {
  std::vector<PartFile> parts;
  std::vector<stream::Part> incomplete;
  for (uint32_t index = 0; index < count; ++index) {
    const stream::Part part{index, count};
    const std::string name = stream::part_path(path, part);
    if (storage.exists(name)) {
      SLUICE_ASSIGN(parts.emplace_back(), open_part(storage, name));
      if (parts.back().complete) continue;
    }
    incomplete.push_back(part);
  }
  SLUICE_TRY(stream::all_complete(path, incomplete));
  AnalysisHeader expected = parts.front().header;
  uint64_t records = 0;
  for (uint32_t index = 0; index < count; ++index) {
    expected.part = {index, count};
    if (!(parts[index].header == expected))
      return fail(ErrorCode::kInvalidArgument,
                  "{} was made from another source or with other options than {}",
                  parts[index].path, parts.front().path);
    records += parts[index].records;
  }
  if (records != expected.modules)
    return fail(ErrorCode::kCorrupt, "{}: the parts hold {} modules, expected {}", path, records,
                expected.modules);
  return parts;
}

// All records under one header, in a file that takes its name when it is durable.
Status write_joined(io::Storage& storage, const std::string& path,
                    const std::vector<PartFile>& parts) {
  SLUICE_ASSIGN(const auto file, storage.open(path, io::OpenMode::kCreateOrOpen));
  SLUICE_TRY(file->truncate(0));
  SLUICE_ASSIGN(const auto journal,
                io::Journal::open(storage, path, [](const Json&) { return Status{}; }));
  AnalysisHeader header = parts.front().header;
  header.part = {};
  SLUICE_TRY(journal->append(header_to_json(header)));
  for (const PartFile& part : parts) SLUICE_TRY(append_records(*part.source, *journal));
  SLUICE_TRY(journal->append({{"complete", true}}));
  return journal->sync();
}

// What is left beside a joined file was joined already, or belongs to something else.
Status remove_joined_parts(io::Storage& storage, const std::string& path, uint32_t count,
                           const Analysis& analysis) {
  for (uint32_t index = 0; index < count; ++index) {
    const std::string name = stream::part_path(path, {index, count});
    if (!storage.exists(name)) continue;
    SLUICE_ASSIGN(PartFile part, open_part(storage, name));
    part.header.part = {};
    if (!(part.header == analysis.header))
      return fail(ErrorCode::kInvalidArgument,
                  "{} exists already and {} is part of another analysis; remove one of them", path,
                  name);
    SLUICE_TRY(storage.remove(name));
  }
  return {};
}

}  // namespace

Result<Analysis> merge_analysis(io::Storage& storage, const std::string& path) {
  SLUICE_ASSIGN(const uint32_t count, stream::count_parts(storage, path));
  if (!storage.exists(path)) {
    if (count == 0) return fail(ErrorCode::kNotFound, "{}: there are no parts of it to join", path);
    SLUICE_ASSIGN(const std::vector<PartFile> parts, open_parts(storage, path, count));
    const std::string unfinished = path + std::string(io::kUnfinishedSuffix);
    SLUICE_TRY(write_joined(storage, unfinished, parts));
    SLUICE_TRY(storage.rename(unfinished, path));
    SLUICE_TRY(storage.sync_directory(io::parent_folder(path)));
  }
  SLUICE_ASSIGN(const auto source, storage.open_source(path));
  SLUICE_ASSIGN(Analysis analysis, load_analysis(*source));
  SLUICE_TRY(remove_joined_parts(storage, path, count, analysis));
  return analysis;
}

}  // namespace sluice::analyze
