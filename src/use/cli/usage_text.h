// What is wrong with a command line, in a sentence that says what was probably meant.
#pragma once

#include <string>

#include "cli/command_tree.h"

namespace CLI {
class App;
class Error;
}  // namespace CLI

namespace sluice::cli {

// app after its parse threw error; tree describes it. Unknown commands and options come with the
// nearest known one; everything else is in CLI11's words.
std::string usage_text(const CLI::App& app, const CommandInfo& tree, const CLI::Error& error,
                       int argument_count, const char* const* arguments);

}  // namespace sluice::cli
