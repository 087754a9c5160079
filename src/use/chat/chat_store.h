// Conversations on disk: a tree of messages for each, and branches that name places in it. Nothing
// that was said is ever lost by going back: an answer that was made anew stays beside the new one.
// One SQLite file, which several processes may use at once; a crash leaves what was committed.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "chat/conversation.h"
#include "chat/sqlite.h"

namespace sluice::chat {

inline constexpr std::string_view kFirstBranch = "main";

struct StoredMessage {
  int64_t id = 0;
  Message message;
  int rating = 0;  // 1: good, −1: bad, 0: not rated
};

struct ConversationSummary {
  int64_t id = 0;
  std::string name;                     // empty: it was given none
  std::string model;                    // of the last answer
  std::string opening;                  // how the first message of the user begins
  int64_t messages = 0, changed_s = 0;  // all of the tree; Unix time
};

struct BranchSummary {
  std::string name;
  int64_t tip = 0;  // 0: at the very beginning
  int64_t messages = 0;
};

// One thread.
class ChatStore {
 public:
  // Creates folders and file as needed. kCorrupt for a file that is damaged or another program's,
  // kUnsupported for one of a later version; kIo.
  static Result<ChatStore> open(const std::string& path);

  const std::string& path() const { return database_.path(); }

  Result<int64_t> create(const std::string& model, const std::string& system);
  // Newest first.
  Result<std::vector<ConversationSummary>> list(size_t count_max);
  // By its name, else by its number as a text. kNotFound.
  Result<int64_t> find(const std::string& name);
  Result<std::string> system(int64_t conversation);
  Result<std::string> name(int64_t conversation);
  // kInvalidArgument when another conversation has that name.
  Status rename(int64_t conversation, const std::string& name);
  Status set_system(int64_t conversation, const std::string& system);

  // Puts messages one behind the other behind parent (0: the beginning) and moves the branch to
  // the last of them; returns their ids. The branch must be where it was known to be
  // (expected_tip), else nothing is written: kInvalidArgument, as another process has moved it
  // meanwhile.
  Result<std::vector<int64_t>> append(int64_t conversation, const std::string& branch,
                                      int64_t expected_tip, int64_t parent,
                                      std::span<const Message> messages, const std::string& model);
  // Where a branch ends, 0 for the beginning. kNotFound.
  Result<int64_t> tip(int64_t conversation, const std::string& branch);
  // The messages from the beginning to this one. kCorrupt.
  Result<std::vector<StoredMessage>> timeline(int64_t conversation, int64_t tip);
  // A new branch at this place. kInvalidArgument when there is one of that name.
  Status add_branch(int64_t conversation, const std::string& name, int64_t tip);
  // Moves a branch. Where it was before is kept as a branch of its own, unless another one leads
  // through it: returns that one's name; "" when the branch itself still does.
  Result<std::string> move_branch(int64_t conversation, const std::string& name, int64_t tip);
  // Where the branch began.
  Result<int64_t> branch_start(int64_t conversation, const std::string& name);
  // The branch whose end was said last.
  Result<BranchSummary> last_branch(int64_t conversation);
  // "name-1", or a higher number.
  Result<std::string> free_branch_name(int64_t conversation, const std::string& name);
  Result<std::vector<BranchSummary>> branches(int64_t conversation);

  // note: what was said with it.
  Status rate(int64_t message, int rating, const std::string& note);

 private:
  struct BranchPlaces {
    int64_t start = 0, tip = 0;
  };
  Result<BranchPlaces> places(int64_t conversation, const std::string& branch);
  explicit ChatStore(Database database) : database_(std::move(database)) {}
  Status prepare();
  Result<bool> leads_through(int64_t conversation, int64_t tip, int64_t message);
  Result<std::string> holder(int64_t conversation, const std::string& name, int64_t message);

  Database database_;
};

}  // namespace sluice::chat
