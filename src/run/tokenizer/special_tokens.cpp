#include "tokenizer/special_tokens.h"

#include "base/json.h"

namespace sluice::tokenizer {
namespace {

constexpr const char* kNames[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                  "pad_token", "cls_token", "mask_token"};

std::optional<std::string> token_text(const Json* value) {
  if (value != nullptr && value->is_object()) value = json_find(*value, "content");
  if (value == nullptr || !value->is_string()) return std::nullopt;
  return value->get<std::string>();
}

Status add_texts(SpecialTexts& texts, std::string_view file, std::string_view label) {
  if (file.empty()) return {};
  SLUICE_ASSIGN(const Json json, parse_json(file, label));
  if (!json.is_object()) return fail(ErrorCode::kCorrupt, "{}: should be a JSON object", label);
  for (const char* name : kNames)
    if (auto text = token_text(json_find(json, name))) texts.tokens.emplace(name, *text);
  const Json* additional = json_find(json, "additional_special_tokens");
  if (additional == nullptr || !additional->is_array() || !texts.additional.empty()) return {};
  for (const Json& token : *additional)
    if (auto text = token_text(&token)) texts.additional.push_back(*text);
  return {};
}

}  // namespace

std::optional<std::string> SpecialTexts::find(const std::string& name) const {
  const auto found = tokens.find(name);
  if (found == tokens.end()) return std::nullopt;
  return found->second;
}

Result<SpecialTexts> read_special_texts(std::string_view tokenizer_config,
                                        std::string_view special_tokens_map) {
  SpecialTexts texts;
  SLUICE_TRY(add_texts(texts, tokenizer_config, "tokenizer_config.json"));
  SLUICE_TRY(add_texts(texts, special_tokens_map, "special_tokens_map.json"));
  return texts;
}

}  // namespace sluice::tokenizer
