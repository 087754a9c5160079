// What commands that read a text share: the text cut into windows by a model's tokenizer, and scores as
// JSON and in words.
#pragma once

#include <string>
#include <vector>

#include "chat/chat_model.h"
#include "cli/context.h"
#include "evaluate/comparison.h"
#include "evaluate/windows.h"

namespace CLI {
class App;
}

namespace sluice::cli {

struct TextArguments {
  std::string text;  // a file
  std::string protocol = "llama.cpp";
  size_t windows_max = 0;  // 0: all
};
// --protocol and --windows; --text is the command's own.
void add_window_options(CLI::App& command, TextArguments& arguments);

Result<std::string> read_large_text(Context& context, const std::string& path);

// Without what the tokenizer itself puts first.
Result<std::vector<uint32_t>> tokens_of(const std::shared_ptr<runtime::Engine>& engine,
                                        const std::string& text);

Result<std::vector<evaluate::Window>> windows_of(Context& context, const TextArguments& arguments,
                                                 uint64_t context_tokens,
                                                 const chat::ChatModel& model);

Json estimate_json(const evaluate::Estimate& estimate);
Json perplexity_json(const evaluate::Perplexity& found);
// "17.4375  (95 %: 16.9201 to 17.9707)".
std::string interval_text(const evaluate::Estimate& estimate, int digits);
evaluate::Estimate in_percent(const evaluate::Estimate& share);

}  // namespace sluice::cli
