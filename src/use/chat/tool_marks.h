// The marks of each family's calls, for the parser, the grammar and the choice of special tokens.
#pragma once

#include <span>
#include <string_view>

#include "chat/tool_calls.h"

namespace sluice::chat {

// What a call, or a block of several, lies between. close: empty where it goes on to the end of the
// text.
struct ToolBlock {
  std::string_view open, close;
};
std::span<const ToolBlock> tool_blocks(ToolFamily family);

namespace marks {
inline constexpr std::string_view kMistral = "[TOOL_CALLS]", kMistralArgs = "[ARGS]",
                                  kMistralId = "[CALL_ID]";
inline constexpr std::string_view kDeepseekBegin = "<｜tool▁call▁begin｜>",
                                  kDeepseekSeparator = "<｜tool▁sep｜>",
                                  kDeepseekEnd = "<｜tool▁call▁end｜>";
inline constexpr std::string_view kKimiBegin = "<|tool_call_begin|>",
                                  kKimiArguments = "<|tool_call_argument_begin|>",
                                  kKimiEnd = "<|tool_call_end|>";
inline constexpr std::string_view kStart = "<|start|>", kChannel = "<|channel|>",
                                  kConstrain = "<|constrain|>", kMessage = "<|message|>",
                                  kEnd = "<|end|>", kCall = "<|call|>", kReturn = "<|return|>";
}  // namespace marks

}  // namespace sluice::chat
