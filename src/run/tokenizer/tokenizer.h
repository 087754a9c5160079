// Text to token ids and back, as Hugging Face's `tokenizers` reads a tokenizer.json. The facade
// takes the files' texts, so where they come from (a folder, GGUF metadata) is the caller's
// business.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

struct SluiceTokenizer;
struct SluiceDecoder;

namespace sluice::tokenizer {

// Texts of a model's files; empty where there is no such file. Only the first must be there.
struct TokenizerFiles {
  std::string_view tokenizer = {};           // tokenizer.json, at most 256 MiB
  std::string_view tokenizer_config = {};    // tokenizer_config.json
  std::string_view special_tokens_map = {};  // special_tokens_map.json
  std::string_view generation_config = {};   // generation_config.json
  std::string_view config = {};              // config.json
};

// Ids of tokens that the files name and the vocabulary has.
struct SpecialIds {
  std::optional<uint32_t> bos, eos, unknown, padding;
  // Each of these ends a text: generation_config's, config's, and the tokenizer's own.
  std::vector<uint32_t> ends;
};

// Thread-safe; move-only.
class Tokenizer {
 public:
  // kCorrupt for files that contradict their format, kUnsupported for a tokenizer that no real
  // model has (size, growth of decoded text). Takes a second for a vocabulary of 250,000.
  static Result<Tokenizer> open(const TokenizerFiles& files);

  // add_special_tokens: bos and eos where the model's own tokenizer puts them. A rendered chat has
  // them already. text: UTF-8, at most 256 MiB, else kInvalidArgument.
  Result<std::vector<uint32_t>> encode(std::string_view text, bool add_special_tokens) const;

  // The whole text, as a Decoder gives it. Ids outside the vocabulary have no text.
  Result<std::string> decode(std::span<const uint32_t> ids, bool skip_special) const;

  const SpecialIds& special() const { return special_; }
  bool ends_text(uint32_t id) const;

  // Ids are smaller than this, added tokens included, where a vocabulary has no holes.
  size_t vocab_size() const;
  std::optional<uint32_t> id(std::string_view token) const;
  // As the vocabulary spells it ("Ġthe", "▁the", "<0x0A>"); kInvalidArgument if there is none.
  Result<std::string> token(uint32_t id) const;
  bool is_special(uint32_t id) const;

 private:
  friend class Constraint;
  friend class Decoder;
  struct Free {
    void operator()(const SluiceTokenizer* tokenizer) const;
  };

  Tokenizer() = default;
  Status read_special(const TokenizerFiles& files);

  std::unique_ptr<const SluiceTokenizer, Free> handle_;
  SpecialIds special_;
  // Where the class of the tokenizer decides about bos and eos, not tokenizer.json.
  struct Flags {
    bool add_bos = false, add_eos = false;
  };
  std::optional<Flags> flags_;
};

// Ids to text one by one. Every piece is whole UTF-8: the bytes of a character that is not complete
// wait for the rest of it, or for flush(), which gives U+FFFD for them. The pieces joined are the
// text of all ids together, so the space that sentencepiece puts before a text is dropped once.
// One thread. Independent of the Tokenizer's life. kUnsupported when the tokenizer cannot decode.
class Decoder {
 public:
  // skip_special: special tokens have no text, but for the shown ones, which are as the vocabulary
  // spells them: marks that a caller looks for in the text.
  Decoder(const Tokenizer& tokenizer, bool skip_special, std::span<const uint32_t> shown = {});

  Result<std::string> push(uint32_t id);
  // Ends the text; the next id begins another one.
  Result<std::string> flush();

 private:
  struct Free {
    void operator()(SluiceDecoder* decoder) const;
  };
  std::unique_ptr<SluiceDecoder, Free> handle_;
  std::map<uint32_t, std::string> shown_;
};

}  // namespace sluice::tokenizer
