// Where bytes come from: positional, thread-safe reads over files or memory. Fault injection wraps
// this interface in tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"

namespace sluice::io {

class FileDescriptor;

// Thread-safe.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Fills the whole span or returns an error (kCorrupt past the end, kIo when the system fails).
  virtual Status read_at(uint64_t offset, std::span<std::byte> out) const = 0;
  virtual uint64_t size() const = 0;
  // When the file was last written, in nanoseconds since 1970; 0 where that has no meaning.
  virtual int64_t modified_ns() const { return 0; }
  // What changes when the file is replaced or written to: the time of writing, or what a server
  // says of its version. An unfinished job goes on only with the version that it was begun from.
  virtual std::string version() const { return fmt::format("{}", modified_ns()); }
  // For messages: usually the file name.
  virtual const std::string& label() const = 0;
  // kCorrupt when the file has been written to or resized since it was opened.
  virtual Status unchanged() const { return {}; }
  // Whether whole pages that came another way than by read_at() are what they should be, where that
  // is known (io/page_digests.h); bytes end with a page or with the file. Else success.
  virtual Status check(uint64_t /*offset*/, std::span<const std::byte> /*bytes*/) const {
    return {};
  }
  // A descriptor that reads past the page cache, for a ReadRing; null where reads must go through
  // read_at(), as those of small files do.
  virtual std::shared_ptr<const FileDescriptor> direct_descriptor() const { return nullptr; }
};

class DescriptorCache;

// When reads bypass the page cache (O_DIRECT, F_NOCACHE): large reads of large files, which would
// otherwise push everything else out of memory for bytes that nobody reads twice soon. Memory from
// an AlignedBuffer takes them without a copy. What is read of a large file in any other way (in
// small pieces, or because the file system refuses) is dropped from the cache afterwards.
struct DirectReads {
  uint64_t file_bytes_min = 64ull << 20;
  size_t read_bytes_min = 32 << 10;
};

// Opened read-only, regular files only. Interrupted and short reads are continued. Files that share
// a cache together keep a bounded number of descriptors open; one that has to be opened again and
// is no longer the same file is kCorrupt. Without a cache the file has its own.
Result<std::shared_ptr<ByteSource>> open_file_source(
    const std::string& path, std::shared_ptr<DescriptorCache> descriptors = nullptr,
    const DirectReads& direct = {});
std::shared_ptr<ByteSource> memory_source(std::string label, std::vector<std::byte> bytes);

// A whole small file as text; refuses more than bytes_max.
Result<std::string> read_text(const ByteSource& source, uint64_t bytes_max);

}  // namespace sluice::io
