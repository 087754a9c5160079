// Files of one folder and nothing outside it. Every part of a path is opened by itself below its
// parent without following links, so that no link leads out, not even one made meanwhile.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace sluice::chat {

struct FolderEntry {
  std::string name;  // a folder's ends with '/'
  uint64_t bytes = 0;
};

// Paths are relative, of at most kPathBytesMax bytes, without "..". Errors are for the model to
// read, and name its path: kInvalidArgument for what is not allowed, kNotFound, kIo. Thread-safe.
class WorkFolder {
 public:
  static constexpr size_t kPathBytesMax = 4096;

  // kInvalidArgument also for the root folder and the user's home, which hold what is nobody's
  // business.
  static Result<WorkFolder> open(const std::string& path);

  const std::string& path() const { return path_; }  // absolute, no links in it

  // Sorted; links, devices and the like are left out. At most count_max entries.
  Result<std::vector<FolderEntry>> list(std::string_view path, size_t count_max) const;
  // kInvalidArgument for more than bytes_max, and for anything but a plain file.
  Result<std::string> read(std::string_view path, size_t bytes_max) const;
  // The whole file or none of it, with the mode it had; folders of the path that lack are made. A
  // link of that name is replaced, not followed.
  Status write(std::string_view path, std::string_view text) const;

 private:
  class Descriptor;
  WorkFolder(std::shared_ptr<const Descriptor> root, std::string path)
      : root_(std::move(root)), path_(std::move(path)) {}
  Result<Descriptor> parent(std::string_view path, bool make, std::string* name) const;

  std::shared_ptr<const Descriptor> root_;
  std::string path_;
};

}  // namespace sluice::chat
