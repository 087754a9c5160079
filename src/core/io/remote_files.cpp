#include "io/remote_files.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/json.h"
#include "io/at_once.h"
#include "io/names.h"
#include "io/safetensors.h"

namespace sluice::io {
namespace {

constexpr uint64_t kConfigBytesMax = 16 << 20;
constexpr size_t kCodeFilesMax = 64;

// What is asked for where nothing can be listed. Sidecars are those of checkpoint.cpp.
constexpr std::string_view kUsualNames[] = {"config.json",
                                            "model.safetensors.index.json",
                                            "model.safetensors",
                                            "generation_config.json",
                                            "README.md",
                                            "tokenizer.json",
                                            "tokenizer_config.json",
                                            "special_tokens_map.json",
                                            "added_tokens.json",
                                            "vocab.json",
                                            "vocab.txt",
                                            "merges.txt",
                                            "tokenizer.model",
                                            "spiece.model",
                                            "chat_template.json",
                                            "chat_template.jinja",
                                            "tiktoken.model",
                                            "tokenizer.tiktoken",
                                            "qwen.tiktoken"};

// The length and text of a safetensors header, so that a model of many shards costs few waits.
// Nothing where there is none: whoever reads the file says what is wrong with it.
Result<std::vector<std::byte>> read_header(const ByteSource& source) {
  std::vector<std::byte> bytes(8);
  if (source.size() < bytes.size()) return std::vector<std::byte>();
  SLUICE_TRY(source.read_at(0, bytes));
  uint64_t length = 0;
  for (int i = 0; i < 8; ++i) length |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
  if (length > kSafetensorsHeaderBytesMax || length > source.size() - bytes.size()) return bytes;
  bytes.resize(8 + length);
  SLUICE_TRY(source.read_at(8, std::span(bytes).subspan(8)));
  return bytes;
}

// Sources by name, the headers of those that are expected fetched ahead.
class RemoteFiles : public ModelFiles {
 public:
  RemoteFiles(std::shared_ptr<HttpClient> client, std::string location)
      : client_(std::move(client)), location_(std::move(location)) {}

  const std::string& location() const override { return location_; }
  std::string label(const std::string& name) const override { return location_ + "/" + name; }

  Result<bool> has(const std::string& name) const override {
    SLUICE_ASSIGN(const auto file, find(name));
    return file.has_value();
  }
  Result<std::shared_ptr<ByteSource>> open(const std::string& name) const override {
    {
      MutexLock lock(mutex_);
      const auto ready = ready_.find(name);
      if (ready != ready_.end()) {
        auto source = std::move(ready->second);
        ready_.erase(ready);
        return source;
      }
    }
    SLUICE_ASSIGN(const auto file, find(name));
    if (!file) return fail(ErrorCode::kNotFound, "{}: not found on the server", label(name));
    return http_source(client_, *file);
  }
  Status expect(std::span<const std::string> names) const override {
    return at_once(names.size(), [&](size_t i) -> Status {
      const std::string& name = names[i];
      SLUICE_ASSIGN(const auto file, find(name));
      if (!file || !name.ends_with(".safetensors")) return {};
      {
        MutexLock lock(mutex_);
        if (ready_.contains(name)) return {};
      }
      const auto source = http_source(client_, *file);
      SLUICE_ASSIGN(std::vector<std::byte> header, read_header(*source));
      MutexLock lock(mutex_);
      ready_[name] = http_source(client_, *file, std::move(header));
      return {};
    });
  }

 protected:
  virtual Result<std::optional<RemoteFile>> find(const std::string& name) const = 0;

  const std::shared_ptr<HttpClient> client_;
  const std::string location_;

 private:
  mutable Mutex mutex_;
  mutable std::map<std::string, std::shared_ptr<ByteSource>> ready_ GUARDED_BY(mutex_);
};

class HubFiles : public RemoteFiles {
 public:
  HubFiles(const Hub& hub, const HubSnapshot& snapshot)
      : RemoteFiles(hub.client(), location_of(snapshot.address)) {
    const std::string& folder = snapshot.address.folder;
    const std::string prefix = folder.empty() ? "" : folder + "/";
    for (const HubFile& file : snapshot.files) {
      if (!file.path.starts_with(prefix)) continue;
      const std::string name = file.path.substr(prefix.size());
      if (is_bare_file_name(name)) files_[name] = hub.remote_file(snapshot.address, file);
    }
  }
  Result<std::vector<std::string>> names() const override {
    std::vector<std::string> names;
    for (const auto& [name, file] : files_) names.push_back(name);
    return names;
  }

