// Wrappers that fail on plan, and the file system whose power can be cut.
#include "io/fault.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <random>
#include <set>

namespace sluice::io {
namespace {

namespace fs = std::filesystem;

class FaultyFile : public WritableFile {
 public:
  FaultyFile(std::unique_ptr<WritableFile> base, std::string path, FaultInjector& injector)
      : base_(std::move(base)), path_(std::move(path)), injector_(injector) {}

  Status write_at(uint64_t offset, std::span<const std::byte> bytes) override {
    Status status = injector_.step("write", path_);
    if (status) return base_->write_at(offset, bytes);
    if (injector_.plan().torn) (void)base_->write_at(offset, bytes.first(bytes.size() / 2));
    return status;
  }
  Status append(std::span<const std::byte> bytes) override {
    Status status = injector_.step("append", path_);
    if (status) return base_->append(bytes);
    if (injector_.plan().torn) (void)base_->append(bytes.first(bytes.size() / 2));
    return status;
  }
  Status truncate(uint64_t size) override {
    SLUICE_TRY(injector_.step("truncate", path_));
    return base_->truncate(size);
  }
  Status allocate(uint64_t size) override {
    SLUICE_TRY(injector_.step("allocate", path_));
    return base_->allocate(size);
  }
  void write_behind() override { base_->write_behind(); }
  Status sync() override {
    SLUICE_TRY(injector_.step("sync", path_));
    return base_->sync();
  }

 private:
  const std::unique_ptr<WritableFile> base_;
  const std::string path_;
  FaultInjector& injector_;
};

class FaultySource : public ByteSource {
 public:
  FaultySource(std::shared_ptr<ByteSource> base, FaultInjector& injector)
      : base_(std::move(base)), injector_(injector) {}
  Status read_at(uint64_t offset, std::span<std::byte> out) const override {
    SLUICE_TRY(injector_.step("read", label()));
    return base_->read_at(offset, out);
  }
  uint64_t size() const override { return base_->size(); }
  int64_t modified_ns() const override { return base_->modified_ns(); }
  std::string version() const override { return base_->version(); }
  const std::string& label() const override { return base_->label(); }

 private:
  const std::shared_ptr<ByteSource> base_;
  FaultInjector& injector_;
};

class FaultyStorage : public Storage {
 public:
  FaultyStorage(Storage& base, FaultInjector& injector) : base_(base), injector_(injector) {}

  Result<std::unique_ptr<WritableFile>> open(const std::string& path, OpenMode mode) override {
    SLUICE_TRY(injector_.step("open", path));
    SLUICE_ASSIGN(auto file, base_.open(path, mode));
    return std::make_unique<FaultyFile>(std::move(file), path, injector_);
  }
  Result<std::shared_ptr<ByteSource>> open_source(const std::string& path) override {
    SLUICE_TRY(injector_.step("open", path));
    SLUICE_ASSIGN(auto source, base_.open_source(path));
    return faulty_source(std::move(source), injector_);
  }
  bool exists(const std::string& path) override { return base_.exists(path); }
  Result<std::vector<std::string>> list_directory(const std::string& path) override {
    SLUICE_TRY(injector_.step("list_directory", path));
    return base_.list_directory(path);
  }
  Status create_directory(const std::string& path) override {
    SLUICE_TRY(injector_.step("create_directory", path));
    return base_.create_directory(path);
  }
  Status rename(const std::string& from, const std::string& to) override {
    SLUICE_TRY(injector_.step("rename", from));
    return base_.rename(from, to);
  }
  Status remove(const std::string& path) override {
    SLUICE_TRY(injector_.step("remove", path));
    return base_.remove(path);
  }
  Status sync_directory(const std::string& path) override {
    SLUICE_TRY(injector_.step("sync_directory", path));
    return base_.sync_directory(path);
  }
  Result<uint64_t> free_bytes(const std::string& path) override {
    SLUICE_TRY(injector_.step("free_bytes", path));
    return base_.free_bytes(path);
  }
  Result<std::unique_ptr<LockFile>> lock(const std::string& path) override {
    SLUICE_TRY(injector_.step("lock", path));
    return base_.lock(path);
  }

