#include "io/pull.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <optional>
#include <set>

#include "base/mutex.h"
#include "base/sha.h"
#include "base/units.h"
#include "io/gguf_set.h"

namespace sluice::io {
namespace {

// What one connection fetches at a time, and keeps until it is its turn to be written.
constexpr uint64_t kChunkBytes = 8 << 20;
constexpr size_t kHashBytes = 1 << 20;
constexpr std::string_view kLockName = ".pull.lock";
constexpr std::string_view kPartSuffix = ".part";

constexpr std::string_view kOtherWeights[] = {".bin", ".pt",   ".pth",    ".h5",   ".msgpack",
                                              ".ot",  ".onnx", ".tflite", ".ckpt", ".npz"};

bool is_other_weight(std::string_view name) {
  return std::ranges::any_of(kOtherWeights,
                             [&](std::string_view ending) { return name.ends_with(ending); });
}

std::string inner_path(const HubSnapshot& snapshot, const HubFile& file) {
  const std::string& folder = snapshot.address.folder;
  return folder.empty() ? file.path : file.path.substr(folder.size() + 1);
}

// A model's usual files in the folder itself.
Result<std::vector<HubFile>> choose_usual(const HubSnapshot& snapshot) {
  std::vector<HubFile> weights, ggufs, rest;
  bool has_model = false;
  std::vector<std::string> gguf_names;
  for (const HubFile& file : snapshot.files) {
    const std::string name = inner_path(snapshot, file);
    if (name.find('/') != std::string::npos || name.starts_with('.') || is_other_weight(name))
      continue;
    if (name.ends_with(".safetensors")) {
      has_model = has_model || name.starts_with("model");
      weights.push_back(file);
    } else if (name.ends_with(".gguf")) {
      gguf_names.push_back(name);
      ggufs.push_back(file);
    } else {
      rest.push_back(file);
    }
  }
  // Mistral's second copy of the same weights under their own names.
  if (has_model)
    std::erase_if(weights, [&](const HubFile& file) {
      return inner_path(snapshot, file).starts_with("consolidated");
    });
  if (weights.empty() && !ggufs.empty()) {
    const auto one = find_gguf_model(snapshot.address.text(), gguf_names);
    if (!one) {
      std::string choices;
      for (size_t i = 0; i < std::min<size_t>(ggufs.size(), 30); ++i)
        choices += fmt::format("\n  {:>9}  {}", bytes_text(ggufs[i].bytes), gguf_names[i]);
      return fail(ErrorCode::kUnsupported,
                  "{} holds several GGUF models; say which with --include:{}",
                  snapshot.address.repository, choices);
    }
    weights = std::move(ggufs);
  }
  if (weights.empty())
    return fail(ErrorCode::kUnsupported,
                "{} holds no weights as safetensors or GGUF in that folder; --include takes files "
                "of any kind",
                snapshot.address.text());
  weights.insert(weights.end(), rest.begin(), rest.end());
  std::ranges::sort(weights, {}, &HubFile::path);
  return weights;
}

// What names a file's content: the large ones' SHA-256, the small ones' blob in git.
const std::string& content_name(const HubFile& file) {
  return file.sha256.empty() ? file.git_sha : file.sha256;
}

Result<std::string> content_sha(const ByteSource& source, const HubFile& file,
                                const PullOptions& options) {
  ShaHasher hasher(file.sha256.empty() ? ShaKind::kSha1 : ShaKind::kSha256);
  if (file.sha256.empty()) {
    const std::string head = fmt::format("blob {}", source.size());
    hasher.update(std::as_bytes(std::span(head.c_str(), head.size() + 1)));
  }
  std::vector<std::byte> piece;
  for (uint64_t at = 0; at < source.size(); at += piece.size()) {
    if (options.cancel != nullptr && options.cancel->cancelled())
      return fail(ErrorCode::kCancelled, "interrupted");
    piece.resize(std::min<uint64_t>(kHashBytes, source.size() - at));
    SLUICE_TRY(source.read_at(at, piece));
    hasher.update(piece);
  }
  return hasher.finish();
}

// One file on its way. Chunks are fetched in any order and written in theirs, so that what is on
// disk is always a beginning, and its length all that has to be known to go on.
struct Download {
  HubFile file;
  std::string path, part;
  std::shared_ptr<ByteSource> source;
  std::unique_ptr<WritableFile> out;
  uint64_t claimed = 0, written = 0;
};

class Puller {
 public:
  Puller(Storage& storage, const Hub& hub, const HubSnapshot& snapshot, std::string folder,
         const PullOptions& options)
      : storage_(storage),
        hub_(hub),
        snapshot_(snapshot),
        folder_(std::move(folder)),
        options_(options) {}

