#include "io/model_files.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "io/names.h"

namespace sluice::io {
namespace {

namespace fs = std::filesystem;

constexpr size_t kFolderEntriesMax = 100'000;

class LocalFiles : public ModelFiles {
 public:
  LocalFiles(std::string folder, std::shared_ptr<DescriptorCache> descriptors)
      : folder_(std::move(folder)),
        location_(folder_.empty() ? "." : folder_),
        descriptors_(std::move(descriptors)) {}

  const std::string& location() const override { return location_; }
  std::string label(const std::string& name) const override {
    return (fs::path(folder_) / name).string();
  }
  Result<std::vector<std::string>> names() const override {
    std::vector<std::string> names;
    std::error_code error;
    for (fs::directory_iterator it(location_, error), end; !error && it != end;
         it.increment(error)) {
      std::error_code type_error;
      if (!it->is_regular_file(type_error)) continue;
      std::string name = it->path().filename().string();
      if (is_bare_file_name(name)) names.push_back(std::move(name));
      if (names.size() > kFolderEntriesMax)
        return fail(ErrorCode::kUnsupported, "{}: more than {} files in one folder", location_,
                    kFolderEntriesMax);
    }
    if (error)
      return fail(ErrorCode::kIo, "{}: listing the folder failed: {}", location_, error.message());
    std::sort(names.begin(), names.end());
    return names;
  }
  Result<bool> has(const std::string& name) const override {
    std::error_code ignored;
    return fs::exists(fs::path(folder_) / name, ignored);
  }
  Result<std::shared_ptr<ByteSource>> open(const std::string& name) const override {
    return open_file_source(label(name), descriptors_);
  }

 private:
  const std::string folder_, location_;  // the first as labels begin, which may be with nothing
  const std::shared_ptr<DescriptorCache> descriptors_;
};

}  // namespace

std::unique_ptr<ModelFiles> local_files(std::string folder,
                                        std::shared_ptr<DescriptorCache> descriptors) {
  return std::make_unique<LocalFiles>(std::move(folder), std::move(descriptors));
}

}  // namespace sluice::io
