// Which form real templates' calls have. Without the folder of real inputs the test skips.
#include <gtest/gtest.h>

#include "chat/tool_calls.h"
#include "tokenizer/real_inputs.h"

namespace sluice::chat {
namespace {

TEST(ToolTemplates, EachHasItsFamily) {
  const auto folder = tokenizer::testing::real_inputs("templates");
  if (!folder) GTEST_SKIP() << "no real inputs: SLUICE_REAL_INPUTS";
  const std::pair<const char*, std::string_view> kExpected[] = {
      {"Qwen-Qwen2.5-7B-Instruct", "hermes"},
      {"NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "hermes"},
      {"NVIDIA-Nemotron-Nano-v2", "hermes"},
      {"ibm-granite-granite-4.0", "hermes"},
      {"Qwen3-Coder", "xml"},
      {"StepFun3.5-Flash", "xml"},
      {"GLM-4.7-Flash", "glm"},
      {"meta-llama-Llama-3.2-3B-Instruct", "llama"},
      {"mistralai-Mistral-Nemo-Instruct-2407", "mistral-list"},
      {"Mistral-Small-3.2-24B-Instruct-2506", "mistral-name"},
      {"deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "deepseek"},
      {"Kimi-K2-Instruct", "kimi"},
      {"google-gemma-2-2b-it", "generic"},
      {"microsoft-Phi-3.5-mini-instruct", "generic"},
  };
  for (const auto& [name, family] : kExpected) {
    const std::string text =
        tokenizer::testing::read_text(*folder / (std::string(name) + ".jinja"));
    ASSERT_FALSE(text.empty()) << name;
    EXPECT_EQ(tool_family_name(ToolSyntax::of_template(text).family()), family) << name;
  }
}

// Of templates that are not among the real inputs, what tells them apart.
TEST(ToolTemplates, Parts) {
  const std::pair<std::string_view, std::string_view> kParts[] = {
      {"<|start|>assistant<|channel|>commentary to=functions.{{ name }}<|message|>", "harmony"},
      {"{{ '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + name + '<｜tool▁sep｜>' }}",
       "deepseek-bare"},
      {"{% for tool in tools %}<tool_call>", "hermes"},
      {"", "generic"},
  };
  for (const auto& [text, family] : kParts)
    EXPECT_EQ(tool_family_name(ToolSyntax::of_template(text).family()), family) << text;
}

}  // namespace
}  // namespace sluice::chat
