#include "io/page_digests.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstring>

#include "base/checked.h"
#include "base/json.h"
#include "base/mutex.h"
#include "io/aligned_buffer.h"

namespace sluice::io {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint64_t kPage = kDirectAlignment;
// Read at once while digests are taken: large enough for the disk's rate by two threads.
constexpr uint64_t kTakeBytes = 1 << 20;
// Checked at once where a read goes through memory of its own.
constexpr uint64_t kCheckBytes = 256 << 10;

constexpr std::string_view kMagic = "SLUICEPD";
constexpr uint32_t kVersion = 1;
constexpr size_t kFixedBytes = 16;  // magic, version, length of the JSON
constexpr size_t kDigestBytes = 32;
constexpr size_t kPieceBytes = 1 << 20;

uint64_t pages_of(uint64_t bytes) { return (bytes + kPage - 1) / kPage; }

// What the digests stand for: another text, other digests.
std::string describe(PageDigests::Sources files, const Digest& model) {
  Json list = Json::array();
  for (const auto& file : files)
    list.push_back({{"bytes", file->size()}, {"modified_ns", file->modified_ns()}});
  return dump_json({{"model", model.hex()}, {"page_bytes", kPage}, {"files", std::move(list)}});
}

template <class T>
std::span<const std::byte> bytes_of(const T& values) {
  return std::as_bytes(std::span(values));
}

}  // namespace

PageDigests::PageDigests(Sources files) {
  size_t pages = 0;
  for (const auto& file : files) {
    file_bytes_.push_back(file->size());
    first_.push_back(pages);
    pages += static_cast<size_t>(pages_of(file->size()));
  }
  pages_.resize(pages);
}

uint64_t PageDigests::bytes(Sources files) {
  uint64_t pages = 0;
  for (const auto& file : files) pages += pages_of(file->size());
  return pages * sizeof(uint32_t);
}

Result<PageDigests> PageDigests::take(Sources files, ThreadPool& pool, Progress& progress) {
  PageDigests made(files);
  struct Piece {
    size_t file;
    uint64_t offset, bytes;
  };
  std::vector<Piece> pieces;
  uint64_t total = 0;
  for (size_t file = 0; file < files.size(); ++file) {
    const uint64_t size = files[file]->size();
    total += size;
    for (uint64_t at = 0; at < size; at += kTakeBytes)
      pieces.push_back({file, at, std::min(kTakeBytes, size - at)});
  }
  progress.begin("digests", total);
  std::vector<AlignedBuffer> buffers(pool.threads());
  Mutex mutex;
  Status first_error;
  std::atomic<bool> failed{false};
  pool.run(pieces.size(), [&](size_t item, size_t worker) {
    if (failed.load(std::memory_order_relaxed)) return;
    const Piece& piece = pieces[item];
    const auto bytes = buffers[worker].place(static_cast<size_t>(piece.bytes), 0);
    Status status = files[piece.file]->read_at(piece.offset, bytes);
    progress.advance(piece.bytes);
    if (status) {
      uint32_t* to = made.pages_.data() + made.first_[piece.file] + piece.offset / kPage;
      for (size_t at = 0; at < bytes.size(); at += kPage)
        *to++ = short_digest_of(bytes.subspan(at, std::min<size_t>(kPage, bytes.size() - at)));
      return;
    }
    MutexLock lock(mutex);
    if (first_error) first_error = std::move(status);
    failed = true;
  });
  progress.end();
  if (!first_error) return std::unexpected(std::move(first_error).error());
  return made;
}

Result<PageDigests> PageDigests::load(const ByteSource& kept, Sources files, const Digest& model) {
  const std::string json = describe(files, model);
  PageDigests made(files);
  const std::span<std::byte> pages = std::as_writable_bytes(std::span(made.pages_));
  const auto others = [&] {
    return fail(ErrorCode::kNotFound,
                "{}: digests of other files, or of these before they were written to",
                kept.label());
  };
  std::array<std::byte, kFixedBytes> fixed{};
  if (kept.size() < fixed.size()) return others();
  SLUICE_TRY(kept.read_at(0, fixed));
  uint32_t version = 0, length = 0;
  std::memcpy(&version, fixed.data() + 8, sizeof version);
  std::memcpy(&length, fixed.data() + 12, sizeof length);
  if (std::memcmp(fixed.data(), kMagic.data(), kMagic.size()) != 0)
    return fail(ErrorCode::kCorrupt, "{}: no digests of pages", kept.label());
  if (version != kVersion)
    return fail(ErrorCode::kUnsupported, "{}: version {} of digests of pages, known is {}",
                kept.label(), version, kVersion);
  const uint64_t end = kFixedBytes + json.size() + pages.size();
  if (length != json.size() || kept.size() != end + kDigestBytes) return others();
  std::string found(json.size(), '\0'), digest(kDigestBytes, '\0');
  SLUICE_TRY(kept.read_at(kFixedBytes, std::as_writable_bytes(std::span(found))));
  if (found != json) return others();
  SLUICE_TRY(kept.read_at(kFixedBytes + json.size(), pages));
  SLUICE_TRY(kept.read_at(end, std::as_writable_bytes(std::span(digest))));
  Hasher hasher;
  hasher.update(fixed);
  hasher.update(found);
  hasher.update(pages);
  if (hasher.finish().hex() != digest)
    return fail(ErrorCode::kCorrupt, "{}: damaged, its own digest does not fit", kept.label());
  made.kept_in_ = kept.label();
  return made;
}

