// `sluice chat`: a conversation on the terminal.
#include <CLI/CLI.hpp>

#include "cli/talk_session.h"

namespace sluice::cli {

void add_chat(CLI::App& app, Action& action) {
  auto session = std::make_shared<TalkSession>();
  CLI::App* command = app.add_subcommand("chat", "talk to a model on the terminal");
  add_talk_options(*command, *session);
  command->footer(
      "Examples:\n"
      "  sluice chat Qwen3-8B-6GB\n"
      "  sluice chat Qwen3-8B-6GB -s \"Answer briefly.\" --reasoning hide --context 16384\n"
      "  sluice chat Qwen3-8B-6GB --folder notes     then: /agent Which note is the longest?");
  command->callback([&action, session] {
    action = [session](Context& context) { return talk_until_quit(context, *session, false); };
  });
}

}  // namespace sluice::cli
