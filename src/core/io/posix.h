// What the file-backed sources and the local storage share: an owned descriptor, transfers that
// survive signals and short counts, and errno as an Error. Private to io.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"

namespace sluice::io {

// Owns a file descriptor; −1 means none. Move-only.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FileDescriptor();
  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

// kNotFound for a missing path, kExhausted when disk, quota or memory are used up, else kIo. The
// message names what was tried on which path, and the system's reason.
[[nodiscard]] std::unexpected<Error> system_error(int error, std::string_view action,
                                                  std::string_view path);

// flags as for open(2); close-on-exec is added.
Result<FileDescriptor> open_descriptor(const std::string& path, int flags, unsigned mode = 0);

// For large reads that leave no trace in the page cache; −1 where this system or file system has
// none, and where the ordinary open will tell what is wrong.
FileDescriptor open_direct(const std::string& path);
// As read_fully, from open_direct's descriptor. The whole pages in out arrive without a copy when
// out's address equals offset modulo kDirectAlignment. Returns how many bytes came before the file
// system began to refuse: less than out.size() only then, and the rest must be read another way.
Result<size_t> read_direct(int fd, uint64_t offset, std::span<std::byte> out,
                           std::string_view path);
// Small reads here and there: the system reads nothing ahead.
void expect_scattered_reads(int fd);
// Lets go of the pages that the cache holds of a range of a file, as far as they are clean.
void drop_cached(int fd, uint64_t offset, uint64_t bytes);

// Fill, or write out, the whole span at offset.
Status read_fully(int fd, uint64_t offset, std::span<std::byte> out, std::string_view path);
Status write_fully(int fd, uint64_t offset, std::span<const std::byte> bytes,
                   std::string_view path);

struct FileState {
  uint64_t bytes = 0;
  int64_t modified_ns = 0;  // since 1970
  uint64_t device = 0, inode = 0;
};
// Of a regular file; kUnsupported for anything else.
Result<FileState> regular_file_state(int fd, std::string_view path);

}  // namespace sluice::io
