// What is read off CLI11 definitions, and what may be set.
#include "cli/command_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>

#include "cli/completions.h"
#include "cli/toml.h"

namespace sluice::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CommandTree : public ::testing::Test {
 protected:
  CommandTree() {
    app_.add_flag("-q,--quiet", quiet_, "say 'nothing' [at all]: less");
    app_.footer("Examples:\n  tool work x\n  tool --version\n\nMore text.");
    CLI::App* work = app_.add_subcommand("work", "do it");
    work->add_option("INPUT", input_, "what")->required()->type_name("PATH");
    work->add_option("-o,--output", output_, "where")->required()->type_name("FOLDER");
    work->add_option("--width", width_, "how wide")->check(CLI::IsMember({2, 3}));
    work->footer("Example: tool work x");
    CLI::App* targets = work->add_option_group("one of");
    targets->require_option(1);
    targets->add_option("--size", size_, "how much");
  }
  CLI::App app_{"A tool.", "tool"};
  bool quiet_ = false;
  std::string input_, output_, size_;
  unsigned width_ = 2;
};

TEST_F(CommandTree, IsDescribed) {
  const CommandInfo tree = describe_commands(app_);
  EXPECT_EQ(tree.name, "tool");
  EXPECT_THAT(tree.examples, ElementsAre("tool work x", "tool --version"));
  ASSERT_EQ(tree.commands.size(), 1u);
  const CommandInfo& work = tree.commands[0];
  EXPECT_THAT(work.examples, ElementsAre("tool work x"));
  std::vector<std::string> names;
  for (const OptionInfo& option : work.options) names.push_back(option.names.back());
  EXPECT_THAT(names, ElementsAre("--help", "--output", "--width", "--size", "INPUT"));
  EXPECT_THAT(work.options[1].names, ElementsAre("-o", "--output"));
  EXPECT_TRUE(work.options[1].required && work.options[1].takes_path());
  EXPECT_THAT(work.options[2].choices, ElementsAre("2", "3"));
  EXPECT_FALSE(work.options[2].takes_path());
  EXPECT_FALSE(tree.options.back().takes_value());
  EXPECT_TRUE(work.options[4].positional && work.options[4].required);
}

TEST_F(CommandTree, WhatMayBeSet) {
  std::vector<std::string> names;
  for (const SettableOption& option : settable_options(app_))
    names.push_back(option.command + ":" + option.key);
  EXPECT_THAT(names, ElementsAre(":quiet", "work:width"));
}

TEST_F(CommandTree, TextIsEscapedForEveryShell) {
  const CommandInfo tree = describe_commands(app_);
  EXPECT_THAT(zsh_completion(tree), HasSubstr("[say '\\''nothing'\\'' \\[at all\\]\\: less]"));
  EXPECT_THAT(fish_completion(tree), HasSubstr("-d 'say \\'nothing\\' [at all]: less'"));
  EXPECT_THAT(bash_completion(tree), HasSubstr("work:--width) COMPREPLY=($(compgen -W '2 3'"));
}

TEST(Toml, FlatWithLines) {
  const auto entries =
      parse_toml("a = 1\nb = [\"x\", 2, true]\n\n[t]\nc = 0.5\n[t.\"two words\"]\nd = 'y'\n", "f");
  ASSERT_TRUE(entries.has_value()) << entries.error().message;
  std::vector<std::string> seen;
  for (const TomlEntry& entry : *entries)
    seen.push_back(
        fmt::format("{} {}={}", entry.line, entry.name(), entry.table ? "table" : entry.text));
  EXPECT_THAT(seen, ElementsAre("1 a=1", "2 b=x,2,true", "4 t=table", "5 t.c=0.5",
                                "6 t.\"two words\"=table", "7 t.\"two words\".d=y"));
}

TEST(Toml, ErrorsNameTheLine) {
  for (const auto& [text, line] :
       std::vector<std::pair<const char*, const char*>>{{"a = 1\na = 2\n", "f:2: "},
                                                        {"\n\nx = \n", "f:3: "},
                                                        {"a = 1\n\nb = 1979-05-27\n", "f:3: b "},
                                                        {"c = [[1]]\n", "f:1: c "},
                                                        {"[t\n", "f:1: "}}) {
    const auto entries = parse_toml(text, "f");
    ASSERT_FALSE(entries.has_value()) << text;
    EXPECT_THAT(entries.error().message, HasSubstr(line));
  }
  EXPECT_TRUE(parse_toml("", "f")->empty());
}

}  // namespace
}  // namespace sluice::cli
