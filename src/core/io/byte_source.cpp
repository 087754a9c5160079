// Positional reads over files and memory.
#include "io/byte_source.h"

#include <fcntl.h>

#include <algorithm>

#include "io/posix.h"

namespace sluice::io {
namespace {

// Told before the system is asked: an offset from a damaged header must not become a read.
Status check_range(const ByteSource& source, uint64_t offset, uint64_t bytes) {
  if (offset <= source.size() && bytes <= source.size() - offset) return {};
  return fail(ErrorCode::kCorrupt, "{}: {} bytes at offset {} lie past the end (file has {} bytes)",
              source.label(), bytes, offset, source.size());
}

class FileSource : public ByteSource {
 public:
  FileSource(FileDescriptor fd, std::string path, const FileState& state)
      : fd_(std::move(fd)), path_(std::move(path)), state_(state) {}

  Status read_at(uint64_t offset, std::span<std::byte> out) const override {
    SLUICE_TRY(check_range(*this, offset, out.size()));
    return read_fully(fd_.get(), offset, out, path_);
  }
  uint64_t size() const override { return state_.bytes; }
  int64_t modified_ns() const override { return state_.modified_ns; }
  const std::string& label() const override { return path_; }

 private:
  const FileDescriptor fd_;
  const std::string path_;
  const FileState state_;
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

Result<std::shared_ptr<ByteSource>> open_file_source(const std::string& path) {
  // Without O_NONBLOCK a FIFO in a hostile folder would hang the open.
  SLUICE_ASSIGN(FileDescriptor fd, open_descriptor(path, O_RDONLY | O_NONBLOCK));
  SLUICE_ASSIGN(const FileState state, regular_file_state(fd.get(), path));
  return std::make_shared<FileSource>(std::move(fd), path, state);
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
