// The conversation at hand and where it is kept: its messages, the branch they are on, and their
// counterpart in the store, which is opened when it is first needed.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "chat/chat_store.h"
#include "cli/console.h"

namespace sluice::cli {

// One thread.
class KeptTalk {
 public:
  // folder: where the store lies; empty: nothing can be kept. automatic: every change is kept at
  // once; else from the first command on that asks for it.
  KeptTalk(Console& console, std::string folder, bool automatic, std::string system)
      : console_(console),
        folder_(std::move(folder)),
        automatic_(automatic),
        system_(std::move(system)) {}

  const std::vector<chat::StoredMessage>& messages() const { return messages_; }
  const std::string& system() const { return system_; }
  const std::string& branch() const { return branch_; }
  // As a template takes them: the system prompt first.
  std::vector<chat::Message> all() const;

  // Begins a new conversation; the one before stays where it is kept.
  void begin(std::string system);
  void begin(std::string system, std::vector<chat::Message> messages);
  // Puts messages behind the first keep ones, in place of what followed there.
  void put(size_t keep, std::vector<chat::Message> messages, const std::string& model);

  // The rest asks for the store. Errors: its own; kInvalidArgument where nothing can be kept.
  Status branch_off(const std::string& name, const std::string& model);
  // Goes to a branch; to where it began, when it is the one at hand. Returns what became of what
  // is left behind: a branch's name, or "".
  Result<std::string> restore(const std::string& name, const std::string& model);
  Status save(const std::string& name, const std::string& model);
  Status load(const std::string& name);
  // Of the last answer.
  Status rate(int rating, const std::string& note, const std::string& model);
  // Keeps what is there under a name of its own, and begins anew with these on the same branch.
  Result<std::string> replace(std::vector<chat::Message> messages, const std::string& model);
  Result<std::vector<chat::ConversationSummary>> conversations();
  Result<std::vector<chat::BranchSummary>> branches(const std::string& model);

  // Where keys and values of this conversation lie; empty before it is kept.
  std::string session_path() const;

 private:
  Result<chat::ChatStore*> store();
  Status keep(const std::string& model);
  Status fork_off(int64_t parent, std::span<const chat::Message> messages,
                  const std::string& model);
  void use(const std::vector<chat::Message>& messages);

  Console& console_;
  const std::string folder_;
  bool automatic_;
  std::optional<chat::ChatStore> store_;
  std::string system_;
  std::string branch_ = std::string(chat::kFirstBranch);
  std::vector<chat::StoredMessage> messages_;  // id 0: not in the store
  int64_t conversation_ = 0;                   // 0: not in the store
  int64_t tip_ = 0;                            // where the store has the branch
};

}  // namespace sluice::cli
