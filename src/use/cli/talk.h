// A conversation with a model on the terminal: what is asked and answered, and what the commands of
// `sluice chat` do to it. How lines are read is chat_command's business.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "cli/agent_desk.h"
#include "cli/kept_talk.h"
#include "cli/talking_model.h"

namespace sluice::cli {

// One thread.
class Talk {
 public:
  // terminal: both standard input and output are one.
  Talk(Context& context, const TalkArguments& arguments, std::unique_ptr<TalkingModel> talking,
       KeptTalk kept, std::unique_ptr<AgentDesk> desk, std::map<std::string, std::string> variables,
       bool terminal);

  // A message, or a request where TalkArguments says so. Errors leave the conversation as it was.
  Status say(const std::string& text);
  // Done with tools. Returns chat::AgentRun::finish_reason.
  Result<std::string> do_request(const std::string& text);
  // A line that is_command(). False ends the conversation.
  Result<bool> command(const std::string& line);

  // False where /model left none at all.
  bool usable() const { return talking_ != nullptr; }
  // "> " or "agent> ", with the branch's name before it unless it is the first one.
  std::string prompt() const;
  Status load_conversation(const std::string& name);
  // Behind the last command.
  Status finish();

 private:
  struct Command;
  static const Command kCommands[];

  friend std::vector<std::string> command_names();

  // What a model writes behind these messages.
  struct Written {
    std::string answer, thoughts;
    chat::Generation generation;
  };
  Result<std::vector<uint32_t>> tokens_of(std::span<const chat::Message> messages,
                                          std::string* text) const;
  Result<Written> write(std::span<const chat::Message> messages, runtime::Sampler& sampler,
                        size_t tokens_max);
  Status answer(const std::string& text);
  Result<std::vector<chat::Message>> to_summarize();
  Status keep_answer(size_t keep_count, std::vector<chat::Message> messages, Written written);
  void show_messages(size_t first) const;
  void show_last_exchange() const;
  bool draws_busy() const;
  bool draws_markdown() const { return terminal_ && !raw_; }
  std::string kept_note(const std::string& branch) const;
  Status reuse_session(const std::string& path);

  // One for each command; rest: what follows its name, without spaces around.
  Result<bool> on_help(const std::string& rest);
  Result<bool> on_agent(const std::string& rest);
  Result<bool> on_search(const std::string& rest);
  Result<bool> on_stats(const std::string& rest);
  Result<bool> on_model(const std::string& rest);
  Result<bool> on_system(const std::string& rest);
  Result<bool> on_clear(const std::string& rest);
  Result<bool> on_compact(const std::string& rest);
  Result<bool> on_save(const std::string& rest);
  Result<bool> on_load(const std::string& rest);
  Result<bool> on_branch(const std::string& rest);
  Result<bool> on_restore(const std::string& rest);
  Result<bool> on_retry(const std::string& rest);
  Result<bool> on_good(const std::string& rest);
  Result<bool> on_bad(const std::string& rest);
  Result<bool> on_raw(const std::string& rest);
  Result<bool> on_bench(const std::string& rest);
  Result<bool> on_quit(const std::string& rest);

  Status save_file(const std::string& path);
  Status load_file(const std::string& path);
  Result<bool> list_conversations();
  Result<bool> list_branches();

  Context& context_;
  const TalkArguments& arguments_;
  std::unique_ptr<TalkingModel> talking_;
  KeptTalk kept_;
  const std::unique_ptr<AgentDesk> desk_;  // opened when it is first needed
  tokenizer::ChatInput input_;             // all but the messages
  const bool terminal_;
  bool raw_ = false;
  uint64_t retries_ = 0;
  std::optional<chat::Generation> last_;
};

// Where the last exchange begins: at the last that the user said, as tools may have come between.
size_t last_exchange(std::span<const chat::Message> messages);

// "/word", alone or before a space: a path is none.
bool is_command(const std::string& line);
// With their slashes, in the order of /help.
std::vector<std::string> command_names();

}  // namespace sluice::cli
