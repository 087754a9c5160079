// Conversations on disk: trees, branches, two processes at once, damage, and files of other kinds.
#include "chat/chat_store.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace sluice::chat {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ChatStoreTest : public ::testing::Test {
 protected:
  ChatStoreTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "chat-store-XXXXXX").string();
    SLUICE_CHECK(mkdtemp(pattern.data()) != nullptr);
    folder_ = pattern;
    path_ = folder_ / "deep" / "chats.db";
  }
  ~ChatStoreTest() override { std::filesystem::remove_all(folder_); }

  ChatStore open() {
    auto store = ChatStore::open(path_.string());
    SLUICE_CHECK(store.has_value());
    return std::move(*store);
  }

  static std::vector<Message> exchange(const std::string& question, const std::string& answer) {
    return {{.role = Role::kUser, .content = question},
            {.role = Role::kAssistant, .content = answer, .reasoning = "because"}};
  }

  static std::vector<std::string> contents(const std::vector<StoredMessage>& line) {
    std::vector<std::string> texts;
    for (const StoredMessage& entry : line) texts.push_back(entry.message.content);
    return texts;
  }

  std::filesystem::path folder_, path_;
};

TEST_F(ChatStoreTest, KeepsWhatWasSaidAndBranches) {
  int64_t talk = 0, first = 0;
  {
    ChatStore store = open();
    talk = *store.create("model-a", "Be brief.");
    const auto ids = store.append(talk, "main", 0, 0, exchange("one", "two"), "model-a");
    ASSERT_TRUE(ids) << ids.error().message;
    first = ids->back();
    ASSERT_TRUE(store.add_branch(talk, "aside", first));
    ASSERT_TRUE(store.append(talk, "aside", first, first, exchange("three", "four"), "model-b"));
    ASSERT_TRUE(store.rename(talk, "trip"));
    ASSERT_TRUE(store.rate(first, -1, "too short"));
  }
  ChatStore store = open();
  EXPECT_EQ(*store.find("trip"), talk);
  EXPECT_EQ(*store.find(std::to_string(talk)), talk);
  EXPECT_EQ(*store.system(talk), "Be brief.");
  const auto main_line = *store.timeline(talk, *store.tip(talk, "main"));
  EXPECT_THAT(contents(main_line), ElementsAre("one", "two"));
  EXPECT_EQ(main_line[1].rating, -1);
  EXPECT_EQ(main_line[1].message.reasoning, "because");
  EXPECT_THAT(contents(*store.timeline(talk, *store.tip(talk, "aside"))),
              ElementsAre("one", "two", "three", "four"));
  const auto list = *store.list(10);
  ASSERT_EQ(list.size(), 1u);
  EXPECT_EQ(list[0].opening, "one");
  EXPECT_EQ(list[0].model, "model-b");
  EXPECT_EQ(list[0].messages, 4);
}

TEST_F(ChatStoreTest, GoingBackLosesNothing) {
  ChatStore store = open();
  const int64_t talk = *store.create("m", "");
  const int64_t first = store.append(talk, "main", 0, 0, exchange("a", "b"), "m")->back();
  const int64_t second = store.append(talk, "main", first, first, exchange("c", "d"), "m")->back();
  EXPECT_EQ(*store.move_branch(talk, "main", first), "main-1");
  EXPECT_EQ(*store.tip(talk, "main"), first);
  EXPECT_EQ(*store.tip(talk, "main-1"), second);
  const int64_t third = store.append(talk, "main", first, first, exchange("e", "f"), "m")->back();
  EXPECT_EQ(*store.move_branch(talk, "main", first), "main-2");
  EXPECT_THAT(contents(*store.timeline(talk, third)), ElementsAre("a", "b", "e", "f"));
  // Held by a branch already: no further one is made.
  ASSERT_TRUE(store.move_branch(talk, "main", second));
  EXPECT_EQ(*store.move_branch(talk, "main", first), "main-1");
  EXPECT_EQ(store.branches(talk)->size(), 3u);
}

TEST_F(ChatStoreTest, TwoAtOnceDoNotOverwriteEachOther) {
  ChatStore mine = open(), theirs = open();
  const int64_t talk = *mine.create("m", "");
  ASSERT_TRUE(mine.append(talk, "main", 0, 0, exchange("a", "b"), "m"));
  const auto late = theirs.append(talk, "main", 0, 0, exchange("x", "y"), "m");
  ASSERT_FALSE(late);
  EXPECT_THAT(late.error().message, HasSubstr("another process has gone on with branch main"));
  // Nothing of it was written.
  EXPECT_EQ(theirs.list(10)->at(0).messages, 2);
}

TEST_F(ChatStoreTest, RefusesNamesThatAreTaken) {
  ChatStore store = open();
  const int64_t a = *store.create("m", ""), b = *store.create("m", "");
  ASSERT_TRUE(store.rename(a, "talk"));
  EXPECT_THAT(store.rename(b, "talk").error().message, HasSubstr("another conversation"));
  ASSERT_TRUE(store.rename(a, "talk"));
  ASSERT_TRUE(store.add_branch(a, "x", 0));
  EXPECT_EQ(store.add_branch(a, "x", 0).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(store.find("nobody").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(store.tip(a, "nowhere").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(store.rate(99, 1, "").error().code, ErrorCode::kNotFound);
}

TEST_F(ChatStoreTest, DamageIsAnErrorThatNamesTheFile) {
  {
    ChatStore store = open();
    const int64_t talk = *store.create("m", "");
    ASSERT_TRUE(store.append(talk, "main", 0, 0, exchange("a", "b"), "m"));
  }
  std::ofstream(path_, std::ios::binary) << "no database at all, but some text of enough length";
  auto opened = ChatStore::open(path_.string());
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(opened.error().message, HasSubstr(path_.string() + " is no database"));
}

TEST_F(ChatStoreTest, ForeignAndLaterFilesAreLeftAlone) {
  std::filesystem::create_directories(path_.parent_path());
  {
    auto other = Database::open(path_.string());
    ASSERT_TRUE(other);
    ASSERT_TRUE(other->script("CREATE TABLE t (x)"));
  }
  EXPECT_THAT(ChatStore::open(path_.string()).error().message, HasSubstr("another program's"));
  std::filesystem::remove(path_);
  static_cast<void>(open());
  {
    auto later = Database::open(path_.string());
    ASSERT_TRUE(later->script("PRAGMA user_version = 2"));
  }
  EXPECT_EQ(ChatStore::open(path_.string()).error().code, ErrorCode::kUnsupported);
}

TEST_F(ChatStoreTest, HostileRowsAreRefused) {
  ChatStore store = open();
  const int64_t talk = *store.create("m", "");
  const int64_t tip = store.append(talk, "main", 0, 0, exchange("a", "b"), "m")->back();
  auto database = Database::open(path_.string());
  ASSERT_TRUE(database->run("UPDATE message SET body = '{\"role\": 5}' WHERE id = ?", {tip}));
  EXPECT_EQ(store.timeline(talk, tip).error().code, ErrorCode::kCorrupt);
  ASSERT_TRUE(database->run("UPDATE message SET parent = ? WHERE id = ?", {tip, tip}));
  const auto circle = store.timeline(talk, tip);
  ASSERT_FALSE(circle);
  EXPECT_THAT(circle.error().message, HasSubstr("does not lead to a beginning"));
}

}  // namespace
}  // namespace sluice::chat
