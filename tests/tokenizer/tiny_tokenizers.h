// Small tokenizers of the two kinds that models have: byte-level BPE as in GPT-2, and sentencepiece
// BPE with byte tokens as in Llama-2. Built here, since their vocabularies follow a rule.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "tokenizer/tokenizer.h"

namespace sluice::tokenizer::testing {

inline std::string utf8(uint32_t point) {
  if (point < 0x80) return {static_cast<char>(point)};
  return {static_cast<char>(0xc0 | (point >> 6)), static_cast<char>(0x80 | (point & 0x3f))};
}

// The character by which GPT-2's vocabulary spells a byte.
inline std::string byte_character(uint32_t byte) {
  const auto printable = [](uint32_t b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  };
  if (printable(byte)) return utf8(byte);
  uint32_t before = 0;
  for (uint32_t b = 0; b < byte; ++b) before += printable(b) ? 0 : 1;
  return utf8(256 + before);
}

inline Json added_token(uint32_t id, const std::string& content) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

inline Json bpe_model(Json vocab, Json merges, bool byte_fallback) {
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", false},
          {"byte_fallback", byte_fallback},
          {"ignore_merges", false},
          {"vocab", std::move(vocab)},
          {"merges", std::move(merges)}};
}

// Ids 0 to 255 are the bytes, then "he", "ll", "hell", " w", "wo", and two special tokens.
inline Json byte_level() {
  Json vocab = Json::object();
  for (uint32_t byte = 0; byte < 256; ++byte) vocab[byte_character(byte)] = byte;
  const std::string space = byte_character(' ');
  uint32_t next = 256;
  for (const std::string& token :
       {std::string("he"), std::string("ll"), std::string("hell"), space + "w", std::string("wo")})
    vocab[token] = next++;
  const Json merges = {"h e", "l l", "he ll", space + " w", "w o"};
  const Json level = {{"type", "ByteLevel"},
                      {"add_prefix_space", false},
                      {"trim_offsets", true},
                      {"use_regex", true}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", {added_token(261, "<|start|>"), added_token(262, "<|end|>")}},
          {"normalizer", nullptr},
          {"pre_tokenizer", level},
          {"post_processor", nullptr},
          {"decoder", level},
          {"model", bpe_model(vocab, merges, false)}};
}

// Ids 0 to 2 are <unk>, <s>, </s>, then 256 bytes, then "▁", letters and two merges.
inline Json sentencepiece() {
  const std::string space = "\xe2\x96\x81";
  Json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  for (uint32_t byte = 0; byte < 256; ++byte) vocab[fmt::format("<0x{:02X}>", byte)] = 3 + byte;
  uint32_t next = 259;
  vocab[space] = next++;
  for (char c = 'a'; c <= 'z'; ++c) vocab[std::string(1, c)] = next++;
  vocab[space + "h"] = next++;
  vocab["he"] = next++;
  const Json replace = {{"type", "Replace"}, {"pattern", {{"String", space}}}, {"content", " "}};
  const Json prepend = {{"type", "Prepend"}, {"prepend", space}};
  const Json visible = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", space}};
  return {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", {added_token(0, "<unk>"), added_token(1, "<s>"), added_token(2, "</s>")}},
      {"normalizer", {{"type", "Sequence"}, {"normalizers", {prepend, visible}}}},
      {"pre_tokenizer", nullptr},
      {"post_processor", nullptr},
      {"decoder",
       {{"type", "Sequence"},
        {"decoders",
         {replace,
          {{"type", "ByteFallback"}},
          {{"type", "Fuse"}},
          {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}}},
      {"model", bpe_model(vocab, {space + " h", "h e"}, true)}};
}

inline Result<Tokenizer> open(const Json& tokenizer, const std::string& config = "") {
  const std::string text = dump_json(tokenizer);
  return Tokenizer::open({.tokenizer = text, .tokenizer_config = config});
}

}  // namespace sluice::tokenizer::testing
