// `sluice chat`: a conversation on the terminal.
#include <unistd.h>

#include <CLI/CLI.hpp>

#include "cli/line_reader.h"
#include "cli/talk.h"
#include "cli/user_folder.h"

namespace sluice::cli {
namespace {

struct Options {
  std::string model, load;
  bool no_keep = false;
  TalkArguments talk;
};

// $XDG_STATE_HOME/sluice/chat_history, else below ~/.local/state; empty without either.
std::string history_path() {
  const std::string folder = user_folder("XDG_STATE_HOME", ".local/state");
  return folder.empty() ? "" : folder + "/chat_history";
}

// One exchange; false at the end of the conversation. What goes wrong with a message is said, and
// the conversation goes on, unless model or template cannot be used at all.
Result<bool> exchange(Context& context, Talk& talk, LineReader& reader) {
  const auto line = reader.read_message(talk.prompt());
  if (!line) return false;
  if (line->find_first_not_of(" \t\n") == std::string::npos) return true;
  Result<bool> going_on = true;
  if (is_command(*line)) {
    going_on = talk.command(*line);
  } else if (const Status answered = talk.answer(*line); !answered) {
    if (answered.error().code == ErrorCode::kUnsupported) return std::unexpected(answered.error());
    going_on = std::unexpected(answered.error());
  }
  if (going_on) return going_on;
  if (!talk.usable()) return going_on;
  context.console->error(going_on.error().message);
  return true;
}

Result<int> run(Context& context, const Options& options) {
  const GenerationArguments& generation = options.talk.generation;
  SLUICE_ASSIGN(std::string system, system_prompt(context, generation));
  SLUICE_ASSIGN(auto variables, template_variables(generation));
  SLUICE_ASSIGN(auto talking, open_talking_model(context, options.talk, options.model));
  const bool terminal = isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1;
  KeptTalk kept(*context.console, user_folder("XDG_DATA_HOME", ".local/share"),
                terminal && !options.no_keep, std::move(system));
  Talk talk(context, options.talk, std::move(talking), std::move(kept), std::move(variables),
            terminal);
  if (terminal) context.print("/help tells what else one can type\n");
  if (!options.load.empty()) SLUICE_TRY(talk.load_conversation(options.load));
  LineReader reader(terminal, history_path(), command_names());
  for (;;) {
    SLUICE_ASSIGN(const bool going_on, exchange(context, talk, reader));
    if (going_on) continue;
    SLUICE_TRY(talk.finish());
    return kExitSuccess;
  }
}

}  // namespace

void add_chat(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("chat", "talk to a model on the terminal");
  command
      ->add_option("MODEL", options->model,
                   "a folder with safetensors, a .gguf file, or the name of a downloaded model")
      ->type_name("PATH")
      ->required();
  command->add_option("--load", options->load,
                      "go on with a conversation that was kept: its name or number");
  command->add_flag("--no-keep", options->no_keep,
                    "keep nothing of what is said, unless a command asks for it");
  add_generation_options(*command, options->talk.generation);
  add_engine_options(*command, options->talk.engine);
  command->footer(
      "Examples:\n"
      "  sluice chat Qwen3-8B-6GB\n"
      "  sluice chat Qwen3-8B-6GB -s \"Answer briefly.\" --reasoning hide --context 16384");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
