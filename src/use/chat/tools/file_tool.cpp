// The functions of the tool "files", and the differences that they show.
#include "chat/tools/file_tool.h"

#include <algorithm>
#include <functional>

#include "chat/tools/function.h"

namespace sluice::chat {
namespace {

constexpr size_t kContextLines = 3;

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

void append(std::string& text, std::string_view mark, const std::vector<std::string_view>& lines,
            size_t begin, size_t end) {
  for (size_t i = begin; i < end; ++i) text += fmt::format("{}{}\n", mark, lines[i]);
}

// Matches of `text` below a folder, "path:line: text" each.
class Search {
 public:
  Search(const WorkFolder& folder, std::string text, const CancelToken* cancel)
      : folder_(folder), text_(std::move(text)), cancel_(cancel) {}

  Status walk(const std::string& path, size_t depth) {
    SLUICE_ASSIGN(const auto entries, folder_.list(path, FileTool::kEntriesMax));
    for (const FolderEntry& entry : entries) {
      if (full()) return {};
      const std::string below = path.empty() ? entry.name : path + "/" + entry.name;
      if (entry.name.ends_with('/')) {
        // What cannot be opened is passed over: the rest is still of use.
        if (depth < FileTool::kSearchDepthMax)
          (void)walk(below.substr(0, below.size() - 1), depth + 1);
      } else {
        file(below);
      }
    }
    return {};
  }
  std::string found;

 private:
  bool full() const {
    return matches_ >= FileTool::kMatchesMax || files_ >= FileTool::kSearchFilesMax ||
           (cancel_ != nullptr && cancel_->cancelled());
  }
  void file(const std::string& path) {
    ++files_;
    const auto content = folder_.read(path, FileTool::kFileBytesMax);
    if (!content || content->find('\0') != std::string::npos) return;
    size_t number = 0;
    for (const std::string_view line : lines_of(*content)) {
      ++number;
      if (line.find(text_) == std::string_view::npos) continue;
      found += fmt::format("{}:{}: {}\n", path, number, line.substr(0, 400));
      if (++matches_ >= FileTool::kMatchesMax) return;
    }
  }

