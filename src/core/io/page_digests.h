// Short digests of all pages of a model's weight files. Weights that do not stay in memory are read
// again and again; with these, what arrives is held against what was there once: a flipped bit on
// disk, a bad cable, a file overwritten in place. Reads past the page cache come in whole pages
// anyway, so that checking costs no further byte from disk, whatever is read in whatever pieces.
// Layout of the file that keeps them: docs/formats.md#page-digests.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/digest.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "io/byte_source.h"
#include "io/storage.h"

namespace sluice::io {

// Immutable once made; thread-safe.
class PageDigests {
 public:
  using Sources = std::span<const std::shared_ptr<ByteSource>>;

  // What those of these files take in memory: a thousandth of the files.
  static uint64_t bytes(Sources files);
  // Reads all of every file once, with all threads. progress counts bytes. Errors: the sources'.
  static Result<PageDigests> take(Sources files, ThreadPool& pool, Progress& progress);
  // As save() left them. kNotFound where they belong to other files, or to these before they were
  // written to: model, sizes and times of writing tell. kCorrupt for damage, kUnsupported for
  // another version.
  static Result<PageDigests> load(const ByteSource& kept, Sources files, const Digest& model);
  // Whole or not at all. Errors: the storage's.
  Status save(Storage& storage, const std::string& path, Sources files, const Digest& model) const;

  // Whether these bytes of a file, from a page's first on, are what they were. They end with a page
  // or with the file. kCorrupt naming source and offset of the page.
  Status check(size_t file, uint64_t offset, std::span<const std::byte> bytes,
               const std::string& label) const;

 private:
  explicit PageDigests(Sources files);

  std::vector<uint64_t> file_bytes_;
  std::vector<size_t> first_;  // of each file's pages
  std::vector<uint32_t> pages_;
  std::string kept_in_;  // where they came from; empty: they were taken just now
};

// The same bytes, every read of them checked. file: which one of digests'.
std::shared_ptr<ByteSource> verified_source(std::shared_ptr<ByteSource> inner,
                                            std::shared_ptr<const PageDigests> digests,
                                            size_t file);

}  // namespace sluice::io
