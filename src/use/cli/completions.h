// Shell completions and the man page, written from the command tree.
#pragma once

#include <string>

#include "cli/command_tree.h"

namespace sluice::cli {

// Scripts that complete commands, options, the values of options with few of them, and paths.
// They need the shell alone (bash from 3.2, the one of macOS), no other package.
std::string bash_completion(const CommandInfo& tree);
std::string zsh_completion(const CommandInfo& tree);
std::string fish_completion(const CommandInfo& tree);

// sluice(1) in the man macros.
std::string man_page(const CommandInfo& tree, const std::string& version);

}  // namespace sluice::cli
