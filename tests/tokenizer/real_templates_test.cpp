// Chat templates of real models against their renderings by Python's Jinja, set up as transformers
// does. Skips without the real-input folder.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tokenizer/chat_template.h"
#include "tokenizer/real_inputs.h"

namespace sluice::tokenizer {
namespace {

using testing::read_text;
using testing::real_inputs;
using OrderedJson = nlohmann::ordered_json;

std::tm moment(const std::string& text) {
  std::tm time{};
  EXPECT_EQ(std::sscanf(text.c_str(), "%d-%d-%d %d:%d:%d", &time.tm_year, &time.tm_mon,
                        &time.tm_mday, &time.tm_hour, &time.tm_min, &time.tm_sec),
            6);
  time.tm_year -= 1900;
  time.tm_mon -= 1;
  return time;
}

ChatInput input_of(const OrderedJson& given, const OrderedJson& fixed) {
  ChatInput input;
  for (const auto& [name, value] : given.items()) {
    if (name == "messages") {
      input.messages = value.dump();
    } else if (name == "tools") {
      input.tools = value.dump();
    } else if (name == "add_generation_prompt") {
      input.add_generation_prompt = value.get<bool>();
    } else {
      input.variables[name] = value.dump();
    }
  }
  for (const auto& [name, value] : fixed.items())
    if (name != "strftime_now") input.variables[name] = value.dump();
  input.now = moment(fixed.at("strftime_now").get<std::string>());
  return input;
}

// What Jinja raised: the sentence behind the exception's name.
std::string sentence(const std::string& error) { return error.substr(error.find(": ") + 2); }

TEST(RealTemplates, RenderAsInPython) {
  const auto folder = real_inputs("templates");
  if (!folder) GTEST_SKIP() << "SLUICE_REAL_INPUTS is not set";
  const auto all = OrderedJson::parse(read_text(*folder / "expected.json"));
  size_t texts = 0, errors = 0, failed = 0;
  for (const auto& [file, cases] : all.at("expected").items()) {
    const std::string source = read_text(*folder / file);
    const auto opened = ChatTemplate::open({.chat_template = source});
    EXPECT_TRUE(opened) << file << ": " << (opened ? "" : opened.error().message);
    if (!opened) continue;
    for (const auto& [name, expected] : cases.items()) {
      const auto text = opened->render(input_of(all.at("cases").at(name), all.at("fixed")));
      if (expected.contains("text")) {
        const bool same = text && *text == expected.at("text").get<std::string>();
        EXPECT_TRUE(same) << file << " " << name << "\n"
                          << (text ? *text : "error: " + text.error().message) << "\nexpected\n"
                          << expected.at("text").get<std::string>();
        failed += same ? 0 : 1;
        ++texts;
      } else {
        ++errors;
        const std::string reason = sentence(expected.at("error").get<std::string>());
        ASSERT_FALSE(text) << file << " " << name;
        EXPECT_EQ(text.error().code, ErrorCode::kInvalidArgument) << file << " " << name;
        EXPECT_THAT(text.error().message, ::testing::HasSubstr(reason)) << file << " " << name;
      }
    }
  }
  std::printf("%zu renderings, %zu differ; %zu refusals\n", texts, failed, errors);
  EXPECT_EQ(texts + errors, 175u);
}

}  // namespace
}  // namespace sluice::tokenizer
