#include "server/session_store.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "base/units.h"
#include "server/text.h"

namespace sluice::server {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSuffix = ".session";
constexpr size_t kNameBytesMax = 64;

}  // namespace

Status check_session_name(std::string_view name) {
  const bool plain = !name.empty() && name.size() <= kNameBytesMax && name.front() != '.' &&
                     std::ranges::all_of(name, [](char c) {
                       return is_alphanumeric(c) || c == '-' || c == '_' || c == '.';
                     });
  if (plain) return {};
  return fail(ErrorCode::kInvalidArgument,
              "name should have 1 to {} letters, digits, '-', '_' and '.', and not begin with '.'",
              kNameBytesMax);
}

Status SessionStore::offered() const {
  if (!options_.folder.empty()) return {};
  return fail(ErrorCode::kUnsupported,
              "sessions are not kept by this server: it has to be started with --sessions FOLDER");
}

std::string SessionStore::path(std::string_view model, std::string_view name) const {
  return fmt::format("{}/{}/{}{}", options_.folder, model, name, kSuffix);
}

Result<KeptSession> SessionStore::find(std::string_view model, std::string_view name) const {
  SLUICE_TRY(offered());
  SLUICE_TRY(check_session_name(name));
  KeptSession kept{.name = std::string(name), .model = std::string(model)};
  struct stat state;
  if (::stat(path(model, name).c_str(), &state) != 0 || !S_ISREG(state.st_mode))
    return fail(ErrorCode::kNotFound, "name: no session {} of this model is kept here", name);
  kept.bytes = static_cast<uint64_t>(state.st_size);
  kept.saved_s = state.st_mtime;
  return kept;
}

Result<std::vector<KeptSession>> SessionStore::list() const {
  SLUICE_TRY(offered());
  std::vector<KeptSession> sessions;
  std::error_code problem;
  for (fs::recursive_directory_iterator at(options_.folder, problem), end; !problem && at != end;
       at.increment(problem)) {
    const fs::path& place = at->path();
    if (place.extension() != kSuffix) continue;
    auto kept = find(place.parent_path().filename().string(), place.stem().string());
    if (kept) sessions.push_back(std::move(*kept));
  }
  if (problem)
    return fail(ErrorCode::kIo, "{}: sessions cannot be listed: {}", options_.folder,
                problem.message());
  std::ranges::sort(sessions, {}, &KeptSession::name);
  return sessions;
}

Status SessionStore::check_room(std::string_view model, std::string_view name,
                                uint64_t bytes) const {
  SLUICE_ASSIGN(const auto sessions, list());
  uint64_t others = 0;
  size_t count = 0;
  for (const KeptSession& kept : sessions) {
    if (kept.name == name && kept.model == model) continue;
    others += kept.bytes;
    ++count;
  }
  if (count >= options_.count_max)
    return fail(ErrorCode::kExhausted, "{} sessions are kept already, the most that may be", count);
  const uint64_t most = options_.bytes_max;
  if (most != 0 && (bytes > most || others > most - bytes))
    return fail(ErrorCode::kExhausted,
                "the session takes {}, others take {}, and all of them may take {}",
                bytes_text(bytes), bytes_text(others), bytes_text(most));
  return {};
}

Status SessionStore::save(std::string_view model, std::string_view name,
                          const runtime::Session& session, uint64_t bytes) {
  SLUICE_TRY(offered());
  SLUICE_TRY(check_session_name(name));
  MutexLock lock(mutex_);
  SLUICE_TRY(check_room(model, name, bytes));
  std::error_code problem;
  const std::string file = path(model, name);
  fs::create_directories(fs::path(file).parent_path(), problem);
  if (problem) return fail(ErrorCode::kIo, "{}: {}", file, problem.message());
  return session.save(file);
}

Status SessionStore::load(std::string_view model, std::string_view name,
                          runtime::Session& session) const {
  if (auto kept = find(model, name); !kept) return std::unexpected(kept.error());
  return session.load(path(model, name));
}

Status SessionStore::remove(std::string_view model, std::string_view name) const {
  if (auto kept = find(model, name); !kept) return std::unexpected(kept.error());
  std::error_code problem;
  fs::remove(path(model, name), problem);
  if (problem) return fail(ErrorCode::kIo, "{}: {}", path(model, name), problem.message());
  return {};
}

}  // namespace sluice::server
