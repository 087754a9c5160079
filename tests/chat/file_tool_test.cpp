// Files inside the work folder, and every way out of it that a path can try.
#include "chat/tools/file_tool.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

namespace sluice::chat {
namespace {

namespace fs = std::filesystem;

class FileToolTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "sluice-files-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    base_ = name;
    fs::create_directories(base_ / "work" / "sub");
    put("secret", "SECRET");
    put("work/a.txt", "one\ntwo\nthree\n");
    auto folder = WorkFolder::open((base_ / "work").string());
    ASSERT_TRUE(folder) << folder.error().message;
    tool_ = std::make_unique<FileTool>(std::move(*folder));
  }
  void TearDown() override { fs::remove_all(base_); }

  void put(const std::string& path, const std::string& text) {
    std::ofstream(base_ / path) << text;
  }
  std::string get(const std::string& path) const {
    std::ifstream file(base_ / path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  Result<std::string> call(std::string_view function, const Json& arguments) {
    SLUICE_ASSIGN(const ToolPlan plan, tool_->plan(function, arguments));
    shown_ = plan.shown;
    SLUICE_ASSIGN(const ToolOutput output, plan.run(nullptr));
    return output.text;
  }

  fs::path base_;
  std::unique_ptr<FileTool> tool_;
  std::string shown_;
};

TEST_F(FileToolTest, ReadsListsAndSearches) {
  EXPECT_EQ(call("read_file", {{"path", "a.txt"}}).value(), "one\ntwo\nthree\n");
  EXPECT_EQ(call("list_files", Json::object()).value(), "a.txt 14\nsub/ 0\n");
  EXPECT_EQ(call("search_text", {{"text", "tw"}}).value(), "a.txt:2: two\n");
  EXPECT_EQ(call("search_text", {{"text", "zzz"}}).value(), "no match");
}

TEST_F(FileToolTest, EditsOnePlaceAndShowsTheDifference) {
  ASSERT_TRUE(
      call("edit_file", {{"path", "a.txt"}, {"old_text", "two"}, {"new_text", "2"}}).has_value());
  EXPECT_EQ(get("work/a.txt"), "one\n2\nthree\n");
  EXPECT_EQ(shown_, "write a.txt\n  one\n- two\n+ 2\n  three\n");
  EXPECT_FALSE(call("edit_file", {{"path", "a.txt"}, {"old_text", "e"}, {"new_text", ""}}));
  EXPECT_FALSE(call("edit_file", {{"path", "a.txt"}, {"old_text", ""}, {"new_text", "x"}}));
}

TEST_F(FileToolTest, WritesNewFilesAndKeepsModes) {
  ASSERT_TRUE(call("write_file", {{"path", "new/deep/b"}, {"text", "x"}}));
  EXPECT_EQ(get("work/new/deep/b"), "x");
  ASSERT_EQ(::chmod((base_ / "work/a.txt").c_str(), 04750), 0);
  ASSERT_TRUE(call("write_file", {{"path", "a.txt"}, {"text", "x"}}));
  struct stat about{};
  ASSERT_EQ(::stat((base_ / "work/a.txt").c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 07777, 0750u);
}

TEST_F(FileToolTest, WhatChangedAfterApprovalIsNotOverwritten) {
  const auto plan = tool_->plan("write_file", {{"path", "a.txt"}, {"text", "mine"}});
  ASSERT_TRUE(plan);
  put("work/a.txt", "theirs");
  EXPECT_FALSE(plan->run(nullptr));
  EXPECT_EQ(get("work/a.txt"), "theirs");
}

TEST_F(FileToolTest, NoPathLeadsOut) {
  fs::create_symlink(base_ / "secret", base_ / "work/link");
  fs::create_symlink(base_, base_ / "work/up");
  fs::create_symlink("..", base_ / "work/sub/dots");
  fs::create_symlink("/proc/self/root", base_ / "work/root");
  fs::create_symlink("link", base_ / "work/chain");
  ASSERT_EQ(::mkfifo((base_ / "work/pipe").c_str(), 0600), 0);
  const std::string absolute = (base_ / "secret").string();
  const std::vector<std::string> paths = {"../secret",
                                          "sub/../../secret",
                                          "./../secret",
                                          "sub/./../../secret",
                                          "..",
                                          "sub/..",
                                          absolute,
                                          "/" + absolute,
                                          "/etc/passwd",
                                          "//etc/passwd",
                                          "link",
                                          "chain",
                                          "./link",
                                          "up/secret",
                                          "up//secret",
                                          "sub/dots/../secret",
                                          "sub/dots/a.txt",
                                          "root/etc/passwd",
                                          "pipe",
                                          "/proc/self/environ",
                                          "/dev/stdin",
                                          std::string("a.txt\0/../../secret", 19),
                                          std::string(5000, 'a'),
                                          "a.txt/../../secret",
                                          "a.txt/x",
                                          "",
                                          ".",
                                          "/",
                                          "sub",
                                          "link/"};
  for (const std::string& path : paths) {
    EXPECT_FALSE(call("read_file", {{"path", path}})) << path;
    EXPECT_FALSE(call("write_file", {{"path", path}, {"text", "BROKEN"}})) << path;
  }
  EXPECT_EQ(get("secret"), "SECRET");
  for (const char* path : {"up", "..", "sub/dots", "root", "/"})
    EXPECT_FALSE(call("list_files", {{"path", path}})) << path;
  EXPECT_EQ(call("search_text", {{"text", "SECRET"}}).value(), "no match");
}

TEST_F(FileToolTest, LinksMadeMeanwhileLeadNowhere) {
  fs::create_directories(base_ / "outside");
  put("outside/f", "SECRET");
  fs::create_directories(base_ / "work/real");
  put("work/real/f", "fine");
  std::atomic<bool> stop = false;
  std::thread racer([&] {
    const auto path = base_ / "work/d";
    while (!stop) {
      std::error_code ignored;
      fs::rename(base_ / "work/real", path, ignored);
      fs::rename(path, base_ / "work/real", ignored);
      fs::create_symlink(base_ / "outside", path, ignored);
      fs::remove(path, ignored);
    }
  });
  for (int i = 0; i < 3000; ++i) {
    const auto text = call("read_file", {{"path", "d/f"}});
    EXPECT_EQ(text.value_or("fine"), "fine");
  }
  stop = true;
  racer.join();
}

TEST(WorkFolder, RefusesTooMuch) {
  EXPECT_FALSE(WorkFolder::open("/"));
  EXPECT_FALSE(WorkFolder::open("/usr/.."));
  EXPECT_FALSE(WorkFolder::open("/no/such/folder"));
  EXPECT_FALSE(WorkFolder::open("/etc/passwd"));
}

TEST(ChangedLines, AtBothEnds) {
  EXPECT_EQ(changed_lines("", "a\n"), "+ a\n");
  EXPECT_EQ(changed_lines("a\n", ""), "- a\n");
  EXPECT_EQ(changed_lines("a\nb\n", "a\nc\nb\n"), "  a\n+ c\n  b\n");
}

}  // namespace
}  // namespace sluice::chat
