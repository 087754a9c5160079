#include "cli/toml.h"

#include <algorithm>
#include <cctype>

#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#include <toml++/toml.h>

namespace sluice::cli {
namespace {

uint32_t line_of(const toml::node& node) { return static_cast<uint32_t>(node.source().begin.line); }

// Nothing for what is no plain value.
std::optional<std::string> plain_text(const toml::node& node) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* flag = node.as_boolean()) return flag->get() ? "true" : "false";
  if (const auto* integer = node.as_integer()) return fmt::format("{}", integer->get());
  if (const auto* number = node.as_floating_point()) return fmt::format("{}", number->get());
  return std::nullopt;
}

std::optional<std::string> value_text(const toml::node& node) {
  const toml::array* list = node.as_array();
  if (list == nullptr) return plain_text(node);
  std::string joined;
  for (const toml::node& element : *list) {
    const auto text = plain_text(element);
    if (!text) return std::nullopt;
    joined += (joined.empty() ? "" : ",") + *text;
  }
  return joined;
}

Status flatten(const toml::table& table, const std::vector<std::string>& path,
               std::string_view label, std::vector<TomlEntry>& entries) {
  for (const auto& [key, node] : table) {
    TomlEntry entry{path, false, {}, line_of(node)};
    entry.path.emplace_back(key.str());
    if (const toml::table* inner = node.as_table()) {
      entry.table = true;
      entries.push_back(entry);
      SLUICE_TRY(flatten(*inner, entry.path, label, entries));
      continue;
    }
    auto text = value_text(node);
    if (!text)
      return fail(ErrorCode::kCorrupt,
                  "{}:{}: {} has a value of a kind that no setting takes; settings are texts, "
                  "numbers, true, false and lists of these",
                  label, entry.line, entry.name());
    entry.text = std::move(*text);
    entries.push_back(std::move(entry));
  }
  return {};
}

}  // namespace

std::string TomlEntry::name() const {
  std::string name;
  for (const std::string& part : path) {
    const bool bare = !part.empty() && std::ranges::all_of(part, [](char c) {
      return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_';
    });
    name +=
        fmt::format("{}{}{}{}", name.empty() ? "" : ".", bare ? "" : "\"", part, bare ? "" : "\"");
  }
  return name;
}

Result<std::vector<TomlEntry>> parse_toml(std::string_view text, std::string_view label) {
  const toml::parse_result parsed = toml::parse(text, label);
  if (!parsed) {
    const toml::parse_error& error = parsed.error();
    return fail(ErrorCode::kCorrupt, "{}:{}: {}", label,
                static_cast<uint32_t>(error.source().begin.line), error.description());
  }
  std::vector<TomlEntry> entries;
  SLUICE_TRY(flatten(parsed.table(), {}, label, entries));
  std::ranges::stable_sort(entries, {}, &TomlEntry::line);
  return entries;
}

}  // namespace sluice::cli
