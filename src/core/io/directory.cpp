#include "io/directory.h"

#include <algorithm>
#include <filesystem>

namespace sluice::io {

Result<std::vector<std::string>> list_directory(const std::string& path) {
  std::error_code error;
  std::vector<std::string> names;
  std::filesystem::directory_iterator entry(path, error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error))
    names.push_back(entry->path().filename().string());
  if (error) {
    const bool missing = error == std::errc::no_such_file_or_directory;
    return fail(missing ? ErrorCode::kNotFound : ErrorCode::kIo, "{}: cannot list the folder: {}",
                path, error.message());
  }
  std::ranges::sort(names);
  return names;
}

}  // namespace sluice::io
