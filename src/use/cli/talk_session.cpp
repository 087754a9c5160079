#include "cli/talk_session.h"

#include <unistd.h>

#include <CLI/CLI.hpp>

#include "cli/line_reader.h"
#include "cli/user_folder.h"

namespace sluice::cli {
namespace {

// $XDG_STATE_HOME/sluice/chat_history, else below ~/.local/state; empty without either.
std::string history_path(bool requests) {
  const std::string folder = user_folder("XDG_STATE_HOME", ".local/state");
  return folder.empty() ? "" : folder + (requests ? "/agent_history" : "/chat_history");
}

// One exchange; false at the end of the talk.
Result<bool> exchange(Context& context, Talk& talk, LineReader& reader) {
  const auto line = reader.read_message(talk.prompt());
  if (!line) return false;
  if (line->find_first_not_of(" \t\n") == std::string::npos) return true;
  Result<bool> going_on = true;
  if (is_command(*line)) {
    going_on = talk.command(*line);
  } else if (const Status answered = talk.say(*line); !answered) {
    if (answered.error().code == ErrorCode::kUnsupported) return std::unexpected(answered.error());
    going_on = std::unexpected(answered.error());
  }
  if (going_on) return going_on;
  if (!talk.usable()) return going_on;
  context.console->error(going_on.error().message);
  return true;
}

}  // namespace

void add_talk_options(CLI::App& command, TalkSession& session) {
  command
      .add_option("MODEL", session.model,
                  "a folder with safetensors, a .gguf file, or the name of a downloaded model")
      ->type_name("PATH")
      ->required();
  command.add_option("--load", session.load,
                     "go on with a conversation that was kept: its name or number");
  command.add_flag("--no-keep", session.no_keep,
                   "keep nothing of what is said, unless a command asks for it");
  add_agent_options(command, session.talk.agent);
  add_generation_options(command, session.talk.generation);
  add_engine_options(command, session.talk.engine);
}

Result<std::unique_ptr<Talk>> open_talk(Context& context, const TalkSession& session, bool terminal,
                                        bool tools_first) {
  const GenerationArguments& generation = session.talk.generation;
  SLUICE_ASSIGN(std::string system, system_prompt(context, generation));
  SLUICE_ASSIGN(auto variables, template_variables(generation));
  auto desk = std::make_unique<AgentDesk>(context, session.talk.agent, reasoning_of(generation));
  if (tools_first) SLUICE_TRY(desk->open());
  SLUICE_ASSIGN(auto talking, open_talking_model(context, session.talk, session.model));
  KeptTalk kept(*context.console, user_folder("XDG_DATA_HOME", ".local/share"),
                terminal && !session.no_keep, std::move(system));
  auto talk = std::make_unique<Talk>(context, session.talk, std::move(talking), std::move(kept),
                                     std::move(desk), std::move(variables), terminal);
  if (!session.load.empty()) SLUICE_TRY(talk->load_conversation(session.load));
  return talk;
}

Result<int> talk_until_quit(Context& context, const TalkSession& session, bool tools_first) {
  const bool terminal = isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1;
  SLUICE_ASSIGN(const auto talk, open_talk(context, session, terminal, tools_first));
  if (terminal) context.print("/help tells what else one can type\n");
  LineReader reader(terminal, history_path(session.talk.requests), command_names());
  for (;;) {
    SLUICE_ASSIGN(const bool going_on, exchange(context, *talk, reader));
    if (going_on) continue;
    SLUICE_TRY(talk->finish());
    return kExitSuccess;
  }
}

}  // namespace sluice::cli
