// Which files of a repository are downloaded.
#include "io/pull.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/push.h"

namespace sluice::io {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Patterns, StarsAndQuestionMarks) {
  for (const auto& [text, pattern] : {std::pair{"a.gguf", "*.gguf"},
                                      {"sub/a.gguf", "*.gguf"},
                                      {"abc", "a?c"},
                                      {"abc", "*"},
                                      {"", "*"},
                                      {"", ""},
                                      {"aXbXc", "a*b*c"},
                                      {"aab", "*ab"},
                                      {"m-Q4_K_M-1.gguf", "*Q4_K_M*"}})
    EXPECT_TRUE(matches_pattern(text, pattern)) << text << " " << pattern;
  for (const auto& [text, pattern] : {std::pair{"a.gguf", "*.safetensors"},
                                      {"abc", "ab"},
                                      {"abc", "a?"},
                                      {"", "?"},
                                      {"abc", ""},
                                      {"abcd", "a*c"},
                                      {"a.gguf", "A.gguf"}})
    EXPECT_FALSE(matches_pattern(text, pattern)) << text << " " << pattern;
}

TEST(Patterns, ManyStarsTakeNoTime) {
  const std::string text(2000, 'a');
  std::string pattern;
  for (int i = 0; i < 200; ++i) pattern += "*a";
  EXPECT_FALSE(matches_pattern(text, pattern + "b"));
}

HubSnapshot snapshot_of(const std::vector<std::string>& paths, const std::string& folder = "") {
  HubSnapshot snapshot;
  snapshot.address = {"org/name", std::string(40, 'a'), folder};
  for (const std::string& path : paths) snapshot.files.push_back({path, 10, "", ""});
  return snapshot;
}

std::vector<std::string> chosen(const HubSnapshot& snapshot,
                                const std::vector<std::string>& include = {}) {
  const auto files = choose_files(snapshot, include);
  if (!files) return {files.error().message};
  std::vector<std::string> paths;
  for (const HubFile& file : *files) paths.push_back(file.path);
  return paths;
}

TEST(ChooseFiles, WhatAModelNeeds) {
  EXPECT_THAT(chosen(snapshot_of({".gitattributes", "LICENSE", "config.json",
                                  "consolidated.safetensors", "model.safetensors", "onnx/m.onnx",
                                  "original/params.json", "pytorch_model.bin", "tokenizer.json"})),
              ElementsAre("LICENSE", "config.json", "model.safetensors", "tokenizer.json"));
  EXPECT_THAT(chosen(snapshot_of({"config.json", "consolidated.safetensors"})),
              ElementsAre("config.json", "consolidated.safetensors"));
  EXPECT_THAT(
      chosen(snapshot_of({"sub/config.json", "sub/model.safetensors", "sub/x/y.json"}, "sub")),
      ElementsAre("sub/config.json", "sub/model.safetensors"));
}

TEST(ChooseFiles, Gguf) {
  EXPECT_THAT(chosen(snapshot_of({"README.md", "m.gguf"})), ElementsAre("README.md", "m.gguf"));
  EXPECT_THAT(chosen(snapshot_of({"m-00001-of-00002.gguf", "m-00002-of-00002.gguf"})),
              ElementsAre("m-00001-of-00002.gguf", "m-00002-of-00002.gguf"));
  EXPECT_THAT(chosen(snapshot_of({"a.gguf", "b.gguf"})),
              ElementsAre(::testing::AllOf(HasSubstr("--include"), HasSubstr("a.gguf"))));
  EXPECT_THAT(chosen(snapshot_of({"m.gguf", "model.safetensors"})),
              ElementsAre("model.safetensors"));
  EXPECT_THAT(chosen(snapshot_of({"pytorch_model.bin", "config.json"})),
              ElementsAre(HasSubstr("no weights")));
}

TEST(ChooseFiles, Patterns) {
  const HubSnapshot snapshot = snapshot_of({"a.gguf", "b.gguf", "sub/c.json"});
  EXPECT_THAT(chosen(snapshot, {"b*", "*.json"}), ElementsAre("b.gguf", "sub/c.json"));
  EXPECT_THAT(chosen(snapshot, {"x", "y"}), ElementsAre(HasSubstr("matches x or y")));
}

}  // namespace
}  // namespace sluice::io
