// Walks paths with openat, one part at a time, none of them a link.
#include "chat/tools/work_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <random>
#include <utility>

namespace sluice::chat {
namespace {

constexpr int kFolderFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
constexpr mode_t kModeDefault = 0644;

std::unexpected<Error> failed(std::string_view path, int code) {
  if (code == ENOENT) return fail(ErrorCode::kNotFound, "{} is not there", path);
  if (code == ELOOP || code == EMLINK)
    return fail(ErrorCode::kInvalidArgument, "{} is a link or leads through one", path);
  if (code == ENOTDIR)
    return fail(ErrorCode::kInvalidArgument, "{} leads through what is no folder", path);
  return fail(ErrorCode::kIo, "{}: {}", path, std::strerror(code));
}

// The parts of a path; none for the folder itself.
Result<std::vector<std::string>> parts_of(std::string_view path) {
  if (path.size() > WorkFolder::kPathBytesMax)
    return fail(ErrorCode::kInvalidArgument, "the path has {} bytes, more than {}", path.size(),
                WorkFolder::kPathBytesMax);
  if (path.find('\0') != std::string_view::npos)
    return fail(ErrorCode::kInvalidArgument, "the path holds a null character");
  if (path.starts_with('/'))
    return fail(ErrorCode::kInvalidArgument,
                "{} is an absolute path; paths are relative to the work folder", path);
  std::vector<std::string> parts;
  for (size_t start = 0; start <= path.size();) {
    const size_t end = std::min(path.find('/', start), path.size());
    const std::string_view part = path.substr(start, end - start);
    if (part == "..") return fail(ErrorCode::kInvalidArgument, "{} leads upwards by \"..\"", path);
    if (!part.empty() && part != ".") parts.emplace_back(part);
    start = end + 1;
  }
  return parts;
}

bool write_all(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(descriptor, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    text.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

}  // namespace

class WorkFolder::Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(Descriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  int get() const { return value_; }
  bool open() const { return value_ >= 0; }
  int release() { return std::exchange(value_, -1); }

 private:
  int value_;
};

Result<WorkFolder> WorkFolder::open(const std::string& path) {
  const std::unique_ptr<char, void (*)(void*)> real(::realpath(path.c_str(), nullptr), ::free);
  if (real == nullptr) return failed(path, errno);
  const std::string whole = real.get();
  const char* home = ::getenv("HOME");
  const std::unique_ptr<char, void (*)(void*)> real_home(
      home == nullptr ? nullptr : ::realpath(home, nullptr), ::free);
  if (whole == "/" || (real_home != nullptr && whole == real_home.get()))
    return fail(ErrorCode::kInvalidArgument,
                "{} is too much to work in; give a folder that holds only what the agent may see",
                whole);
  auto root = std::make_shared<Descriptor>(::open(whole.c_str(), kFolderFlags));
  if (!root->open()) return failed(path, errno);
  return WorkFolder(std::move(root), whole);
}

// Opens all but the last part; name: the last, empty for the folder itself.
Result<WorkFolder::Descriptor> WorkFolder::parent(std::string_view path, bool make,
                                                  std::string* name) const {
  SLUICE_ASSIGN(const std::vector<std::string> parts, parts_of(path));
  *name = parts.empty() ? "" : parts.back();
  Descriptor folder(::openat(root_->get(), ".", kFolderFlags));
  if (!folder.open()) return failed(path_, errno);
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    if (make && ::mkdirat(folder.get(), parts[i].c_str(), 0755) != 0 && errno != EEXIST)
      return failed(path, errno);
    folder = Descriptor(::openat(folder.get(), parts[i].c_str(), kFolderFlags));
    if (!folder.open()) return failed(path, errno);
  }
  return folder;
}

Result<std::vector<FolderEntry>> WorkFolder::list(std::string_view path, size_t count_max) const {
  std::string name;
  SLUICE_ASSIGN(const Descriptor above, parent(path, false, &name));
  Descriptor folder(::openat(above.get(), name.empty() ? "." : name.c_str(), kFolderFlags));
  if (!folder.open()) return failed(path, errno);
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(folder.get()), ::closedir);
  if (stream == nullptr) return failed(path, errno);
  const int descriptor = folder.release();  // the stream's now
  std::vector<FolderEntry> entries;
  while (const dirent* entry = ::readdir(stream.get())) {
    const std::string found = entry->d_name;
    struct stat about{};
    if (found == "." || found == ".." ||
        ::fstatat(descriptor, found.c_str(), &about, AT_SYMLINK_NOFOLLOW) != 0)
      continue;
    if (S_ISDIR(about.st_mode)) entries.push_back({found + "/", 0});
    if (S_ISREG(about.st_mode)) entries.push_back({found, static_cast<uint64_t>(about.st_size)});
    if (entries.size() >= count_max) break;
  }
  std::ranges::sort(entries, {}, &FolderEntry::name);
  return entries;
}

Result<std::string> WorkFolder::read(std::string_view path, size_t bytes_max) const {
  std::string name;
  SLUICE_ASSIGN(const Descriptor above, parent(path, false, &name));
  if (name.empty()) return fail(ErrorCode::kInvalidArgument, "\"{}\" names no file", path);
  // Without waiting: a pipe would hold the program up.
  const Descriptor file(
      ::openat(above.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!file.open()) return failed(path, errno);
  struct stat about{};
  if (::fstat(file.get(), &about) != 0) return failed(path, errno);
  if (!S_ISREG(about.st_mode))
    return fail(ErrorCode::kInvalidArgument, "{} is no plain file", path);
  std::string text;
  std::array<char, 65'536> buffer;
  for (;;) {
    const ssize_t count = ::read(file.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return failed(path, errno);
    if (count == 0) return text;
    text.append(buffer.data(), static_cast<size_t>(count));
    if (text.size() > bytes_max)
      return fail(ErrorCode::kInvalidArgument, "{} has more than {} bytes", path, bytes_max);
  }
}

Status WorkFolder::write(std::string_view path, std::string_view text) const {
  std::string name;
  SLUICE_ASSIGN(const Descriptor above, parent(path, true, &name));
  if (name.empty()) return fail(ErrorCode::kInvalidArgument, "\"{}\" names no file", path);
  struct stat before{};
  const bool there = ::fstatat(above.get(), name.c_str(), &before, AT_SYMLINK_NOFOLLOW) == 0;
  if (there && !S_ISREG(before.st_mode))
    return fail(ErrorCode::kInvalidArgument, "{} is there and no plain file", path);
  const std::string temporary = fmt::format(".sluice-{:08x}", std::random_device()());
  const Descriptor file(::openat(above.get(), temporary.c_str(),
                                 O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file.open()) return failed(path, errno);
  // No bits by which a program would run as somebody else.
  const mode_t mode = there ? before.st_mode & 0777 : kModeDefault;
  if (write_all(file.get(), text) && ::fchmod(file.get(), mode) == 0 && ::fsync(file.get()) == 0 &&
      ::renameat(above.get(), temporary.c_str(), above.get(), name.c_str()) == 0)
    return {};
  const int code = errno;
  ::unlinkat(above.get(), temporary.c_str(), 0);
  return failed(path, code);
}

}  // namespace sluice::chat