  const WorkFolder& folder_;
  const std::string text_;
  const CancelToken* cancel_;
  size_t files_ = 0, matches_ = 0;
};

ToolPlan reading(std::string shown,
                 std::function<Result<std::string>(const CancelToken* cancel)> read) {
  return {ToolEffect::kReads, std::move(shown),
          [read = std::move(read)](const CancelToken* cancel) -> Result<ToolOutput> {
            SLUICE_ASSIGN(std::string text, read(cancel));
            return ToolOutput{std::move(text), {}};
          }};
}

// Exactly one place is replaced, so that the model has to know what it edits.
Result<std::string> replaced(const std::string& text, const std::string& old,
                             const std::string& other, std::string_view path) {
  const size_t at = old.empty() ? std::string::npos : text.find(old);
  if (at == std::string::npos)
    return fail(ErrorCode::kInvalidArgument, "old_text does not occur in {}", path);
  if (text.find(old, at + 1) != std::string::npos)
    return fail(ErrorCode::kInvalidArgument, "old_text occurs several times in {}; give more of it",
                path);
  std::string result = text;
  return result.replace(at, old.size(), other);
}

}  // namespace

std::string changed_lines(std::string_view before, std::string_view after) {
  const auto old_lines = lines_of(before), new_lines = lines_of(after);
  const size_t shorter = std::min(old_lines.size(), new_lines.size());
  size_t head = 0, tail = 0;
  while (head < shorter && old_lines[head] == new_lines[head]) ++head;
  while (tail < shorter - head &&
         old_lines[old_lines.size() - 1 - tail] == new_lines[new_lines.size() - 1 - tail])
    ++tail;
  const size_t old_end = old_lines.size() - tail, new_end = new_lines.size() - tail;
  std::string text;
  append(text, "  ", old_lines, head - std::min(head, kContextLines), head);
  append(text, "- ", old_lines, head, old_end);
  append(text, "+ ", new_lines, head, new_end);
  append(text, "  ", old_lines, old_end, std::min(old_end + kContextLines, old_lines.size()));
  if (text.empty() || (head == old_end && head == new_end))
    text += "(only the end of the last line differs, or nothing)\n";
  return text;
}

OrderedJson FileTool::functions() const {
  const FunctionParameter path = {"path", "relative to the work folder"};
  return OrderedJson::array(
      {function_json("list_files", "Lists a folder.", {}, {path}),
       function_json("read_file", "Returns a file's text.", {path}, {}),
       function_json("search_text", "Finds lines that hold a text, in all files below a folder.",
                     {{"text", "exactly what to find"}}, {path}),
       function_json("write_file", "Writes a whole file, new or not.",
                     {path, {"text", "all of the file"}}, {}),
       function_json("edit_file", "Replaces one place of a file.",
                     {path,
                      {"old_text", "what is there, exactly and only once"},
                      {"new_text", "what takes its place"}},
                     {})});
}

Result<ToolPlan> FileTool::plan_read(std::string_view function, const std::string& path,
                                     const Json& arguments) {
  if (function == "read_file")
    return reading("read " + path,
                   [this, path](const CancelToken*) { return folder_.read(path, kFileBytesMax); });
  if (function == "search_text") {
    SLUICE_ASSIGN(const std::string text, text_argument(arguments, "text", 4096));
    if (text.empty()) return fail(ErrorCode::kInvalidArgument, "there is no text to find");
    return reading(fmt::format("search \"{}\" in {}", text, path.empty() ? "." : path),
                   [this, path, text](const CancelToken* cancel) -> Result<std::string> {
                     Search search(folder_, text, cancel);
                     SLUICE_TRY(search.walk(path, 0));
                     return search.found.empty() ? "no match" : search.found;
                   });
  }
  return reading("list " + (path.empty() ? "." : path),
                 [this, path](const CancelToken*) -> Result<std::string> {
                   SLUICE_ASSIGN(const auto entries, folder_.list(path, kEntriesMax));
                   std::string text;
                   for (const FolderEntry& entry : entries)
                     text += fmt::format("{} {}\n", entry.name, entry.bytes);
                   return text.empty() ? "empty" : text;
                 });
}

Result<ToolPlan> FileTool::plan_change(const std::string& path, std::string before,
                                       std::string after) {
  if (after.size() > kFileBytesMax)
    return fail(ErrorCode::kInvalidArgument, "{} would have more than {} bytes", path,
                kFileBytesMax);
  ToolPlan plan;
  plan.effect = ToolEffect::kChanges;
  plan.shown = fmt::format("write {}\n{}", path, changed_lines(before, after));
  plan.run = [this, path, before = std::move(before),
              after = std::move(after)](const CancelToken*) -> Result<ToolOutput> {
    // What was approved is the difference that was shown.
    const auto now = folder_.read(path, kFileBytesMax);
    if (!now && now.error().code != ErrorCode::kNotFound) return std::unexpected(now.error());
    if ((now ? *now : "") != before)
      return fail(ErrorCode::kInvalidArgument, "{} has changed meanwhile; read it again", path);
    SLUICE_TRY(folder_.write(path, after));
    return ToolOutput{fmt::format("wrote {} bytes to {}", after.size(), path), {}};
  };
  return plan;
}

Result<ToolPlan> FileTool::plan(std::string_view function, const Json& arguments) {
  SLUICE_ASSIGN(const std::string path,
                text_argument_or(arguments, "path", WorkFolder::kPathBytesMax, ""));
  if (function != "write_file" && function != "edit_file")
    return plan_read(function, path, arguments);
  auto before = folder_.read(path, kFileBytesMax);
  if (function == "write_file") {
    if (!before && before.error().code != ErrorCode::kNotFound)
      return std::unexpected(before.error());
    SLUICE_ASSIGN(std::string text, text_argument(arguments, "text", kFileBytesMax));
    return plan_change(path, before ? std::move(*before) : "", std::move(text));
  }
  if (!before) return std::unexpected(before.error());
  SLUICE_ASSIGN(const std::string old, text_argument(arguments, "old_text", kFileBytesMax));
  SLUICE_ASSIGN(const std::string other, text_argument(arguments, "new_text", kFileBytesMax));
  SLUICE_ASSIGN(std::string after, replaced(*before, old, other, path));
  return plan_change(path, std::move(*before), std::move(after));
}

}  // namespace sluice::chat
