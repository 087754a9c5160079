// Builds safetensors and GGUF files in memory, sound or hostile, for the tests of their readers.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/byte_source.h"

namespace sluice::io::testing {

template <class T>
std::string little_endian(T value) {
  std::string out(sizeof(T), '\0');
  std::memcpy(out.data(), &value, sizeof(T));  // tests run on little-endian machines
  return out;
}

inline std::shared_ptr<ByteSource> source_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return memory_source("attack.bin", {bytes.begin(), bytes.end()});
}

inline std::string safetensors_file(std::string_view json, size_t data_bytes) {
  return little_endian(uint64_t{json.size()}) + std::string(json) + std::string(data_bytes, 'd');
}

// "key" + value type + value, as the format lays them out.
class GgufBuilder {
 public:
  uint32_t magic = 0x46554747;
  uint32_t version = 3;
  int64_t extra_tensors = 0, extra_entries = 0;  // lies about the counts
  uint64_t alignment = 32;
  std::string data;

  GgufBuilder& raw(std::string_view key, uint32_t type, std::string_view value) {
    entries_.push_back(string(key) + little_endian(type) + std::string(value));
    return *this;
  }
  GgufBuilder& u32(std::string_view key, uint32_t value) {
    return raw(key, 4, little_endian(value));
  }
  GgufBuilder& f32(std::string_view key, float value) { return raw(key, 6, little_endian(value)); }
  GgufBuilder& boolean(std::string_view key, bool value) {
    return raw(key, 7, std::string(1, value ? 1 : 0));
  }
  GgufBuilder& text(std::string_view key, std::string_view value) {
    return raw(key, 8, string(value));
  }
  GgufBuilder& strings(std::string_view key, const std::vector<std::string>& values) {
    std::string body = little_endian(uint32_t{8}) + little_endian(uint64_t{values.size()});
    for (const auto& value : values) body += string(value);
    return raw(key, 9, body);
  }
  template <class T>
  GgufBuilder& array(std::string_view key, uint32_t type, const std::vector<T>& values) {
    std::string body = little_endian(type) + little_endian(uint64_t{values.size()});
    for (const T value : values) body += little_endian(value);
    return raw(key, 9, body);
  }
  // dimensions fastest first, as the file has them.
  GgufBuilder& tensor(std::string_view name, const std::vector<uint64_t>& dimensions, uint32_t type,
                      uint64_t offset) {
    std::string body = string(name) + little_endian(static_cast<uint32_t>(dimensions.size()));
    for (const uint64_t dimension : dimensions) body += little_endian(dimension);
    tensors_.push_back(body + little_endian(type) + little_endian(offset));
    return *this;
  }
  std::string build() const {
    std::string out = little_endian(magic) + little_endian(version) +
                      little_endian(tensors_.size() + static_cast<uint64_t>(extra_tensors)) +
                      little_endian(entries_.size() + static_cast<uint64_t>(extra_entries));
    for (const auto& entry : entries_) out += entry;
    for (const auto& tensor : tensors_) out += tensor;
    out.resize((out.size() + alignment - 1) / alignment * alignment, '\0');
    return out + data;
  }
  static std::string string(std::string_view text) {
    return little_endian(uint64_t{text.size()}) + std::string(text);
  }

 private:
  std::vector<std::string> entries_, tensors_;
};

// A folder of its own, removed at the end.
class TemporaryFolder {
 public:
  // parent: "" for the system's folder of temporary files.
  explicit TemporaryFolder(const std::filesystem::path& parent = "") {
    const auto base = parent.empty() ? std::filesystem::temp_directory_path() : parent;
    std::string pattern = (base / "sluice-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string path() const { return path_.string(); }
  std::string file(std::string_view name) const { return (path_ / name).string(); }
  void write(std::string_view name, std::string_view text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace sluice::io::testing
