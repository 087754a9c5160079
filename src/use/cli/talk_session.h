// What `sluice chat` and `sluice agent` share: their options, and the talk from the first line to
// the last.
#pragma once

#include <string>

#include "cli/talk.h"

namespace sluice::cli {

struct TalkSession {
  std::string model, load;
  bool no_keep = false;
  TalkArguments talk;
};

void add_talk_options(CLI::App& command, TalkSession& session);

// Opens model and conversation. tools_first: what the agent needs is opened before the model.
Result<std::unique_ptr<Talk>> open_talk(Context& context, const TalkSession& session, bool terminal,
                                        bool tools_first);

// Lines of standard input, until it ends or a command says so. What goes wrong with one is said,
// and the talk goes on, unless the model cannot be used at all.
Result<int> talk_until_quit(Context& context, const TalkSession& session, bool tools_first);

}  // namespace sluice::cli
