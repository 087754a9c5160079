// `sluice completions` and `sluice man`: what packagers and shells want from the program.
#include <CLI/CLI.hpp>

#include "cli/completions.h"
#include "cli/context.h"
#include "sluice_version.h"

namespace sluice::cli {
namespace {

Result<int> print_text(Context& context, const std::string& text) {
  if (context.options.json)
    context.print_json({{"text", text}});
  else
    context.print(text);
  return kExitSuccess;
}

std::string completion(const CommandInfo& tree, const std::string& shell) {
  if (shell == "bash") return bash_completion(tree);
  return shell == "zsh" ? zsh_completion(tree) : fish_completion(tree);
}

}  // namespace

void add_completions(CLI::App& app, Action& action) {
  auto shell = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("completions", "print a completion script for a shell");
  command->add_option("SHELL", *shell, "whose script to print")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  command->footer(
      "Examples:\n"
      "  source <(sluice completions bash)\n"
      "  sluice completions zsh > \"${fpath[1]}/_sluice\"\n"
      "  sluice completions fish > ~/.config/fish/completions/sluice.fish");
  command->callback([&action, shell] {
    action = [shell](Context& context) {
      return print_text(context, completion(context.commands, *shell));
    };
  });
}

void add_man(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("man", "print the manual page");
  command->footer(
      "Examples:\n"
      "  sluice man > sluice.1; man -l sluice.1\n"
      "  sluice man > /usr/local/share/man/man1/sluice.1");
  command->callback([&action] {
    action = [](Context& context) {
      return print_text(context, man_page(context.commands, std::string(kVersion)));
    };
  });
}

}  // namespace sluice::cli
