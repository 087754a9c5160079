// `sluice agent`: requests done with tools, each use of which the user approves: one given with -p,
// or as many as are typed.
#include <CLI/CLI.hpp>

#include "cli/talk_session.h"

namespace sluice::cli {
namespace {

struct Options {
  std::string prompt;
  TalkSession session;
};

Result<int> run(Context& context, const Options& options) {
  if (options.prompt.empty()) return talk_until_quit(context, options.session, true);
  SLUICE_ASSIGN(const auto talk, open_talk(context, options.session, false, true));
  SLUICE_ASSIGN(const std::string finish, talk->do_request(options.prompt));
  SLUICE_TRY(talk->finish());
  return finish == "cancelled" ? kExitInterrupted : kExitSuccess;
}

}  // namespace

void add_agent(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  options->session.talk.requests = true;
  options->session.talk.temperature = 0;
  CLI::App* command =
      app.add_subcommand("agent", "do requests with tools: search, shell, files of one folder");
  command->add_option("-p,--prompt", options->prompt, "the request; without it they are typed");
  add_talk_options(*command, options->session);
  command->footer(
      "Examples:\n"
      "  sluice agent Qwen3-8B-6GB --folder notes --yes-read-only -p \"Which note is the "
      "longest?\"\n"
      "  sluice agent Qwen3-8B-6GB --folder app --tools shell,files -p \"Make the tests pass.\"\n"
      "  sluice agent Qwen3-8B-6GB --folder app");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
