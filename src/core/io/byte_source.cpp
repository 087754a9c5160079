// Positional reads over files and memory.
#include "io/byte_source.h"

#include <fcntl.h>

#include <algorithm>
#include <atomic>

#include "io/descriptor_cache.h"
#include "io/posix.h"

namespace sluice::io {
namespace {

// Told before the system is asked: an offset from a damaged header must not become a read.
Status check_range(const ByteSource& source, uint64_t offset, uint64_t bytes) {
  if (offset <= source.size() && bytes <= source.size() - offset) return {};
  return fail(ErrorCode::kCorrupt, "{}: {} bytes at offset {} lie past the end (file has {} bytes)",
              source.label(), bytes, offset, source.size());
}

// Without O_NONBLOCK a FIFO in a hostile folder would hang the open.
Result<FileDescriptor> open_to_read(const std::string& path) {
  return open_descriptor(path, O_RDONLY | O_NONBLOCK);
}

// Keeps no descriptor of its own: the cache lends one for each read.
class FileSource : public ByteSource {
 public:
  FileSource(std::shared_ptr<DescriptorCache> descriptors, std::string path, const FileState& state,
             const DirectReads& direct)
      : descriptors_(std::move(descriptors)),
        path_(std::move(path)),
        state_(state),
        large_(state.bytes >= direct.file_bytes_min),
        direct_bytes_min_(direct.read_bytes_min),
        plain_key_(descriptors_->new_key()),
        direct_key_(descriptors_->new_key()) {}
  ~FileSource() override {
    descriptors_->forget(plain_key_);
    descriptors_->forget(direct_key_);
  }

  // The descriptor that the file was opened with.
  Status keep(FileDescriptor fd) {
    SLUICE_TRY(
        descriptors_->get(plain_key_, [&fd] { return Result<FileDescriptor>(std::move(fd)); }));
    return {};
  }
  Status read_at(uint64_t offset, std::span<std::byte> out) const override {
    SLUICE_TRY(check_range(*this, offset, out.size()));
    const bool direct = past_cache() && out.size() >= direct_bytes_min_;
    if (direct && !refused_.load(std::memory_order_relaxed)) {
      SLUICE_ASSIGN(const size_t done, read_past_cache(offset, out));
      if (done == out.size()) return {};
      offset += done;
      out = out.subspan(done);
    }
    SLUICE_ASSIGN(const auto fd, plain_descriptor());
    if (!past_cache()) return read_fully(fd->get(), offset, out, path_);
    expect_scattered_reads(fd->get());
    SLUICE_TRY(read_fully(fd->get(), offset, out, path_));
    drop_cached(fd->get(), offset, out.size());
    return {};
  }
  uint64_t size() const override { return state_.bytes; }
  int64_t modified_ns() const override { return state_.modified_ns; }
  Status unchanged() const override {
    SLUICE_ASSIGN(const Descriptor fd, plain_descriptor());
    SLUICE_ASSIGN(const FileState now, regular_file_state(fd->get(), path_));
    if (now.bytes == state_.bytes && now.modified_ns == state_.modified_ns) return {};
    return fail(ErrorCode::kCorrupt, "{}: was {} while the model was in use", path_,
                now.bytes == state_.bytes
                    ? std::string("written to")
                    : fmt::format("resized from {} to {} bytes", state_.bytes, now.bytes));
  }
  const std::string& label() const override { return path_; }
  std::shared_ptr<const FileDescriptor> direct_descriptor() const override {
    if (!past_cache() || refused_.load(std::memory_order_relaxed)) return nullptr;
    auto found = cached_direct_descriptor();
    return found && (*found)->get() >= 0 ? *found : nullptr;
  }

 private:
  using Descriptor = std::shared_ptr<const FileDescriptor>;

