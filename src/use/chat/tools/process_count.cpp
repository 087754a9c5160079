// Reads the list of processes from /proc.
#include "chat/tools/process_count.h"

#include <cctype>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <unordered_map>

namespace sluice::chat {
namespace {

using Parents = std::unordered_map<pid_t, pid_t>;

// "12 (name) S 7 …": the name may hold anything.
pid_t parent_in(std::string_view stat) {
  const size_t name_end = stat.rfind(')');
  pid_t parent = 0;
  if (name_end == std::string_view::npos || name_end + 4 >= stat.size()) return 0;
  const std::string_view rest = stat.substr(name_end + 4);
  std::from_chars(rest.data(), rest.data() + rest.size(), parent);
  return parent;
}

Parents parents() {
  Parents result;
  std::error_code problem;
  // What ends meanwhile is passed over.
  for (std::filesystem::directory_iterator entry("/proc", problem), end; !problem && entry != end;
       entry.increment(problem)) {
    const std::string name = entry->path().filename().string();
    pid_t process = 0;
    const auto [rest, wrong] = std::from_chars(name.data(), name.data() + name.size(), process);
    if (wrong != std::errc() || *rest != '\0') continue;
    std::ifstream file(entry->path() / "stat");
    std::string text;
    if (std::getline(file, text)) result[process] = parent_in(text);
  }
  return result;
}

}  // namespace

size_t count_processes(pid_t top) {
  const Parents all = parents();
  size_t count = 0;
  for (const auto& [process, parent] : all) {
    pid_t at = process;
    // As many steps as there are processes: what is read while it changes may hold a circle.
    for (size_t left = all.size(); at != top && left > 0; --left) {
      const auto above = all.find(at);
      if (above == all.end()) break;
      at = above->second;
    }
    if (at == top) ++count;
  }
  return count;
}

}  // namespace sluice::chat