 private:
  Storage& base_;
  FaultInjector& injector_;
};

constexpr size_t kPageBytes = 4096;

struct Node;
using NodePtr = std::shared_ptr<Node>;

// A change of a folder's names that was not synced yet: node goes from one name to another. Without
// `from` it is new there, without `to` it is gone. Whole or not at all, as file systems have it.
struct NameChange {
  std::string from, to;
  NodePtr node;
};

// A file or a folder, with the state that would survive a power cut beside the one that programs
// see.
struct Node {
  bool is_folder = false;
  std::vector<std::byte> bytes, durable_bytes;
  std::map<std::string, NodePtr> names, durable_names;
  std::vector<NameChange> unsynced;
};

NodePtr new_folder() {
  auto node = std::make_shared<Node>();
  node->is_folder = true;
  return node;
}

void add_name(Node& folder, const std::string& name, const NodePtr& node) {
  folder.unsynced.push_back({"", name, node});
}

std::vector<std::string> components(const std::string& path) {
  std::vector<std::string> parts;
  for (const fs::path& part : fs::path(path).lexically_normal()) {
    const std::string text = part.string();
    if (!text.empty() && text != "/" && text != ".") parts.push_back(text);
  }
  return parts;
}

void lose_file(Node& node, std::mt19937_64* random) {
  std::vector<std::byte> kept = node.durable_bytes;
  if (random != nullptr) {
    if ((*random)() % 2 == 0) kept.resize(node.bytes.size());
    for (size_t at = 0; at < std::min(kept.size(), node.bytes.size()); at += kPageBytes)
      if ((*random)() % 2 == 0)
        std::copy_n(node.bytes.begin() + static_cast<ptrdiff_t>(at),
                    std::min({kPageBytes, kept.size() - at, node.bytes.size() - at}),
                    kept.begin() + static_cast<ptrdiff_t>(at));
  }
  node.bytes = node.durable_bytes = std::move(kept);
}

// Any of the unsynced changes may have reached the disk, in any combination that is possible.
void lose_names(Node& node, std::mt19937_64* random) {
  for (const NameChange& change : node.unsynced) {
    if (random == nullptr || (*random)() % 2 == 0) continue;
    if (!change.from.empty()) {
      const auto found = node.durable_names.find(change.from);
      if (found == node.durable_names.end() || found->second != change.node) continue;
      node.durable_names.erase(found);
    }
    if (!change.to.empty()) node.durable_names[change.to] = change.node;
  }
  node.unsynced.clear();
  node.names = node.durable_names;
}

void lose(Node& node, std::mt19937_64* random) {
  if (!node.is_folder) return lose_file(node, random);
  lose_names(node, random);
  for (const auto& [name, child] : node.names) lose(*child, random);
}

void list(const Node& node, const std::string& path, std::vector<std::string>& out) {
  for (const auto& [name, child] : node.names) {
    std::string child_path = fmt::format("{}/{}", path, name);
    if (child->is_folder)
      list(*child, child_path, out);
    else
      out.push_back(std::move(child_path));
  }
}

uint64_t total_bytes(const Node& node) {
  uint64_t total = node.bytes.size();
  for (const auto& [name, child] : node.names) total += total_bytes(*child);
  return total;
}

}  // namespace

Status FaultInjector::step(std::string_view operation, std::string_view path) {
  MutexLock lock(mutex_);
  ++operations_;
  const bool fails =
      plan_.at != 0 && (plan_.persistent ? operations_ >= plan_.at : operations_ == plan_.at);
  if (!fails) return {};
  triggered_ = true;
  return fail(plan_.code, "{}: {} failed: injected fault at operation {}", path, operation,
              operations_);
}

uint64_t FaultInjector::operations() const {
  MutexLock lock(mutex_);
  return operations_;
}

bool FaultInjector::triggered() const {
  MutexLock lock(mutex_);
  return triggered_;
}

std::unique_ptr<Storage> faulty_storage(Storage& base, FaultInjector& injector) {
  return std::make_unique<FaultyStorage>(base, injector);
}

std::shared_ptr<ByteSource> faulty_source(std::shared_ptr<ByteSource> base,
                                          FaultInjector& injector) {
  return std::make_shared<FaultySource>(std::move(base), injector);
}

struct MemoryStorage::State {
  Mutex mutex;
  NodePtr root GUARDED_BY(mutex) = new_folder();
  std::set<std::string> locks GUARDED_BY(mutex);
  uint64_t capacity GUARDED_BY(mutex) = UINT64_MAX;
  // Counts power cuts; files and locks of an earlier life are dead.
  uint64_t life GUARDED_BY(mutex) = 0;