  // A path that is opened again may lead to another file by now. Times of writing do not tell: an
  // unfinished output is read while other processes write their parts of it.
  Result<FileDescriptor> same_file(FileDescriptor fd) const {
    SLUICE_ASSIGN(const FileState state, regular_file_state(fd.get(), path_));
    if (state.device == state_.device && state.inode == state_.inode && state.bytes == state_.bytes)
      return fd;
    return fail(ErrorCode::kCorrupt, "{}: was replaced or resized while it was being read", path_);
  }

  Result<Descriptor> plain_descriptor() const {
    return descriptors_->get(plain_key_, [this]() -> Result<FileDescriptor> {
      SLUICE_ASSIGN(FileDescriptor fd, open_to_read(path_));
      return same_file(std::move(fd));
    });
  }

  bool past_cache() const {
    switch (descriptors_->pages()) {
      case DescriptorCache::Pages::kAsDirectReadsSay: return large_;
      case DescriptorCache::Pages::kKept: return false;
      case DescriptorCache::Pages::kLeftOut: break;
    }
    return true;
  }

  Result<Descriptor> cached_direct_descriptor() const {
    return descriptors_->get(direct_key_, [this]() -> Result<FileDescriptor> {
      FileDescriptor opened = open_direct(path_);
      if (opened.get() < 0) return opened;
      return same_file(std::move(opened));
    });
  }

  // Returns how many bytes were read; fewer than asked for where the file system refuses.
  Result<size_t> read_past_cache(uint64_t offset, std::span<std::byte> out) const {
    SLUICE_ASSIGN(const Descriptor fd, cached_direct_descriptor());
    size_t done = 0;
    if (fd->get() >= 0) {
      SLUICE_ASSIGN(done, read_direct(fd->get(), offset, out, path_));
    }
    if (done < out.size()) refused_.store(true, std::memory_order_relaxed);
    return done;
  }

  const std::shared_ptr<DescriptorCache> descriptors_;
  const std::string path_;
  const FileState state_;
  const bool large_;
  const size_t direct_bytes_min_;
  const uint64_t plain_key_, direct_key_;
  mutable std::atomic<bool> refused_{false};
};

class MemorySource : public ByteSource {
 public:
  MemorySource(std::string label, std::vector<std::byte> bytes)
      : label_(std::move(label)), bytes_(std::move(bytes)) {}

  Status read_at(uint64_t offset, std::span<std::byte> out) const override {
    SLUICE_TRY(check_range(*this, offset, out.size()));
    std::copy_n(bytes_.begin() + static_cast<ptrdiff_t>(offset), out.size(), out.begin());
    return {};
  }
  uint64_t size() const override { return bytes_.size(); }
  const std::string& label() const override { return label_; }

 private:
  const std::string label_;
  const std::vector<std::byte> bytes_;
};

}  // namespace

Result<std::shared_ptr<ByteSource>> open_file_source(const std::string& path,
                                                     std::shared_ptr<DescriptorCache> descriptors,
                                                     const DirectReads& direct) {
  SLUICE_ASSIGN(FileDescriptor fd, open_to_read(path));
  SLUICE_ASSIGN(const FileState state, regular_file_state(fd.get(), path));
  if (descriptors == nullptr) descriptors = std::make_shared<DescriptorCache>();
  auto source = std::make_shared<FileSource>(std::move(descriptors), path, state, direct);
  SLUICE_TRY(source->keep(std::move(fd)));
  return source;
}

std::shared_ptr<ByteSource> memory_source(std::string label, std::vector<std::byte> bytes) {
  return std::make_shared<MemorySource>(std::move(label), std::move(bytes));
}

Result<std::string> read_text(const ByteSource& source, uint64_t bytes_max) {
  if (source.size() > bytes_max)
    return fail(ErrorCode::kCorrupt, "{}: {} bytes, at most {} are accepted for this file",
                source.label(), source.size(), bytes_max);
  std::string text(static_cast<size_t>(source.size()), '\0');
  SLUICE_TRY(source.read_at(0, std::as_writable_bytes(std::span(text))));
  return text;
}

}  // namespace sluice::io
