// The files of a model wherever they lie, a folder on disk or an address on a network: bare names,
// and a source for each. What the files mean is checkpoint.h's business.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "io/byte_source.h"

namespace sluice::io {

// Thread-safe.
class ModelFiles {
 public:
  virtual ~ModelFiles() = default;
  // Of the folder, for messages.
  virtual const std::string& location() const = 0;
  // Path or address of a file, for messages.
  virtual std::string label(const std::string& name) const = 0;
  // Bare names of everything that could belong to a model, sorted.
  virtual Result<std::vector<std::string>> names() const = 0;
  // Whether there is such a file. names() may not know of weights that only an index names.
  virtual Result<bool> has(const std::string& name) const = 0;
  virtual Result<std::shared_ptr<ByteSource>> open(const std::string& name) const = 0;
  // These are opened next, one after another: a network is asked for all of them at once.
  virtual Status expect(std::span<const std::string> /*names*/) const { return {}; }
};

class DescriptorCache;

// A folder on disk (empty: the working directory): regular files, or links to them, as the Hugging
// Face cache is made of.
std::unique_ptr<ModelFiles> local_files(std::string folder,
                                        std::shared_ptr<DescriptorCache> descriptors);

}  // namespace sluice::io