  // nullptr when some part of the way is missing.
  NodePtr find(std::span<const std::string> parts) REQUIRES(mutex) {
    NodePtr node = root;
    for (const std::string& part : parts) {
      const auto found = node->names.find(part);
      if (found == node->names.end()) return nullptr;
      node = found->second;
    }
    return node;
  }
  Result<NodePtr> folder_of(const std::string& path, std::span<const std::string> parts)
      REQUIRES(mutex) {
    if (parts.empty()) return fail(ErrorCode::kInvalidArgument, "{}: names no file", path);
    NodePtr folder = find(parts.first(parts.size() - 1));
    if (folder == nullptr || !folder->is_folder)
      return fail(ErrorCode::kNotFound, "{}: its folder does not exist", path);
    return folder;
  }
  Status reserve(const std::string& path, uint64_t more) REQUIRES(mutex) {
    const uint64_t used = total_bytes(*root);
    if (more <= capacity && used <= capacity - more) return {};
    return fail(ErrorCode::kExhausted, "{}: no space left in the storage", path);
  }
};

namespace {

class MemoryFile : public WritableFile {
 public:
  MemoryFile(std::shared_ptr<MemoryStorage::State> state, NodePtr node, std::string path,
             uint64_t life)
      : state_(std::move(state)), node_(std::move(node)), path_(std::move(path)), life_(life) {}

  Status write_at(uint64_t offset, std::span<const std::byte> bytes) override {
    MutexLock lock(state_->mutex);
    return write_locked(offset, bytes);
  }
  Status append(std::span<const std::byte> bytes) override {
    MutexLock lock(state_->mutex);
    return write_locked(node_->bytes.size(), bytes);
  }
  Status truncate(uint64_t size) override {
    MutexLock lock(state_->mutex);
    SLUICE_TRY(alive());
    return resize_locked(size);
  }
  Status allocate(uint64_t size) override { return truncate(size); }
  Status sync() override {
    MutexLock lock(state_->mutex);
    SLUICE_TRY(alive());
    node_->durable_bytes = node_->bytes;
    return {};
  }

 private:
  Status alive() REQUIRES(state_->mutex) {
    if (state_->life == life_) return {};
    return fail(ErrorCode::kIo, "{}: the power was cut while this file was open", path_);
  }
  Status resize_locked(uint64_t size) REQUIRES(state_->mutex) {
    const uint64_t old = node_->bytes.size();
    if (size > old) SLUICE_TRY(state_->reserve(path_, size - old));
    node_->bytes.resize(static_cast<size_t>(size));
    return {};
  }
  Status write_locked(uint64_t offset, std::span<const std::byte> bytes) REQUIRES(state_->mutex) {
    SLUICE_TRY(alive());
    if (offset + bytes.size() > node_->bytes.size())
      SLUICE_TRY(resize_locked(offset + bytes.size()));
    std::copy(bytes.begin(), bytes.end(), node_->bytes.begin() + static_cast<ptrdiff_t>(offset));
    return {};
  }

  const std::shared_ptr<MemoryStorage::State> state_;
  const NodePtr node_;
  const std::string path_;
  const uint64_t life_;
};

class MemoryLock : public LockFile {
 public:
  MemoryLock(std::shared_ptr<MemoryStorage::State> state, std::string path, uint64_t life)
      : state_(std::move(state)), path_(std::move(path)), life_(life) {}
  ~MemoryLock() override {
    MutexLock lock(state_->mutex);
    if (state_->life == life_) state_->locks.erase(path_);
  }

