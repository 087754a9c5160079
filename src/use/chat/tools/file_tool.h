// The tool "files": reading, listing, searching, writing and editing inside the work folder.
#pragma once

#include "chat/tools/tool.h"
#include "chat/tools/work_folder.h"

namespace sluice::chat {

class FileTool : public Tool {
 public:
  static constexpr size_t kFileBytesMax = 4 << 20;  // read, searched and written
  static constexpr size_t kEntriesMax = 1'000;      // listed
  static constexpr size_t kMatchesMax = 200;        // of a search
  static constexpr size_t kSearchFilesMax = 5'000;
  static constexpr size_t kSearchDepthMax = 16;

  explicit FileTool(WorkFolder folder) : folder_(std::move(folder)) {}

  std::string_view name() const override { return "files"; }
  OrderedJson functions() const override;
  Result<ToolPlan> plan(std::string_view function, const Json& arguments) override;

 private:
  Result<ToolPlan> plan_read(std::string_view function, const std::string& path,
                             const Json& arguments);
  Result<ToolPlan> plan_change(const std::string& path, std::string before, std::string after);

  const WorkFolder folder_;
};

// The lines that differ, "-" and "+" in front, with the lines around them: from the first to the
// last difference.
std::string changed_lines(std::string_view before, std::string_view after);

}  // namespace sluice::chat
