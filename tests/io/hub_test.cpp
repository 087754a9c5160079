// hf:// addresses, the pages of a hub that mean the same, and where downloaded models are found.
#include "io/hub.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "io/model_location.h"

namespace sluice::io {
namespace {

namespace fs = std::filesystem;

TEST(HubAddress, Parts) {
  const auto address = [](std::string_view text) {
    const auto found = parse_hub_address(text);
    EXPECT_TRUE(found.has_value()) << text << ": " << (found ? "" : found.error().message);
    return found.value_or(HubAddress());
  };
  EXPECT_EQ(address("hf://org/name"), (HubAddress{"org/name", "main", ""}));
  EXPECT_EQ(address("org/name/"), (HubAddress{"org/name", "main", ""}));
  EXPECT_EQ(address("hf://gpt2"), (HubAddress{"gpt2", "main", ""}));
  EXPECT_EQ(address("hf://org/na.me_1-x@v1.0"), (HubAddress{"org/na.me_1-x", "v1.0", ""}));
  EXPECT_EQ(address("hf://org/name/a/b"), (HubAddress{"org/name", "main", "a/b"}));
  EXPECT_EQ(address("hf://org/name@dev/a/b"), (HubAddress{"org/name", "dev", "a/b"}));
  EXPECT_EQ(address("hf://org/name@refs/pr/7/a"), (HubAddress{"org/name", "refs/pr/7", "a"}));
  EXPECT_EQ(address("hf://org/name@feature%2Fx/a"), (HubAddress{"org/name", "feature/x", "a"}));
  for (const char* text : {"hf://org/name", "hf://org/name@v1/a/b", "hf://org/name@refs%2Fpr%2F7"})
    EXPECT_EQ(address(text).text(), text);
}

TEST(HubAddress, Refused) {
  for (const char* text : {"",
                           "hf://",
                           "hf:///",
                           "hf://@main",
                           "hf://org/name@",
                           "hf://org/name@/",
                           "hf://org/..",
                           "hf://../name",
                           "hf://org/name/../x",
                           "hf://org/name@../x",
                           "hf://org/name@a%2F..%2Fb",
                           "hf://or g/name",
                           "hf://org/na?me",
                           "hf://org/na#me",
                           "hf://.org/name",
                           "hf://org/-name",
                           "hf://org/na--me",
                           "hf://org/name@%zz",
                           "hf://org/name/a@b",
                           "hf://org/name/\x01"}) {
    const auto found = parse_hub_address(text);
    ASSERT_FALSE(found.has_value()) << text << " is " << found->text();
    EXPECT_EQ(found.error().code, ErrorCode::kInvalidArgument);
  }
  EXPECT_FALSE(parse_hub_address("hf://org/" + std::string(200, 'a')).has_value());
}

TEST(HubAddress, PagesOfABrowser) {
  const Url endpoint = parse_url("https://huggingface.co").value();
  const auto page = [&](std::string_view text) -> std::string {
    const auto found = hub_page_address(parse_url(text).value(), endpoint);
    return found ? found->text() : "none";
  };
  EXPECT_EQ(page("https://huggingface.co/org/name"), "hf://org/name");
  EXPECT_EQ(page("https://huggingface.co/org/name/"), "hf://org/name");
  EXPECT_EQ(page("https://huggingface.co/org/name/tree/v2/sub"), "hf://org/name@v2/sub");
  EXPECT_EQ(page("https://huggingface.co/org/name/tree/main"), "hf://org/name");
  EXPECT_EQ(page("https://huggingface.co/org/name/resolve/main/x.gguf"), "none");
  EXPECT_EQ(page("https://huggingface.co/datasets/org"), "none");
  EXPECT_EQ(page("https://huggingface.co.evil.com/org/name"), "none");
  EXPECT_EQ(page("http://huggingface.co/org/name"), "none");
}

class Downloaded : public ::testing::Test {
 protected:
  Downloaded() : root_(fs::temp_directory_path() / fmt::format("sluice-hub-{}", getpid())) {
    fs::create_directories(root_);
    variables_["HOME"] = root_.string();
  }
  ~Downloaded() override { fs::remove_all(root_); }

