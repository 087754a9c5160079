#include "verify/small_files.h"

#include <algorithm>

#include "base/digest.h"
#include "base/sealed_json.h"
#include "io/journal.h"
#include "verify/output.h"

namespace sluice::verify {
namespace {

constexpr uint64_t kPieceBytes = 1 << 20;  // a tokenizer may take a hundred megabytes
constexpr uint64_t kRunRecordBytesMax = 16 << 20, kSensitivityBytesMax = 64 << 20;
constexpr size_t kTableDigits = 16;

Result<bool> equal_files(const io::ByteSource& a, const io::ByteSource& b) {
  if (a.size() != b.size()) return false;
  std::vector<std::byte> from_a, from_b;
  for (uint64_t at = 0; at < a.size(); at += kPieceBytes) {
    const uint64_t bytes = std::min(kPieceBytes, a.size() - at);
    from_a.resize(bytes);
    from_b.resize(bytes);
    SLUICE_TRY(a.read_at(at, from_a));
    SLUICE_TRY(b.read_at(at, from_b));
    if (from_a != from_b) return false;
  }
  return true;
}

Result<Digest> file_digest(const io::ByteSource& file) {
  Hasher hasher;
  std::vector<std::byte> piece;
  for (uint64_t at = 0; at < file.size(); at += kPieceBytes) {
    piece.resize(std::min(kPieceBytes, file.size() - at));
    SLUICE_TRY(file.read_at(at, piece));
    hasher.update(piece);
  }
  return hasher.finish();
}

Status check_recorded_file(io::Storage& storage, const std::string& out, const std::string& name,
                           const Json& recorded, Findings& findings) {
  const std::string path = fmt::format("{}/{}", out, name);
  if (!storage.exists(path)) {
    findings.add(name, "is missing");
    return {};
  }
  SLUICE_ASSIGN(const auto file, storage.open_source(path));
  SLUICE_ASSIGN(const Digest found, file_digest(*file));
  if (recorded != found.hex())
    findings.add(name, fmt::format("its digest is {}, sluice.json recorded {}", found.hex(),
                                   dump_json(recorded)));
  return {};
}

// Left by fit, for further budgets.
Status check_analysis(io::Storage& storage, const std::string& out, const allocate::Plan& plan,
                      Findings& findings) {
  const std::string name = "analysis.jsonl", path = fmt::format("{}/{}", out, name);
  if (!storage.exists(path)) return {};
  SLUICE_ASSIGN(const auto file, storage.open_source(path));
  Hasher hasher;
  SLUICE_ASSIGN(const io::JournalEnd end,
                io::read_journal(*file, [&](const Json& record) -> Status {
                  hasher.update(dump_json(record));
                  return {};
                }));
  if (end.torn)
    findings.add(name, fmt::format("is damaged at byte {}", end.valid_bytes));
  else if (hasher.finish() != plan.data().analysis)
    findings.add(name, "is not the analysis that the plan was made from");
  return {};
}

// Likewise, where sensitivities were measured: a plan names its table by the digest's start.
Status check_sensitivities(io::Storage& storage, const std::string& out, const allocate::Plan& plan,
                           Findings& findings) {
  const std::string name = "sensitivity.json", path = fmt::format("{}/{}", out, name);
  if (!storage.exists(path)) return {};
  SLUICE_ASSIGN(const auto file, storage.open_source(path));
  auto text = io::read_text(*file, kSensitivityBytesMax);
  if (!text && is_system_failure(text.error())) return std::unexpected(text.error());
  const auto json = text ? parse_json(*text, name) : std::unexpected(text.error());
  if (!json)
    findings.add(name, json.error().message);
  else if (!plan.data().sensitivity.ends_with(
               "@" + digest_of(dump_json(*json)).hex().substr(0, kTableDigits)))
    findings.add(name, "is not the table that the plan was made from");
  return {};
}

Status check_run_record(io::Storage& storage, const std::string& out, Findings& findings) {
  const std::string name = "run.json", path = fmt::format("{}/{}", out, name);
  if (!storage.exists(path)) return {};
  SLUICE_ASSIGN(const auto file, storage.open_source(path));
  auto text = io::read_text(*file, kRunRecordBytesMax);
  if (!text && is_system_failure(text.error())) return std::unexpected(text.error());
  const auto json = text ? parse_json(*text, name) : std::unexpected(text.error());
  if (!json)
    findings.add(name, json.error().message);
  else if (const Status seal = check_seal(*json, name); !seal)
    findings.add(name, seal.error().message);
  else if (*text != dump_json(*json, 1) + "\n")
    findings.add(name, "was damaged or edited since Sluice wrote it");
  return {};
}

}  // namespace

bool is_system_failure(const Error& error) {
  return error.code == ErrorCode::kIo || error.code == ErrorCode::kExhausted;
}

Status check_sidecars(io::Storage& storage, const std::string& out,
                      const io::Checkpoint& checkpoint, Findings& findings) {
  for (const io::Sidecar& sidecar : checkpoint.sidecars) {
    const std::string path = out + "/" + sidecar.name;
    if (!storage.exists(path)) {
      findings.add(sidecar.name, "is missing");
      continue;
    }
    SLUICE_ASSIGN(const auto found, storage.open_source(path));
    SLUICE_ASSIGN(const bool equal, equal_files(*sidecar.source, *found));
    if (!equal) findings.add(sidecar.name, "differs from the source's");
  }
  return {};
}

Status check_written_files(io::Storage& storage, const std::string& out, const Json& record,
                           const allocate::Plan& plan, Findings& findings) {
  for (const std::string name : {"config.json", "model.safetensors.index.json", "README.md"}) {
    const Json* files = json_find(record, "files");
    const Json* recorded = files != nullptr ? json_find(*files, name) : nullptr;
    if (recorded == nullptr)
      findings.add(name, "sluice.json has no record of it");
    else
      SLUICE_TRY(check_recorded_file(storage, out, name, *recorded, findings));
  }
  SLUICE_TRY(check_analysis(storage, out, plan, findings));
  SLUICE_TRY(check_sensitivities(storage, out, plan, findings));
  return check_run_record(storage, out, findings);
}

}  // namespace sluice::verify