  Result<uint64_t> run(const std::vector<HubFile>& files);

 private:
  struct Claim {
    Download* download;
    uint64_t offset, bytes;
  };

  Status prepare(const HubFile& file);
  Status make_folders(const std::string& inner);
  Status check_space(uint64_t needed);
  void work();
  std::optional<Claim> next_claim() EXCLUDES(mutex_);
  Status fetch(const Claim& claim, std::vector<std::byte>& buffer);
  bool wait_for_turn(const Claim& claim) EXCLUDES(mutex_);
  Status finish(Download& download);
  void stop(Error error) EXCLUDES(mutex_);

  Storage& storage_;
  const Hub& hub_;
  const HubSnapshot& snapshot_;
  const std::string folder_;
  const PullOptions& options_;
  std::set<std::string> folders_;

  Mutex mutex_;
  CondVar turn_;
  std::deque<Download> downloads_;  // a claim's is its holder's alone while it has its turn
  size_t current_ GUARDED_BY(mutex_) = 0;
  std::optional<Error> error_ GUARDED_BY(mutex_);
};

// The folders below folder_ that a file needs.
Status Puller::make_folders(const std::string& inner) {
  for (size_t slash = inner.find('/'); slash != std::string::npos;
       slash = inner.find('/', slash + 1)) {
    const std::string path = fmt::format("{}/{}", folder_, inner.substr(0, slash));
    if (folders_.insert(path).second) SLUICE_TRY(storage_.create_directory(path));
  }
  return {};
}

// What is there already is either the file, which is done, or in the way.
Status Puller::prepare(const HubFile& file) {
  const std::string inner = inner_path(snapshot_, file);
  SLUICE_TRY(make_folders(inner));
  Download download;
  download.file = file;
  download.path = fmt::format("{}/{}", folder_, inner);
  download.part =
      fmt::format("{}.{}{}", download.path, content_name(file).substr(0, 12), kPartSuffix);
  if (storage_.exists(download.path)) {
    SLUICE_ASSIGN(const auto there, storage_.open_source(download.path));
    std::string sha;
    if (there->size() == file.bytes) {
      SLUICE_ASSIGN(sha, content_sha(*there, file, options_));
    }
    if (sha == content_name(file)) return {};
    return fail(ErrorCode::kInvalidArgument,
                "{} is there and is not what {} holds at this commit; remove it or choose another "
                "folder",
                download.path, snapshot_.address.repository);
  }
  if (storage_.exists(download.part)) {
    SLUICE_ASSIGN(const auto begun, storage_.open_source(download.part));
    if (begun->size() <= file.bytes) download.written = download.claimed = begun->size();
  }
  download.source = http_source(hub_.client(), hub_.remote_file(snapshot_.address, file));
  downloads_.push_back(std::move(download));
  return {};
}

Status Puller::check_space(uint64_t needed) {
  SLUICE_ASSIGN(const uint64_t free, storage_.free_bytes(folder_));
  if (free >= needed) return {};
  return fail(ErrorCode::kExhausted, "{}: {} are needed but only {} are free", folder_,
              bytes_text(needed), bytes_text(free));
}

std::optional<Puller::Claim> Puller::next_claim() {
  MutexLock lock(mutex_);
  if (error_ || current_ == downloads_.size()) return std::nullopt;
  Download& download = downloads_[current_];
  const uint64_t offset = download.claimed;
  const uint64_t bytes = std::min(kChunkBytes, download.file.bytes - offset);
  download.claimed += bytes;
  if (download.claimed == download.file.bytes) ++current_;
  return Claim{&download, offset, bytes};
}

bool Puller::wait_for_turn(const Claim& claim) {
  MutexLock lock(mutex_);
  while (!error_ && claim.download->written != claim.offset) turn_.wait(mutex_);
  return !error_;
}

Status Puller::fetch(const Claim& claim, std::vector<std::byte>& buffer) {
  Download& download = *claim.download;
  buffer.resize(claim.bytes);
  SLUICE_TRY(download.source->read_at(claim.offset, buffer));
  if (!wait_for_turn(claim)) return {};  // another connection has the error to tell
  if (download.out == nullptr) {
    SLUICE_ASSIGN(download.out, storage_.open(download.part, OpenMode::kCreateOrOpen));
    SLUICE_TRY(download.out->truncate(claim.offset));
  }
  SLUICE_TRY(download.out->write_at(claim.offset, buffer));
  if (options_.progress != nullptr) options_.progress->advance(buffer.size());
  if (claim.offset + claim.bytes == download.file.bytes) SLUICE_TRY(finish(download));
  MutexLock lock(mutex_);
  download.written = claim.offset + claim.bytes;
  turn_.notify_all();
  return {};
}

// What counts is what can be read back from the disk.
Status Puller::finish(Download& download) {
  SLUICE_TRY(download.out->sync());
  download.out.reset();
  SLUICE_ASSIGN(const auto source, storage_.open_source(download.part));
  SLUICE_ASSIGN(const std::string sha, content_sha(*source, download.file, options_));
  if (sha != content_name(download.file)) {
    SLUICE_TRY(storage_.remove(download.part));
    return fail(ErrorCode::kCorrupt,
                "{}: its {} is {}, the hub says {}; what was downloaded is removed, run the same "
                "command again",
                download.path, download.file.sha256.empty() ? "SHA-1" : "SHA-256", sha,
                content_name(download.file));
  }
  SLUICE_TRY(storage_.rename(download.part, download.path));
  return storage_.sync_directory(parent_folder(download.path));
}

void Puller::stop(Error error) {
  MutexLock lock(mutex_);
  if (!error_) error_ = std::move(error);
  turn_.notify_all();
}

void Puller::work() {
  std::vector<std::byte> buffer;
  while (const auto claim = next_claim())
    if (auto status = fetch(*claim, buffer); !status) return stop(std::move(status).error());
}

Result<uint64_t> Puller::run(const std::vector<HubFile>& files) {
  for (const HubFile& file : files) SLUICE_TRY(prepare(file));
  uint64_t missing = 0;
  for (const Download& download : downloads_) missing += download.file.bytes - download.written;
  SLUICE_TRY(check_space(missing));
  if (options_.progress != nullptr) options_.progress->begin("pull", missing);
  {
    std::vector<Thread> threads;
    for (unsigned i = 0; i < std::max(1u, options_.connections); ++i)
      threads.emplace_back([this] { work(); });
  }
  if (options_.progress != nullptr) options_.progress->end();
  MutexLock lock(mutex_);
  if (error_) return std::unexpected(std::move(*error_));
  return missing;
}

}  // namespace

bool matches_pattern(std::string_view text, std::string_view pattern) {
  // Where the last * began to match, to try a longer match from there.
  size_t t = 0, p = 0, star = std::string_view::npos, from = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      from = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++from;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

Result<std::vector<HubFile>> choose_files(const HubSnapshot& snapshot,
                                          const std::vector<std::string>& include) {
  if (include.empty()) return choose_usual(snapshot);
  std::vector<HubFile> chosen;
  for (const HubFile& file : snapshot.files) {
    const std::string path = inner_path(snapshot, file);
    if (std::ranges::any_of(
            include, [&](const std::string& pattern) { return matches_pattern(path, pattern); }))
      chosen.push_back(file);
  }
  if (chosen.empty())
    return fail(ErrorCode::kInvalidArgument, "none of the {} files of {} matches {}",
                snapshot.files.size(), snapshot.address.repository, fmt::join(include, " or "));
  return chosen;
}

Result<PullSummary> pull(Storage& storage, const Hub& hub, const HubAddress& address,
                         const std::string& folder, const PullOptions& options) {
  SLUICE_ASSIGN(const HubSnapshot snapshot, hub.list(address, true));
  PullSummary summary;
  summary.address = snapshot.address;
  SLUICE_ASSIGN(summary.files, choose_files(snapshot, options.include));
  for (const HubFile& file : summary.files) summary.bytes += file.bytes;
  options.log->info(fmt::format("{} at commit {}: {} {}, {}", address.repository,
                                snapshot.address.revision.substr(0, 12), summary.files.size(),
                                summary.files.size() == 1 ? "file" : "files",
                                bytes_text(summary.bytes)));
  SLUICE_TRY(storage.create_directory(folder));
  const std::string lock_path = fmt::format("{}/{}", folder, kLockName);
  SLUICE_ASSIGN(const auto lock, storage.lock(lock_path));
  auto fetched = Puller(storage, hub, snapshot, folder, options).run(summary.files);
  const Status unlocked = storage.remove(lock_path);
  if (!fetched) return std::unexpected(std::move(fetched).error());
  SLUICE_TRY(unlocked);
  summary.fetched_bytes = *fetched;
  return summary;
}

}  // namespace sluice::io