 private:
  const std::shared_ptr<MemoryStorage::State> state_;
  const std::string path_;
  const uint64_t life_;
};

}  // namespace

MemoryStorage::MemoryStorage() : state_(std::make_shared<State>()) {}
MemoryStorage::~MemoryStorage() = default;

Result<std::unique_ptr<WritableFile>> MemoryStorage::open(const std::string& path, OpenMode mode) {
  const auto parts = components(path);
  MutexLock lock(state_->mutex);
  SLUICE_ASSIGN(const NodePtr folder, state_->folder_of(path, parts));
  NodePtr& node = folder->names[parts.back()];
  if (node == nullptr)
    add_name(*folder, parts.back(), node = std::make_shared<Node>());
  else if (node->is_folder || mode == OpenMode::kCreateNew)
    return fail(ErrorCode::kIo, "{}: open failed: it exists", path);
  return std::make_unique<MemoryFile>(state_, node, path, state_->life);
}

Result<std::shared_ptr<ByteSource>> MemoryStorage::open_source(const std::string& path) {
  MutexLock lock(state_->mutex);
  const NodePtr node = state_->find(components(path));
  if (node == nullptr || node->is_folder)
    return fail(ErrorCode::kNotFound, "{}: open failed: no such file", path);
  return memory_source(path, node->bytes);
}

bool MemoryStorage::exists(const std::string& path) {
  MutexLock lock(state_->mutex);
  return state_->find(components(path)) != nullptr;
}

Result<std::vector<std::string>> MemoryStorage::list_directory(const std::string& path) {
  MutexLock lock(state_->mutex);
  const NodePtr folder = state_->find(components(path));
  if (folder == nullptr || !folder->is_folder)
    return fail(ErrorCode::kNotFound, "{}: no such folder", path);
  std::vector<std::string> names;
  for (const auto& [name, node] : folder->names) names.push_back(name);
  return names;
}

Status MemoryStorage::create_directory(const std::string& path) {
  const auto parts = components(path);
  MutexLock lock(state_->mutex);
  SLUICE_ASSIGN(const NodePtr folder, state_->folder_of(path, parts));
  NodePtr& node = folder->names[parts.back()];
  if (node == nullptr) add_name(*folder, parts.back(), node = new_folder());
  if (node->is_folder) return {};
  return fail(ErrorCode::kIo, "{}: creating the folder failed: a file has this name", path);
}

Status MemoryStorage::rename(const std::string& from, const std::string& to) {
  const auto from_parts = components(from), to_parts = components(to);
  MutexLock lock(state_->mutex);
  SLUICE_ASSIGN(const NodePtr source, state_->folder_of(from, from_parts));
  SLUICE_ASSIGN(const NodePtr target, state_->folder_of(to, to_parts));
  const auto found = source->names.find(from_parts.back());
  if (found == source->names.end())
    return fail(ErrorCode::kNotFound, "{}: renaming failed: no such file", from);
  const NodePtr node = found->second;
  const auto old = target->names.find(to_parts.back());
  if (old != target->names.end() && old->second != node &&
      (old->second->is_folder != node->is_folder || !old->second->names.empty()))
    return fail(ErrorCode::kIo, "{}: renaming to {} failed: that exists", from, to);
  source->names.erase(found);
  target->names[to_parts.back()] = node;
  if (source == target) {
    source->unsynced.push_back({from_parts.back(), to_parts.back(), node});
  } else {
    source->unsynced.push_back({from_parts.back(), "", node});
    target->unsynced.push_back({"", to_parts.back(), node});
  }
  return {};
}

Status MemoryStorage::remove(const std::string& path) {
  const auto parts = components(path);
  MutexLock lock(state_->mutex);
  SLUICE_ASSIGN(const NodePtr folder, state_->folder_of(path, parts));
  const auto found = folder->names.find(parts.back());
  if (found == folder->names.end())
    return fail(ErrorCode::kNotFound, "{}: removing failed: no such file", path);
  if (!found->second->names.empty())
    return fail(ErrorCode::kIo, "{}: removing failed: the folder is not empty", path);
  folder->unsynced.push_back({parts.back(), "", found->second});
  folder->names.erase(found);
  return {};
}

Status MemoryStorage::sync_directory(const std::string& path) {
  MutexLock lock(state_->mutex);
  const NodePtr node = state_->find(components(path));
  if (node == nullptr || !node->is_folder)
    return fail(ErrorCode::kNotFound, "{}: syncing failed: no such folder", path);
  node->durable_names = node->names;
  node->unsynced.clear();
  return {};
}

Result<uint64_t> MemoryStorage::free_bytes(const std::string&) {
  MutexLock lock(state_->mutex);
  const uint64_t used = total_bytes(*state_->root);
  return state_->capacity - std::min(used, state_->capacity);
}

Result<std::unique_ptr<LockFile>> MemoryStorage::lock(const std::string& path) {
  const auto parts = components(path);
  MutexLock lock(state_->mutex);
  SLUICE_ASSIGN(const NodePtr folder, state_->folder_of(path, parts));
  NodePtr& node = folder->names[parts.back()];
  if (node == nullptr) add_name(*folder, parts.back(), node = std::make_shared<Node>());
  if (!state_->locks.insert(path).second)
    return fail(ErrorCode::kIo, "{}: locked by another process that is working there", path);
  return std::make_unique<MemoryLock>(state_, path, state_->life);
}

void MemoryStorage::cut_power(uint64_t seed) {
  MutexLock lock(state_->mutex);
  std::mt19937_64 random(seed);
  lose(*state_->root, seed == 0 ? nullptr : &random);
  state_->locks.clear();
  ++state_->life;
}

void MemoryStorage::set_capacity(uint64_t bytes) {
  MutexLock lock(state_->mutex);
  state_->capacity = bytes;
}

std::vector<std::string> MemoryStorage::files() {
  MutexLock lock(state_->mutex);
  std::vector<std::string> out;
  list(*state_->root, "", out);
  return out;
}

}  // namespace sluice::io
