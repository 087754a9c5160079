#include "chat/chat_model.h"

#include <algorithm>

namespace sluice::chat {
namespace {

// A small file's text; empty where the model has none.
Result<std::string> optional_file(const runtime::Engine& engine, std::string_view name) {
  auto text = engine.sidecar(name);
  if (!text && text.error().code == ErrorCode::kNotFound) return std::string();
  return text;
}

struct Files {
  std::string tokenizer_config, special_tokens_map, generation_config, config, chat_template;
};

Result<Files> read_files(const runtime::Engine& engine, std::string_view template_text) {
  Files files;
  SLUICE_ASSIGN(files.tokenizer_config, optional_file(engine, "tokenizer_config.json"));
  SLUICE_ASSIGN(files.special_tokens_map, optional_file(engine, "special_tokens_map.json"));
  if (!engine.generation_config().is_null())
    files.generation_config = dump_json(engine.generation_config());
  files.config = dump_json(engine.config());
  files.chat_template = template_text;
  if (template_text.empty()) {
    SLUICE_ASSIGN(files.chat_template, optional_file(engine, "chat_template.jinja"));
  }
  return files;
}

}  // namespace

bool ChatModel::ends_text(uint32_t id) const { return std::ranges::binary_search(ends, id); }

Result<ChatModel> open_chat_model(std::shared_ptr<runtime::Engine> engine,
                                  std::string_view template_text) {
  SLUICE_ASSIGN(const Files files, read_files(*engine, template_text));
  SLUICE_ASSIGN(const std::string tokenizer_json, engine->sidecar("tokenizer.json"));
  SLUICE_ASSIGN(
      auto tokenizer,
      tokenizer::Tokenizer::open({tokenizer_json, files.tokenizer_config, files.special_tokens_map,
                                  files.generation_config, files.config}));
  auto chat_template = tokenizer::ChatTemplate::open(
      {files.tokenizer_config, files.special_tokens_map, files.chat_template, {}});
  if (!chat_template && !template_text.empty()) return std::unexpected(chat_template.error());
  std::vector<uint32_t> ends = engine->info().eos;
  ends.insert(ends.end(), tokenizer.special().ends.begin(), tokenizer.special().ends.end());
  std::ranges::sort(ends);
  ends.erase(std::ranges::unique(ends).begin(), ends.end());
  ChatModel model{std::move(engine), std::move(tokenizer), std::nullopt, {}, std::move(ends)};
  if (chat_template)
    model.chat_template = std::move(*chat_template);
  else
    model.template_problem = chat_template.error();
  return model;
}

Result<std::vector<uint32_t>> render_prompt(const ChatModel& model,
                                            const tokenizer::ChatInput& input, std::string* text) {
  if (!model.chat_template)
    return fail(ErrorCode::kUnsupported, "{} cannot chat: {}", model.engine->info().path,
                model.template_problem.message);
  SLUICE_ASSIGN(*text, model.chat_template->render(input));
  return model.tokenizer.encode(*text, false);
}

}  // namespace sluice::chat
