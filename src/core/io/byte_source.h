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

// Thread-safe.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Fills the whole span or returns an error (kCorrupt past the end, kIo when the system fails).
  virtual Status read_at(uint64_t offset, std::span<std::byte> out) const = 0;
  virtual uint64_t size() const = 0;
  // When the file was last written, in nanoseconds since 1970; 0 where that has no meaning.
  virtual int64_t modified_ns() const { return 0; }
  // For messages: usually the file name.
  virtual const std::string& label() const = 0;
};

// Opened read-only, regular files only. Interrupted and short reads are continued.
Result<std::shared_ptr<ByteSource>> open_file_source(const std::string& path);
std::shared_ptr<ByteSource> memory_source(std::string label, std::vector<std::byte> bytes);

// A whole small file as text; refuses more than bytes_max.
Result<std::string> read_text(const ByteSource& source, uint64_t bytes_max);

}  // namespace sluice::io