Status PageDigests::save(Storage& storage, const std::string& path, Sources files,
                         const Digest& model) const {
  const std::string json = describe(files, model);
  const uint32_t numbers[] = {kVersion, static_cast<uint32_t>(json.size())};
  const std::string partial = path + std::string(kUnfinishedSuffix);
  Status status = [&]() -> Status {
    SLUICE_ASSIGN(const auto file, storage.open(partial, OpenMode::kCreateOrOpen));
    SLUICE_TRY(file->truncate(0));
    Hasher hasher;
    for (const auto part :
         {bytes_of(kMagic), bytes_of(numbers), bytes_of(json), bytes_of(pages_)}) {
      hasher.update(part);
      for (size_t at = 0; at < part.size(); at += kPieceBytes)
        SLUICE_TRY(file->append(part.subspan(at, std::min(kPieceBytes, part.size() - at))));
    }
    SLUICE_TRY(file->append(bytes_of(hasher.finish().hex())));
    return file->sync();
  }();
  if (status) status = storage.rename(partial, path);
  if (status) return storage.sync_directory(parent_folder(path));
  (void)storage.remove(partial);
  return status;
}

Status PageDigests::check(size_t file, uint64_t offset, std::span<const std::byte> bytes,
                          const std::string& label) const {
  SLUICE_DCHECK(offset % kPage == 0 && offset + bytes.size() <= file_bytes_[file]);
  const uint32_t* expected = pages_.data() + first_[file] + offset / kPage;
  for (size_t at = 0; at < bytes.size(); at += kPage) {
    const uint64_t page_bytes = std::min(kPage, file_bytes_[file] - offset - at);
    const auto page = bytes.subspan(at, std::min<size_t>(kPage, bytes.size() - at));
    if (page.size() == page_bytes && short_digest_of(page) == *expected++) continue;
    return fail(ErrorCode::kCorrupt,
                "{}: the bytes read at offset {} are not those that were there when their digest "
                "was {}; the file was overwritten, or disk, cable or memory are at fault{}",
                label, offset + at, kept_in_.empty() ? "taken at the start" : "kept in " + kept_in_,
                kept_in_.empty() ? "" : " (if the change was meant, remove the digests)");
  }
  return {};
}

namespace {

class VerifiedSource : public ByteSource {
 public:
  VerifiedSource(std::shared_ptr<ByteSource> inner, std::shared_ptr<const PageDigests> digests,
                 size_t file)
      : inner_(std::move(inner)), digests_(std::move(digests)), file_(file) {}

  // Through memory of its own, because the first and the last page reach beyond what is wanted.
  Status read_at(uint64_t offset, std::span<std::byte> out) const override {
    const uint64_t size = inner_->size();
    if (offset > size || out.size() > size - offset) return inner_->read_at(offset, out);
    AlignedBuffer buffer;
    while (!out.empty()) {
      const uint64_t begin = offset - offset % kPage;
      const uint64_t end =
          std::min({align_up(offset + out.size(), kPage), begin + kCheckBytes, size});
      const auto pages = buffer.place(static_cast<size_t>(end - begin), begin);
      SLUICE_TRY(inner_->read_at(begin, pages));
      SLUICE_TRY(digests_->check(file_, begin, pages, label()));
      const size_t count = std::min(out.size(), static_cast<size_t>(end - offset));
      std::memcpy(out.data(), pages.data() + (offset - begin), count);
      offset += count;
      out = out.subspan(count);
    }
    return {};
  }
  Status check(uint64_t offset, std::span<const std::byte> bytes) const override {
    return digests_->check(file_, offset, bytes, label());
  }
  uint64_t size() const override { return inner_->size(); }
  int64_t modified_ns() const override { return inner_->modified_ns(); }
  std::string version() const override { return inner_->version(); }
  Status unchanged() const override { return inner_->unchanged(); }
  const std::string& label() const override { return inner_->label(); }
  std::shared_ptr<const FileDescriptor> direct_descriptor() const override {
    return inner_->direct_descriptor();
  }

 private:
  const std::shared_ptr<ByteSource> inner_;
  const std::shared_ptr<const PageDigests> digests_;
  const size_t file_;
};

}  // namespace

std::shared_ptr<ByteSource> verified_source(std::shared_ptr<ByteSource> inner,
                                            std::shared_ptr<const PageDigests> digests,
                                            size_t file) {
  return std::make_shared<VerifiedSource>(std::move(inner), std::move(digests), file);
}

}  // namespace sluice::io
