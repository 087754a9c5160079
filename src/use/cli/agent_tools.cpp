#include "cli/agent_tools.h"

#include <CLI/CLI.hpp>

#include "chat/tools/file_tool.h"
#include "chat/tools/search_tool.h"
#include "chat/tools/shell_tool.h"
#include "cli/web_fetch.h"

namespace sluice::cli {

const std::vector<std::string>& tool_names() {
  static const std::vector<std::string> kNames = {"search", "shell", "files"};
  return kNames;
}

void add_search_options(CLI::App& command, SearchArguments& arguments) {
  command.add_option("--search-engine", arguments.engine, "searxng, brave or duckduckgo")
      ->capture_default_str();
  command.add_option("--search-address", arguments.address, "of the search engine");
  command.add_option("--search-key", arguments.key, "for Brave's API");
}

void add_agent_options(CLI::App& command, AgentArguments& arguments) {
  const CLI::IsMember known(tool_names());
  command.add_option("--folder", arguments.folder, "the folder to work in, and nothing outside it")
      ->type_name("PATH")
      ->capture_default_str();
  command
      .add_option("--tools", arguments.tools,
                  "those allowed: search, shell, files; all unless given")
      ->delimiter(',')
      ->check(known);
  command.add_flag("--yes-read-only", arguments.yes_read_only,
                   "read files of the folder without asking");
  command.add_option("--yes", arguments.yes, "tools that do everything without asking")
      ->delimiter(',')
      ->check(known);
  command.add_option("--max-steps", arguments.steps, "answers of the model to a request, at most")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command
      .add_option("--transcript", arguments.transcript, "add all that happens to a JSON lines file")
      ->type_name("PATH");
  add_search_options(command, arguments.search);
}

Result<Tools> make_tools(const std::vector<std::string>& names, const std::string& folder_path,
                         const SearchArguments& arguments) {
  SLUICE_ASSIGN(chat::WorkFolder folder, chat::WorkFolder::open(folder_path));
  Tools tools;
  for (const std::string& name : names) {
    if (name == "files") {
      tools.push_back(std::make_unique<chat::FileTool>(folder));
    } else if (name == "shell") {
      SLUICE_TRY(chat::probe_sandbox(folder.path()));
      tools.push_back(std::make_unique<chat::ShellTool>(chat::ShellOptions{folder.path(), {}, {}}));
    } else {
      chat::SearchOptions search;
      SLUICE_ASSIGN(search.engine, chat::parse_search_engine(arguments.engine));
      search.address = arguments.address;
      search.key = arguments.key;
      search.fetch_engine = fetch_chosen();
      search.fetch_page = fetch_public();
      SLUICE_ASSIGN(auto tool, chat::SearchTool::make(std::move(search)));
      tools.push_back(std::move(tool));
    }
  }
  return tools;
}

Result<Tools> make_tools(Context& context, const AgentArguments& arguments) {
  if (!arguments.tools.empty())
    return make_tools(arguments.tools, arguments.folder, arguments.search);
  auto tools = make_tools(tool_names(), arguments.folder, arguments.search);
  if (tools || tools.error().code != ErrorCode::kUnsupported) return tools;
  context.console->info(tools.error().message);
  return make_tools({"search", "files"}, arguments.folder, arguments.search);
}

std::vector<chat::Tool*> tools_of(const Tools& tools) {
  std::vector<chat::Tool*> list;
  for (const auto& tool : tools) list.push_back(tool.get());
  return list;
}

}  // namespace sluice::cli
