// Finished outputs in memory, to be damaged there and verified from a real folder.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/digest.h"
#include "base/sealed_json.h"
#include "convert/conversions.h"
#include "io/safetensors.h"
#include "verify/verify.h"

namespace sluice::test {

inline const std::string kShard = "model.safetensors";
inline const std::string kIndex = "model.safetensors.index.json";

// A folder that goes away with the object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    static std::atomic<int> count{0};
    path_ = (std::filesystem::temp_directory_path() /
             fmt::format("sluice-verify-{}-{}", getpid(), count++))
                .string();
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline void write_files(const std::string& folder, const Files& files) {
  for (const auto& [name, text] : files) {
    std::ofstream file(folder + "/" + name, std::ios::binary);
    file.write(text.data(), static_cast<std::streamsize>(text.size()));
    SLUICE_CHECK(file.good());
  }
}

inline Result<verify::VerifyReport> verify_files(const Job& job, const Files& files,
                                                 unsigned workers = 2) {
  const TemporaryFolder folder;
  write_files(folder.path(), files);
  verify::VerifyOptions options;
  options.workers = workers;
  return verify::verify(*io::local_storage(), *job.checkpoint, folder.path(), options);
}

// All findings as lines, for matching and for messages.
inline std::string findings_text(const verify::VerifyReport& report) {
  std::string text;
  for (const verify::Finding& finding : report.findings)
    text += fmt::format("{}: {}\n", finding.subject, finding.message);
  return text;
}

inline io::StoredTensor stored_tensor(const Files& files, const std::string& name) {
  const auto bytes = std::as_bytes(std::span(files.at(kShard)));
  const auto source = io::memory_source(kShard, {bytes.begin(), bytes.end()});
  const auto header = io::read_safetensors_header(*source, 0);
  SLUICE_CHECK(header.has_value());
  for (const io::StoredTensor& tensor : header->tensors)
    if (tensor.info.name == name) return tensor;
  SLUICE_CHECK(false);
}

inline std::span<char> tensor_bytes(Files& files, const std::string& name) {
  const io::StoredTensor tensor = stored_tensor(files, name);
  return std::span(files.at(kShard)).subspan(tensor.offset, tensor.bytes);
}

// sluice.json with its own digest mended.
inline void set_record(Files& files, Json record) {
  files.at("sluice.json") = dump_json(record.is_object() ? sealed(record) : record, 1) + "\n";
}

// What a converter that wrote the wrong thing would have recorded: digests of what is there. Only
// for tensors of one block.
inline void forge_digests(Files& files, const std::string& tensor_name) {
  Json record = *parse_json(files.at("sluice.json"), "sluice.json");
  Json& entry = record.at("modules").at(tensor_name);
  const std::string path = tensor_name.substr(0, tensor_name.rfind('.'));
  const auto digest = [&](const std::string& name) {
    Hasher hasher;
    hasher.update(digest_of(std::as_bytes(tensor_bytes(files, name))));
    return hasher.finish().hex();
  };
  entry["weight_xxh3"] = digest(tensor_name);
  if (entry.contains("scales_xxh3")) {
    entry["scales_xxh3"] = digest(path + ".scales");
    entry["biases_xxh3"] = digest(path + ".biases");
  }
  set_record(files, std::move(record));
}

// The digests that follow from the edit are mended, so that the edit alone is to be found.
template <class Edit>
void edit_json(Files& files, const std::string& name, Edit&& edit) {
  Json json = *parse_json(files.at(name), name);
  edit(json);
  if (name == "sluice.json") return set_record(files, std::move(json));
  files.at(name) = dump_json(json, 1) + "\n";
  Json record = *parse_json(files.at("sluice.json"), "sluice.json");
  record["files"][name] = digest_of(files.at(name)).hex();
  set_record(files, std::move(record));
}

}  // namespace sluice::test
