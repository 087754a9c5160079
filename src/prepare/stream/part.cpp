#include "stream/part.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "stream/stream.h"

namespace sluice::stream {
namespace {

constexpr std::string_view kMark = ".part-";
constexpr std::string_view kOf = "-of-";

// The whole text as "index SEPARATOR count", counted from one.
std::optional<Part> part_between(std::string_view text, std::string_view separator) {
  const size_t middle = text.find(separator);
  if (middle == std::string_view::npos) return std::nullopt;
  const auto number = [](std::string_view digits) -> uint32_t {
    uint32_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return error == std::errc() && end == digits.data() + digits.size() ? value : 0;
  };
  const uint32_t index = number(text.substr(0, middle));
  const uint32_t count = number(text.substr(middle + separator.size()));
  if (index == 0 || index > count || count > kPartsMax) return std::nullopt;
  return Part{index - 1, count};
}

}  // namespace

std::string part_text(const Part& part) { return fmt::format("{}/{}", part.index + 1, part.count); }

Result<Part> parse_part(std::string_view text) {
  if (const auto part = part_between(text, "/")) return *part;
  return fail(ErrorCode::kInvalidArgument,
              "\"{}\" is no part of a job; a part is i/n with i from 1 to n, such as 2/4", text);
}

std::string part_path(const std::string& path, const Part& part) {
  if (part.whole()) return path;
  return fmt::format("{}{}{}{}{}", path, kMark, part.index + 1, kOf, part.count);
}

Result<uint32_t> count_parts(io::Storage& storage, const std::string& path) {
  const std::string folder = io::parent_folder(path);
  const std::string base = (folder == "." ? path : path.substr(folder.size())) + std::string(kMark);
  SLUICE_ASSIGN(const std::vector<std::string> names, storage.list_directory(folder));
  uint32_t count = 0;
  for (const std::string& name : names) {
    if (!name.starts_with(base)) continue;
    const auto part = part_between(std::string_view(name).substr(base.size()), kOf);
    if (!part) continue;
    if (count != 0 && part->count != count)
      return fail(ErrorCode::kInvalidArgument,
                  "{}: there are files of {} parts and of {} parts beside it; remove those of one "
                  "kind",
                  path, count, part->count);
    count = part->count;
  }
  return count;
}

Status all_complete(std::string_view subject, std::span<const Part> incomplete) {
  if (incomplete.empty()) return {};
  std::string list;
  for (const Part& part : incomplete) list += (list.empty() ? "" : ", ") + part_text(part);
  return fail(ErrorCode::kInvalidArgument,
              "{}: not all parts are complete; run again with --part {}", subject, list);
}

std::vector<uint32_t> modules_of_part(const io::Checkpoint& checkpoint,
                                      const families::ModelMap& map,
                                      std::span<const uint32_t> modules, const Part& part) {
  const uint64_t total = source_bytes(checkpoint, map, modules);
  std::vector<uint32_t> chosen;
  uint64_t before = 0;
  for (const uint32_t module : modules) {
    const uint64_t bytes = source_bytes(checkpoint, map, {&module, 1});
    const uint64_t middle = before + bytes / 2;
    before += bytes;
    // One correctly rounded division and product, so every machine finds the same owner.
    const double share =
        total == 0 ? 0.0 : static_cast<double>(middle) / static_cast<double>(total);
    const auto owner = static_cast<uint32_t>(share * part.count);
    if (std::min(owner, part.count - 1) == part.index) chosen.push_back(module);
  }
  return chosen;
}

void part_to_json(const Part& part, Json& record) {
  if (!part.whole()) record["part"] = part_text(part);
}

Result<Part> part_from_json(const Json& record, std::string_view label) {
  if (json_find(record, "part") == nullptr) return Part{};
  SLUICE_ASSIGN(const std::string text, json_string(record, "part", label));
  auto part = parse_part(text);
  if (!part) return fail(ErrorCode::kCorrupt, "{}: {}", label, part.error().message);
  return *part;
}

}  // namespace sluice::stream
