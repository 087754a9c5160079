#include "convert/front_matter.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "base/json.h"

namespace sluice::convert {
namespace {

// One key of the top level with the lines that belong to it, as they stand.
struct Entry {
  std::string key;
  std::vector<std::string> lines;
};

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r";
  const size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

std::string_view unquoted(std::string_view text) {
  if (text.size() >= 2 && (text.front() == '"' || text.front() == '\'') &&
      text.back() == text.front())
    return text.substr(1, text.size() - 2);
  return text;
}

// The lines between the fences; nothing without a closing one.
std::optional<std::vector<std::string>> head_lines(std::string_view readme) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (readme.starts_with(kByteOrderMark)) readme.remove_prefix(kByteOrderMark.size());
  std::vector<std::string> lines;
  for (bool first = true; !readme.empty(); first = false) {
    const size_t end = std::min(readme.find('\n'), readme.size());
    std::string_view line = readme.substr(0, end);
    readme.remove_prefix(std::min(end + 1, readme.size()));
    line = line.substr(0, line.find_last_not_of(" \t\r") + 1);
    const bool fence = line == "---";
    if (first != fence) {
      if (first) return std::nullopt;
      return lines;
    }
    if (!first) lines.emplace_back(line);
  }
  return std::nullopt;
}

// Lines that begin an entry are not indented; list items may stand unindented below their key.
std::optional<std::vector<Entry>> split_entries(const std::vector<std::string>& lines) {
  std::vector<Entry> entries;
  for (const std::string& line : lines) {
    if (line.empty() || line.starts_with('#')) continue;
    const bool continued = line.starts_with(' ') || line.starts_with("- ") || line == "-";
    if (continued) {
      if (entries.empty()) return std::nullopt;
      entries.back().lines.push_back(line);
      continue;
    }
    const size_t colon = line.find(':');
    // What begins a key that is no plain word: a flow mapping, an anchor, a tag, a directive.
    const bool special = std::string_view("{[&*!|>%@`?").contains(line.front());
    if (special || colon == std::string::npos || colon == 0 ||
        (colon + 1 < line.size() && line[colon + 1] != ' '))
      return std::nullopt;
    entries.push_back({std::string(unquoted(trimmed(line.substr(0, colon)))), {line}});
  }
  return entries;
}

// "tags: [a, b]", "tags: a", or a list below; each as it was spelled.
std::vector<std::string> tags_of(const Entry& entry) {
  std::string text(trimmed(entry.lines[0].substr(entry.lines[0].find(':') + 1)));
  std::vector<std::string> tags;
  const auto add = [&](std::string_view tag) {
    tag = trimmed(tag);
    if (!tag.empty()) tags.emplace_back(tag);
  };
  if (text.empty()) {
    for (size_t i = 1; i < entry.lines.size(); ++i)
      if (const auto line = trimmed(entry.lines[i]); line.starts_with("- ")) add(line.substr(2));
    return tags;
  }
  for (size_t i = 1; i < entry.lines.size(); ++i) text += entry.lines[i];
  if (!text.starts_with('[') || !text.ends_with(']')) return {text};
  std::string_view list = std::string_view(text).substr(1, text.size() - 2);
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    add(list.substr(0, comma));
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return tags;
}

bool is_ours(std::string_view key) {
  return key == "library_name" || key == "pipeline_tag" || key == "base_model" ||
         key == "base_model_relation" || key == "tags";
}

}  // namespace

std::string merged_front_matter(std::string_view readme, std::string_view base_model) {
  std::vector<Entry> entries;
  if (const auto lines = head_lines(readme))
    entries = split_entries(*lines).value_or(std::vector<Entry>());
  std::string kept;
  std::vector<std::string> tags;
  for (const Entry& entry : entries) {
    if (entry.key == "tags") tags = tags_of(entry);
    if (is_ours(entry.key)) continue;
    for (const std::string& line : entry.lines) kept += line + "\n";
  }
  for (const char* tag : {"mlx", "sluice"})
    if (std::ranges::find(tags, tag, unquoted) == tags.end()) tags.emplace_back(tag);
  std::string tag_lines;
  for (const std::string& tag : tags) tag_lines += "- " + tag + "\n";
  return fmt::format(
      "---\n{}library_name: mlx\npipeline_tag: text-generation\ntags:\n{}base_model: {}\n---\n",
      kept, tag_lines, dump_json(std::string(base_model)));
}

}  // namespace sluice::convert
