// The conversation at hand and its counterpart in the store, without a model or a terminal.
#include "cli/kept_talk.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace sluice::cli {
namespace {

using ::testing::ElementsAre;

class KeptTalkTest : public ::testing::Test {
 protected:
  KeptTalkTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "kept-talk-XXXXXX").string();
    SLUICE_CHECK(mkdtemp(pattern.data()) != nullptr);
    folder_ = pattern;
  }
  ~KeptTalkTest() override { std::filesystem::remove_all(folder_); }

  KeptTalk open(bool automatic) { return {console_, folder_.string(), automatic, "Be brief."}; }
  bool stored() const { return std::filesystem::exists(folder_ / "chats.db"); }

  static void exchange(KeptTalk& talk, const std::string& question, const std::string& answer) {
    talk.put(talk.messages().size(),
             {{.role = chat::Role::kUser, .content = question},
              {.role = chat::Role::kAssistant, .content = answer}},
             "model");
  }
  static std::vector<std::string> contents(const KeptTalk& talk) {
    std::vector<std::string> list;
    for (const chat::StoredMessage& entry : talk.messages()) list.push_back(entry.message.content);
    return list;
  }

  Console console_{true, false};
  std::filesystem::path folder_;
};

TEST_F(KeptTalkTest, IsStoredFromTheFirstCommandThatAsksForIt) {
  KeptTalk talk = open(false);
  exchange(talk, "a", "b");
  EXPECT_FALSE(stored());
  EXPECT_EQ(talk.session_path(), "");
  ASSERT_TRUE(talk.save("trip", "model"));
  exchange(talk, "c", "d");
  KeptTalk other = open(false);
  ASSERT_TRUE(other.load("trip"));
  EXPECT_THAT(contents(other), ElementsAre("a", "b", "c", "d"));
  EXPECT_EQ(other.all()[0].content, "Be brief.");
  EXPECT_EQ(other.session_path(), talk.session_path());
}

TEST_F(KeptTalkTest, AnotherAnswerTakesThePlaceOfTheLast) {
  KeptTalk talk = open(true);
  exchange(talk, "a", "b");
  ASSERT_TRUE(talk.rate(-1, "no", "model"));
  talk.put(1, {{.role = chat::Role::kAssistant, .content = "better"}}, "model");
  EXPECT_THAT(contents(talk), ElementsAre("a", "better"));
  EXPECT_EQ(talk.messages()[1].rating, 0);
  exchange(talk, "c", "d");
  KeptTalk other = open(true);
  ASSERT_TRUE(other.load("1"));
  EXPECT_THAT(contents(other), ElementsAre("a", "better", "c", "d"));
}

TEST_F(KeptTalkTest, BranchesPartAndLoseNothing) {
  KeptTalk talk = open(true);
  exchange(talk, "a", "b");
  ASSERT_TRUE(talk.branch_off("idea", "model"));
  exchange(talk, "c", "d");
  EXPECT_EQ(*talk.restore("main", "model"), "");
  EXPECT_THAT(contents(talk), ElementsAre("a", "b"));
  ASSERT_TRUE(talk.restore("idea", "model"));
  EXPECT_EQ(*talk.restore("idea", "model"), "idea-1");
  EXPECT_THAT(contents(talk), ElementsAre("a", "b"));
  EXPECT_EQ(*talk.replace({{.role = chat::Role::kUser, .content = "short"}}, "model"),
            "before-compact-1");
  EXPECT_THAT(contents(talk), ElementsAre("short"));
  ASSERT_TRUE(talk.restore("before-compact-1", "model"));
  EXPECT_THAT(contents(talk), ElementsAre("a", "b"));
  EXPECT_EQ(talk.restore("nowhere", "model").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(talk.branch(), "before-compact-1");
}

TEST_F(KeptTalkTest, BeginsAnewWithoutLosingTheOld) {
  KeptTalk talk = open(true);
  exchange(talk, "a", "b");
  talk.begin("Be long.");
  EXPECT_TRUE(talk.messages().empty());
  exchange(talk, "c", "d");
  EXPECT_EQ(talk.conversations()->size(), 2u);
  ASSERT_TRUE(talk.load("1"));
  EXPECT_EQ(talk.system(), "Be brief.");
  EXPECT_THAT(contents(talk), ElementsAre("a", "b"));
}

TEST_F(KeptTalkTest, GoesOnWhereNothingCanBeKept) {
  std::ofstream(folder_ / "chats.db") << std::string(200, 'x');
  KeptTalk talk = open(true);
  exchange(talk, "a", "b");
  exchange(talk, "c", "d");
  EXPECT_THAT(contents(talk), ElementsAre("a", "b", "c", "d"));
  EXPECT_EQ(talk.save("x", "model").error().code, ErrorCode::kCorrupt);
  KeptTalk nowhere(console_, "", true, "");
  exchange(nowhere, "a", "b");
  EXPECT_EQ(nowhere.branch_off("x", "model").error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(contents(nowhere), ElementsAre("a", "b"));
}

}  // namespace
}  // namespace sluice::cli