 private:
  static std::string location_of(const HubAddress& address) {
    return "hf://" + address.repository + (address.folder.empty() ? "" : "/" + address.folder);
  }
  Result<std::optional<RemoteFile>> find(const std::string& name) const override {
    const auto found = files_.find(name);
    return found == files_.end() ? std::nullopt : std::optional(found->second);
  }

  std::map<std::string, RemoteFile> files_;
};

std::string without_slash(std::string text) {
  while (text.ends_with('/')) text.pop_back();
  return text;
}

class WebFiles : public RemoteFiles {
 public:
  WebFiles(std::shared_ptr<HttpClient> client, const Url& folder)
      : RemoteFiles(std::move(client), without_slash(folder.label())), folder_(folder) {}

  Result<std::vector<std::string>> names() const override {
    std::vector<std::string> asked(std::begin(kUsualNames), std::end(kUsualNames));
    SLUICE_TRY(look_for(asked));
    SLUICE_ASSIGN(const std::vector<std::string> code, code_files());
    SLUICE_TRY(look_for(code));
    asked.insert(asked.end(), code.begin(), code.end());
    std::vector<std::string> names;
    for (const std::string& name : asked) {
      SLUICE_ASSIGN(const auto file, find(name));
      if (file) names.push_back(name);
    }
    std::ranges::sort(names);
    const auto repeats = std::ranges::unique(names);
    names.erase(repeats.begin(), repeats.end());
    return names;
  }

 private:
  // Some servers refuse what is not there instead of saying so, which is as good for files that a
  // model may do without.
  Status look_for(const std::vector<std::string>& names) const {
    return at_once(names.size(), [&](size_t i) -> Status {
      const auto file = find(names[i]);
      if (file) return {};
      if (file.error().code != ErrorCode::kNotFound || names[i] == "config.json")
        return std::unexpected(file.error());
      MutexLock lock(mutex_);
      known_[names[i]] = std::nullopt;
      return {};
    });
  }

  // Files of Python that the configuration names: "auto_map": {"AutoConfig": "configuration_x.X"}.
  Result<std::vector<std::string>> code_files() const {
    std::set<std::string> names;
    for (const char* file : {"config.json", "tokenizer_config.json"}) {
      SLUICE_ASSIGN(const bool there, has(file));
      if (!there) continue;
      SLUICE_ASSIGN(const auto source, open(file));
      if (source->size() > kConfigBytesMax) continue;
      SLUICE_ASSIGN(const std::string text, read_text(*source, kConfigBytesMax));
      const auto json = parse_json(text, source->label());
      const Json* map = json ? json_find(*json, "auto_map") : nullptr;
      if (map != nullptr) add_code_files(*map, names);
    }
    return std::vector<std::string>(names.begin(), names.end());
  }
  static void add_code_files(const Json& value, std::set<std::string>& names) {
    if (value.is_string() && names.size() < kCodeFilesMax) {
      const auto& text = value.get_ref<const std::string&>();
      const size_t dot = text.find('.');
      const std::string name = text.substr(0, dot) + ".py";
      // "repository--module.Class" lies elsewhere.
      if (dot != std::string::npos && is_bare_file_name(name) && !name.contains("--"))
        names.insert(name);
    } else if (value.is_structured()) {
      for (const Json& inner : value)
        if (inner.is_string() || inner.is_array()) add_code_files(inner, names);
    }
  }

  Result<std::optional<RemoteFile>> find(const std::string& name) const override {
    {
      MutexLock lock(mutex_);
      const auto known = known_.find(name);
      if (known != known_.end()) return known->second;
    }
    if (!is_bare_file_name(name))
      return fail(ErrorCode::kInvalidArgument, "\"{}\" is no file name", printable(name));
    SLUICE_ASSIGN(auto file, find_remote_file(*client_, file_in(folder_, name)));
    MutexLock lock(mutex_);
    known_[name] = file;
    return file;
  }

  const Url folder_;
  mutable Mutex mutex_;
  mutable std::map<std::string, std::optional<RemoteFile>> known_ GUARDED_BY(mutex_);
};

}  // namespace

std::unique_ptr<ModelFiles> hub_files(const Hub& hub, const HubSnapshot& snapshot) {
  return std::make_unique<HubFiles>(hub, snapshot);
}

std::unique_ptr<ModelFiles> web_files(std::shared_ptr<HttpClient> client, const Url& folder) {
  return std::make_unique<WebFiles>(std::move(client), folder);
}

}  // namespace sluice::io
