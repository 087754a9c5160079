// A model in GGUF as found on disk: one file, or all parts of a split set
// (NAME-00001-of-00003.gguf …), held against each other. Layout: docs/formats.md#split-files
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "io/byte_source.h"
#include "io/gguf.h"

namespace sluice::io {

struct GgufSet {
  // The first part's metadata and digest, the tensors of all parts: StoredTensor::file is the part.
  GgufHeader header;
  std::vector<std::shared_ptr<ByteSource>> files;  // in the order of the parts
  std::vector<std::string> names;                  // bare, one per file
  std::vector<Digest> digests;                     // of each file's header
};

// path: a single file, or any part of a set, whose other parts lie beside it. kNotFound names the
// first part that is missing; kCorrupt a part that does not belong with the others: another count,
// number, architecture or value of a shared key, or tensors that do not add up to
// split.tensors.count. Names shared by two parts are the caller's to refuse.
Result<GgufSet> open_gguf_set(const std::string& path);
class ModelFiles;
// The same of one of files.
Result<GgufSet> open_gguf_set(const ModelFiles& files, const std::string& name);

// The one GGUF model among a folder's file names: a single file, or the first part that is there.
// Nothing when no name ends in .gguf; kUnsupported when there are several models.
Result<std::optional<std::string>> find_gguf_model(const std::string& folder,
                                                   std::span<const std::string> names);

}  // namespace sluice::io
