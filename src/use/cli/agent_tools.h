// What an agent may use, as options of a command, and the tools that they ask for.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "chat/agent.h"
#include "cli/context.h"

namespace sluice::cli {

struct SearchArguments {
  std::string engine = "duckduckgo", address, key;
};
void add_search_options(CLI::App& command, SearchArguments& arguments);

struct AgentArguments {
  std::string folder = ".", transcript;
  std::vector<std::string> tools;  // empty: all that can be used here
  std::vector<std::string> yes;
  bool yes_read_only = false;
  uint64_t steps = 16;
  SearchArguments search;
};
void add_agent_options(CLI::App& command, AgentArguments& arguments);

// "search", "shell", "files".
const std::vector<std::string>& tool_names();

using Tools = std::vector<std::unique_ptr<chat::Tool>>;
// Errors name the one that cannot be used here.
Result<Tools> make_tools(const std::vector<std::string>& names, const std::string& folder,
                         const SearchArguments& search);
// Those asked for; without any, all but the shell where nothing can confine it, which is said.
Result<Tools> make_tools(Context& context, const AgentArguments& arguments);
std::vector<chat::Tool*> tools_of(const Tools& tools);

}  // namespace sluice::cli
