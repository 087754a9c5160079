// Opens every part of a GGUF model and checks that the parts are of one set before any is trusted.
#include "io/gguf_set.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <utility>

#include "io/descriptor_cache.h"
#include "io/model_files.h"
#include "io/names.h"

namespace sluice::io {
namespace {

struct PartName {
  std::string_view model;
  uint64_t number, count;  // as named: the first part is 1
};

// MODEL-00002-of-00005.gguf, five digits each, as llama.cpp writes and demands them.
std::optional<PartName> parse_part_name(std::string_view name) {
  constexpr std::string_view kPattern = "-00000-of-00000.gguf";
  if (name.size() <= kPattern.size()) return std::nullopt;
  const std::string_view tail = name.substr(name.size() - kPattern.size());
  for (size_t i = 0; i < tail.size(); ++i) {
    const bool digit = tail[i] >= '0' && tail[i] <= '9';
    if (kPattern[i] == '0' ? !digit : tail[i] != kPattern[i]) return std::nullopt;
  }
  const auto number = [&](size_t at) {
    uint64_t value = 0;
    std::from_chars(tail.data() + at, tail.data() + at + 5, value);
    return value;
  };
  return PartName{name.substr(0, name.size() - kPattern.size()), number(1), number(10)};
}

std::string part_name(std::string_view model, uint64_t number, uint64_t count) {
  return fmt::format("{}-{:05}-of-{:05}.gguf", model, number, count);
}

// The name must say of a part what its header says.
Result<PartName> name_of_part(const std::string& label, std::string_view file,
                              const GgufSplit& split) {
  const auto name = parse_part_name(file);
  if (name && name->count == split.count && name->number == uint64_t{split.index} + 1) return *name;
  return fail(ErrorCode::kCorrupt,
              "{}: its header says part {} of {}, so its name should end in {}; the other parts "
              "are found by name",
              label, split.index + 1, split.count, part_name("", split.index + 1, split.count));
}

// Keys that belong to a part, not to the model.
bool is_own_key(std::string_view key) {
  return key.starts_with("split.") || key == "general.alignment";
}

Status check_part(const GgufHeader& part, const GgufHeader& first, const std::string& label,
                  const std::string& first_label, uint64_t index) {
  if (part.split.count != first.split.count || part.split.index != index)
    return fail(ErrorCode::kCorrupt, "{}: should be part {} of {}, its header says part {} of {}",
                label, index + 1, first.split.count, part.split.index + 1, part.split.count);
  if (part.split.tensors && first.split.tensors && part.split.tensors != first.split.tensors)
    return fail(ErrorCode::kCorrupt, "{}: says that the model has {} tensors, {} says {}", label,
                *part.split.tensors, first_label, *first.split.tensors);
  for (const auto& [key, value] : part.metadata) {
    if (is_own_key(key)) continue;
    const GgufValue* other = first.find(key);
    if (other == nullptr || *other == value) continue;
    return fail(ErrorCode::kCorrupt,
                "{}: metadata key {} has another value than in {}; the two are not parts of one "
                "model",
                label, printable(key), first_label);
  }
  return {};
}

Status add_file(const ModelFiles& files, const std::string& name, GgufSet& set,
                GgufHeader& header) {
  SLUICE_ASSIGN(auto source, files.open(name));
  SLUICE_ASSIGN(header, read_gguf_header(*source, static_cast<uint32_t>(set.files.size())));
  set.files.push_back(std::move(source));
  set.names.push_back(name);
  set.digests.push_back(header.digest);
  return {};
}

Status check_tensor_count(const GgufSet& set) {
  const auto& split = set.header.split;
  if (!split.tensors || *split.tensors == set.header.tensors.size()) return {};
  return fail(ErrorCode::kCorrupt, "{}: {} parts hold {} tensors, split.tensors.count says {}",
              set.files.front()->label(), split.count, set.header.tensors.size(), *split.tensors);
}

Result<GgufSet> open_parts(const ModelFiles& files, std::string_view model, uint64_t count) {
  GgufSet set;
  for (uint64_t index = 0; index < count; ++index) {
    const std::string name = part_name(model, index + 1, count);
    SLUICE_ASSIGN(const bool there, files.has(name));
    if (!there)
      return fail(ErrorCode::kNotFound, "{}: part {} of {} of this model is not there",
                  files.label(name), index + 1, count);
    GgufHeader later;
    GgufHeader& header = index == 0 ? set.header : later;
    SLUICE_TRY(add_file(files, name, set, header));
    SLUICE_TRY(check_part(header, set.header, set.files.back()->label(), set.files.front()->label(),
                          index));
    if (index == 0) continue;
    std::move(header.tensors.begin(), header.tensors.end(), std::back_inserter(set.header.tensors));
  }
  SLUICE_TRY(check_tensor_count(set));
  return set;
}

}  // namespace

Result<GgufSet> open_gguf_set(const ModelFiles& files, const std::string& name) {
  GgufSet set;
  SLUICE_TRY(add_file(files, name, set, set.header));
  if (set.header.split.count <= 1) {
    SLUICE_TRY(check_tensor_count(set));
    return set;
  }
  SLUICE_ASSIGN(const PartName part,
                name_of_part(set.files.front()->label(), name, set.header.split));
  set = {};  // it is read again in its place; tokens need not be held twice
  return open_parts(files, part.model, part.count);
}

Result<GgufSet> open_gguf_set(const std::string& path) {
  const std::filesystem::path file(path);
  const auto files = local_files(file.parent_path().string(), std::make_shared<DescriptorCache>());
  return open_gguf_set(*files, file.filename().string());
}

Result<std::optional<std::string>> find_gguf_model(const std::string& folder,
                                                   std::span<const std::string> names) {
  // Parts of one set share their name's beginning and their count.
  const auto set_of = [](std::string_view name) {
    const auto part = parse_part_name(name);
    return part ? std::pair(part->model, part->count) : std::pair(name, uint64_t{0});
  };
  const std::string* found = nullptr;
  for (const std::string& name : names) {
    if (!name.ends_with(".gguf")) continue;
    if (found == nullptr) {
      found = &name;
    } else if (set_of(name) != set_of(*found)) {
      return fail(ErrorCode::kUnsupported,
                  "{}: holds several GGUF models, {} and {}; name the file that is meant", folder,
                  *found, name);
    }
  }
  return found == nullptr ? std::nullopt : std::optional(*found);
}

}  // namespace sluice::io
