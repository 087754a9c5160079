#include "tokenizer/tokenizer.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/json.h"
#include "tokenizer/crate_text.h"
#include "tokenizer/special_tokens.h"

namespace sluice::tokenizer {
namespace {

// These classes of `transformers` replace the file's post-processor by what add_bos_token (true
// unless said otherwise) and add_eos_token say. DeepSeek-V3's file knows nothing of its bos.
constexpr std::array<std::string_view, 8> kClassesWithFlags = {
    "LlamaTokenizer", "LlamaTokenizerFast", "CodeLlamaTokenizer", "CodeLlamaTokenizerFast",
    "GemmaTokenizer", "GemmaTokenizerFast", "CohereTokenizer",    "CohereTokenizerFast"};

bool flag(const Json& config, std::string_view key, bool otherwise) {
  const Json* value = json_find(config, key);
  return value != nullptr && value->is_boolean() ? value->get<bool>() : otherwise;
}

Result<Json> parse_object(std::string_view file, std::string_view label) {
  if (file.empty()) return Json::object();
  SLUICE_ASSIGN(Json json, parse_json(file, label));
  if (!json.is_object()) return fail(ErrorCode::kCorrupt, "{}: should be a JSON object", label);
  return json;
}

void add_once(std::vector<uint32_t>& ids, uint32_t id) {
  if (std::ranges::find(ids, id) == ids.end()) ids.push_back(id);
}

// eos_token_id is a number or a list of them; null and negative numbers mean none.
Status add_ends(std::vector<uint32_t>& ends, std::string_view file, std::string_view label) {
  SLUICE_ASSIGN(const Json json, parse_object(file, label));
  const Json* ids = json_find(json, "eos_token_id");
  if (ids == nullptr) return {};
  for (const Json& id : ids->is_array() ? *ids : Json::array({*ids})) {
    if (!id.is_number_integer())
      return fail(ErrorCode::kCorrupt, "{}: eos_token_id holds {}", label, dump_json(id));
    if (id.is_number_unsigned() && id.get<uint64_t>() <= UINT32_MAX)
      add_once(ends, id.get<uint32_t>());
  }
  return {};
}

}  // namespace

void Tokenizer::Free::operator()(const SluiceTokenizer* tokenizer) const {
  sluice_tokenizer_free(tokenizer);
}

Result<Tokenizer> Tokenizer::open(const TokenizerFiles& files) {
  Tokenizer tokenizer;
  const SluiceTokenizer* handle = nullptr;
  CrateText text;
  const int32_t code = sluice_tokenizer_open(as_bytes(files.tokenizer), &handle, text.out());
  if (auto opened = text.result(code); !opened)
    return in_context("tokenizer.json", std::move(opened).error());
  tokenizer.handle_.reset(handle);
  SLUICE_TRY(tokenizer.read_special(files));
  return tokenizer;
}

Status Tokenizer::read_special(const TokenizerFiles& files) {
  SLUICE_ASSIGN(const SpecialTexts texts,
                read_special_texts(files.tokenizer_config, files.special_tokens_map));
  const auto find = [&](const char* name) -> std::optional<uint32_t> {
    const auto text = texts.find(name);
    return text ? id(*text) : std::nullopt;
  };
  special_ = {find("bos_token"), find("eos_token"), find("unk_token"), find("pad_token"), {}};
  SLUICE_TRY(add_ends(special_.ends, files.generation_config, "generation_config.json"));
  SLUICE_TRY(add_ends(special_.ends, files.config, "config.json"));
  if (special_.eos) add_once(special_.ends, *special_.eos);

  SLUICE_ASSIGN(const Json config, parse_object(files.tokenizer_config, "tokenizer_config.json"));
  const Json* name = json_find(config, "tokenizer_class");
  if (name == nullptr || !name->is_string()) return {};
  if (std::ranges::find(kClassesWithFlags, name->get<std::string>()) != kClassesWithFlags.end())
    flags_ = Flags{flag(config, "add_bos_token", true), flag(config, "add_eos_token", false)};
  return {};
}

Result<std::vector<uint32_t>> Tokenizer::encode(std::string_view text,
                                                bool add_special_tokens) const {
  CrateText out;
  const int32_t code = sluice_tokenizer_encode(handle_.get(), as_bytes(text),
                                               add_special_tokens && !flags_, out.out());
  if (code != kTextOk) return std::unexpected(std::move(out.result(code)).error());
  std::vector<uint32_t> ids;
  const bool bos = add_special_tokens && flags_ && flags_->add_bos && special_.bos;
  const bool eos = add_special_tokens && flags_ && flags_->add_eos && special_.eos;
  const size_t count = out.view().size() / sizeof(uint32_t);
  ids.reserve(count + 2);
  if (bos) ids.push_back(*special_.bos);
  ids.resize(ids.size() + count);
  if (count > 0)
    std::memcpy(ids.data() + ids.size() - count, out.view().data(), count * sizeof(uint32_t));
  if (eos) ids.push_back(*special_.eos);
  return ids;
}

Result<std::string> Tokenizer::decode(std::span<const uint32_t> ids, bool skip_special) const {
  Decoder decoder(*this, skip_special);
  std::string text;
  for (const uint32_t id : ids) {
    SLUICE_ASSIGN(const std::string piece, decoder.push(id));
    text += piece;
  }
  SLUICE_ASSIGN(const std::string rest, decoder.flush());
  return text + rest;
}

bool Tokenizer::ends_text(uint32_t id) const {
  return std::ranges::find(special_.ends, id) != special_.ends.end();
}

size_t Tokenizer::vocab_size() const { return sluice_tokenizer_size(handle_.get()); }

std::optional<uint32_t> Tokenizer::id(std::string_view token) const {
  const int64_t id = sluice_tokenizer_id(handle_.get(), as_bytes(token));
  if (id < 0) return std::nullopt;
  return static_cast<uint32_t>(id);
}

Result<std::string> Tokenizer::token(uint32_t id) const {
  CrateText text;
  bool special = false;
  return text.result(sluice_tokenizer_token(handle_.get(), id, &special, text.out()));
}

bool Tokenizer::is_special(uint32_t id) const {
  CrateText text;
  bool special = false;
  return sluice_tokenizer_token(handle_.get(), id, &special, text.out()) == kTextOk && special;
}

void Decoder::Free::operator()(SluiceDecoder* decoder) const { sluice_decoder_free(decoder); }

Decoder::Decoder(const Tokenizer& tokenizer, bool skip_special, std::span<const uint32_t> shown)
    : handle_(sluice_decoder_new(tokenizer.handle_.get(), skip_special)) {
  for (const uint32_t id : shown)
    if (auto text = tokenizer.token(id)) shown_[id] = std::move(*text);
}

Result<std::string> Decoder::push(uint32_t id) {
  if (const auto shown = shown_.find(id); shown != shown_.end()) {
    SLUICE_ASSIGN(const std::string before, flush());
    return before + shown->second;
  }
  CrateText text;
  return text.result(sluice_decoder_push(handle_.get(), id, text.out()));
}

Result<std::string> Decoder::flush() {
  CrateText text;
  return text.result(sluice_decoder_flush(handle_.get(), text.out()));
}

}  // namespace sluice::tokenizer