  void write(const fs::path& path, std::string_view text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  ModelPlaces places() {
    return model_places([this](const char* name) -> const char* {
      const auto found = variables_.find(name);
      return found == variables_.end() ? nullptr : found->second.c_str();
    });
  }
  std::string find(std::string_view name) {
    const auto found = find_downloaded(name, places());
    return found ? fs::path(*found).lexically_relative(root_).string() : "none";
  }

  const fs::path root_;
  std::map<std::string, std::string> variables_;
  NullLog log_;
};

TEST_F(Downloaded, HuggingFaceCache) {
  const std::string model = ".cache/huggingface/hub/models--org--na-me";
  write(model + "/refs/main", "abc123\n");
  write(model + "/refs/v1", "def456");
  write(model + "/snapshots/abc123/config.json", "{}");
  write(model + "/snapshots/def456/config.json", "{}");
  EXPECT_EQ(find("org/na-me"), model + "/snapshots/abc123");
  EXPECT_EQ(find("org/na-me@v1"), model + "/snapshots/def456");
  EXPECT_EQ(find("org/na-me@def456"), model + "/snapshots/def456");
  for (const char* name : {"org/other", "org/na-me@v2", "org/na-me@..", "na-me", "org/../org", ""})
    EXPECT_EQ(find(name), "none") << name;
  // A damaged reference must not lead out of the folder.
  write(model + "/refs/main", "../../..");
  EXPECT_EQ(find("org/na-me"), "none");
}

TEST_F(Downloaded, PlacesFollowTheEnvironment) {
  write("elsewhere/models--org--name/refs/main", "abc");
  write("elsewhere/models--org--name/snapshots/abc/config.json", "{}");
  EXPECT_EQ(find("org/name"), "none");
  variables_["HF_HUB_CACHE"] = (root_ / "elsewhere").string();
  EXPECT_EQ(find("org/name"), "elsewhere/models--org--name/snapshots/abc");
  variables_.erase("HF_HUB_CACHE");
  fs::create_directories(root_ / "home");
  fs::rename(root_ / "elsewhere", root_ / "home" / "hub");
  variables_["HF_HOME"] = (root_ / "home").string();
  EXPECT_EQ(find("org/name"), "home/hub/models--org--name/snapshots/abc");
}

TEST_F(Downloaded, LmStudio) {
  write(".lmstudio/models/org/name/config.json", "{}");
  write(".cache/lm-studio/models/org/older/config.json", "{}");
  EXPECT_EQ(find("org/name"), ".lmstudio/models/org/name");
  EXPECT_EQ(find("org/older"), ".cache/lm-studio/models/org/older");
  EXPECT_EQ(find("org/name@v1"), "none");
}

TEST_F(Downloaded, WhatIsNotThereIsSaidHowToGet) {
  const auto path = local_model_path("org/name", places(), log_);
  ASSERT_FALSE(path.has_value());
  EXPECT_EQ(path.error().code, ErrorCode::kNotFound);
  EXPECT_NE(path.error().message.find("hf://org/name would fetch it"), std::string::npos);
  EXPECT_NE(path.error().message.find("/hub"), std::string::npos) << path.error().message;
  // A path stays one, there or not.
  EXPECT_EQ(local_model_path("./org/name/x", places(), log_).value(), "./org/name/x");
  const auto remote = local_model_path("hf://org/name", places(), log_);
  ASSERT_FALSE(remote.has_value());
  EXPECT_NE(remote.error().message.find("sluice pull"), std::string::npos);
}

TEST_F(Downloaded, TokensGoWhereNobodyCanReadThem) {
  EXPECT_EQ(places().endpoint, "https://huggingface.co");
  EXPECT_EQ(places().http.token, "");
  variables_["HF_TOKEN"] = " hf_abc\n";
  EXPECT_EQ(places().http.token, "hf_abc");
  EXPECT_EQ(places().http.token_origin, "https://huggingface.co");
  variables_["HF_ENDPOINT"] = "http://hub.example.com";
  EXPECT_EQ(places().http.token_origin, "");
  variables_["HF_ENDPOINT"] = "http://127.0.0.1:8080/";
  EXPECT_EQ(places().http.token_origin, "http://127.0.0.1:8080");
  variables_["HF_TOKEN"] = "a\r\nX-Other: b";
  EXPECT_EQ(places().http.token, "");
  variables_.erase("HF_TOKEN");
  write(".cache/huggingface/token", "hf_from_file\n");
  EXPECT_EQ(places().http.token, "hf_from_file");
}

}  // namespace
}  // namespace sluice::io
