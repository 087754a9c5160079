// Metadata to tokenizer.json and tokenizer_config.json, in the form Hugging Face's `tokenizers`
// reads: byte-level BPE from its merges, and sentencepiece BPE, whose merges follow from the
// pieces' scores.
#include <algorithm>
#include <array>
#include <tuple>
#include <unordered_map>

#include "io/gguf_config.h"
#include "io/gguf_fields.h"
#include "io/names.h"

namespace sluice::io {
namespace {

constexpr uint64_t kTokensMax = 1 << 24;
// A sentencepiece token is a word at most; longer ones would make splitting them quadratic.
constexpr size_t kPieceBytesMax = 1024;
// Llama-2 and Gemma have about two merges for each token. "a", "aa", "aaa" … would have hundreds,
// and half a megabyte of them a tokenizer.json of gigabytes.
constexpr size_t kMergesPerTokenMax = 16;
constexpr std::string_view kSpace = "\xe2\x96\x81";  // ▁ U+2581, sentencepiece's visible space

// tokenizer.ggml.token_type.
enum TokenType : int64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

struct Vocabulary {
  const GgufArray* tokens = nullptr;
  const GgufArray* types = nullptr;  // may be absent
  std::unordered_map<std::string_view, uint32_t> ids;

  std::string_view text(size_t id) const { return *tokens->text(id); }
  int64_t type(size_t id) const {
    return types == nullptr ? int64_t{kNormal} : types->integer(id).value_or(kNormal);
  }
};

Result<Vocabulary> read_vocabulary(const GgufFields& fields) {
  Vocabulary vocabulary;
  SLUICE_ASSIGN(vocabulary.tokens, fields.array("tokenizer.ggml.tokens"));
  const std::string& label = fields.label();
  if (vocabulary.tokens == nullptr || vocabulary.tokens->element() != GgufType::kString ||
      vocabulary.tokens->size() == 0 || vocabulary.tokens->size() > kTokensMax)
    return fail(ErrorCode::kCorrupt, "{}: tokenizer.ggml.tokens should be an array of strings",
                label);
  SLUICE_ASSIGN(vocabulary.types, fields.array("tokenizer.ggml.token_type"));
  const size_t count = vocabulary.tokens->size();
  if (vocabulary.types != nullptr && vocabulary.types->size() != count)
    return fail(ErrorCode::kCorrupt, "{}: tokenizer.ggml.token_type has {} elements for {} tokens",
                label, vocabulary.types->size(), count);
  vocabulary.ids.reserve(count);
  for (uint32_t id = 0; id < count; ++id) {
    const std::string_view text = vocabulary.text(id);
    if (!is_utf8(text))
      return fail(ErrorCode::kCorrupt, "{}: token {} is not UTF-8: {}", label, id, printable(text));
    const auto [place, added] = vocabulary.ids.emplace(text, id);
    if (!added)
      return fail(ErrorCode::kUnsupported,
                  "{}: tokens {} and {} are both {}; tokenizer.json cannot hold two alike", label,
                  place->second, id, printable(text));
  }
  return vocabulary;
}

Json vocabulary_json(const Vocabulary& vocabulary) {
  Json out = Json::object();
  for (uint32_t id = 0; id < vocabulary.tokens->size(); ++id)
    out.emplace(std::string(vocabulary.text(id)), id);
  return out;
}

// Tokens that are found in the text before anything else happens to it.
Json added_tokens_json(const Vocabulary& vocabulary) {
  Json out = Json::array();
  for (uint32_t id = 0; id < vocabulary.tokens->size(); ++id) {
    const int64_t type = vocabulary.type(id);
    if (type != kControl && type != kUserDefined && type != kUnknown) continue;
    out.push_back({{"id", id},
                   {"content", vocabulary.text(id)},
                   {"single_word", false},
                   {"lstrip", false},
                   {"rstrip", false},
                   {"normalized", false},
                   {"special", type != kUserDefined}});
  }
  return out;
}

// ---- Byte-level BPE ----

constexpr const char* kGpt2Regex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr const char* kLlama3Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kTekkenRegex =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr const char* kQwen35Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kGpt4oRegex =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kSeedCoderRegex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kDeepseekCoderRegexes[] = {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)",
                                                 "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"};
constexpr const char* kDeepseekV3Regexes[] = {
    R"(\p{N}{1,3})", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};
// Words between Latin, Chinese, Devanagari and Arabic punctuation.
constexpr const char* kPoroRegex = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+";

enum class Split {
  kGpt2,        // ByteLevel's own expression
  kDigitsGpt2,  // every digit alone first
  kLlama3,
  kQwen2,
  kTekken,
  kQwen35,
  kGpt4o,
  kSeedCoder,
  kDeepseekCoder,
  kDeepseekV3,
  kPoro,
  kViking,        // as Poro, then every digit alone
  kLlamaDefault,  // what llama.cpp does when the file does not say
};

// How text is cut before merging, by tokenizer.ggml.pre.
struct PreTokenizer {
  std::string_view name;
  Split split;
  bool nfc;            // the model's own tokenizer normalises first
  bool ignore_merges;  // a piece that is a token stays whole whatever the merges say
  bool bos;            // text begins with bos unless the file says otherwise
};
constexpr PreTokenizer kPreTokenizers[] = {
    {"llama-bpe", Split::kLlama3, false, true, true},
    {"llama3", Split::kLlama3, false, true, true},
    {"llama-v3", Split::kLlama3, false, true, true},
    {"falcon3", Split::kLlama3, false, true, true},
    {"midm-2.0", Split::kLlama3, false, true, true},
    {"smaug-bpe", Split::kLlama3, false, false, false},
    {"dbrx", Split::kLlama3, false, false, false},
    {"qwen2", Split::kQwen2, true, false, false},
    {"qwen35", Split::kQwen35, true, false, false},
    {"megrez", Split::kQwen2, false, false, false},
    {"kormo", Split::kQwen2, false, false, false},
    {"deepseek-r1-qwen", Split::kQwen2, false, false, false},
    {"stablelm2", Split::kQwen2, false, false, false},
    {"smollm", Split::kDigitsGpt2, false, false, false},
    {"starcoder", Split::kDigitsGpt2, false, false, false},
    {"refact", Split::kDigitsGpt2, false, false, false},
    {"codeshell", Split::kDigitsGpt2, false, false, false},
    {"exaone", Split::kDigitsGpt2, false, false, false},
    {"command-r", Split::kDigitsGpt2, false, false, false},
    {"minerva-7b", Split::kDigitsGpt2, false, false, false},
    {"gpt-2", Split::kGpt2, false, false, false},
    {"phi-2", Split::kGpt2, false, false, false},
    {"olmo", Split::kGpt2, false, false, false},
    {"mpt", Split::kGpt2, false, false, false},
    {"jais", Split::kGpt2, false, false, false},
    {"trillion", Split::kGpt2, false, false, false},
    {"mellum", Split::kGpt2, false, false, false},
    {"deepseek-coder", Split::kDeepseekCoder, false, false, false},
    {"deepseek-v3", Split::kDeepseekV3, false, false, false},
    {"gpt-4o", Split::kGpt4o, false, false, false},
    {"seed-coder", Split::kSeedCoder, false, false, false},
    {"poro-chat", Split::kPoro, false, false, false},
    {"viking", Split::kViking, false, false, false},
    {"tekken", Split::kTekken, false, true, true},
    {"default", Split::kLlamaDefault, false, false, false},
};

Json split_json(const char* regex) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", regex}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

Json digits_json() { return {{"type", "Digits"}, {"individual_digits", true}}; }

Json byte_level_json(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

Json pre_tokenizer_json(Split split) {
  Json steps = Json::array();
  switch (split) {
    case Split::kGpt2: return byte_level_json(true);
    case Split::kDigitsGpt2:
      steps.push_back(digits_json());
      steps.push_back(byte_level_json(true));
      break;
    case Split::kLlama3: steps.push_back(split_json(kLlama3Regex)); break;
    case Split::kQwen2: steps.push_back(split_json(kQwen2Regex)); break;
    case Split::kTekken: steps.push_back(split_json(kTekkenRegex)); break;
    case Split::kQwen35: steps.push_back(split_json(kQwen35Regex)); break;
    case Split::kGpt4o: steps.push_back(split_json(kGpt4oRegex)); break;
    case Split::kSeedCoder: steps.push_back(split_json(kSeedCoderRegex)); break;
    case Split::kPoro: steps.push_back(split_json(kPoroRegex)); break;
    case Split::kViking:
      steps.push_back(split_json(kPoroRegex));
      steps.push_back(digits_json());
      break;
    case Split::kDeepseekCoder:
      for (const char* regex : kDeepseekCoderRegexes) steps.push_back(split_json(regex));
      steps.push_back(digits_json());
      break;
    case Split::kDeepseekV3:
      for (const char* regex : kDeepseekV3Regexes) steps.push_back(split_json(regex));
      break;
    case Split::kLlamaDefault:
      for (const char* regex :
           {R"([\p{P}\$\+<=>\^~\|]+)", kGpt2Regex, R"(\p{N}+)", "[0-9][0-9][0-9]"})
        steps.push_back(split_json(regex));
      break;
  }
  if (split != Split::kDigitsGpt2) steps.push_back(byte_level_json(false));
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

// Each merge is "left right"; both sides and their join must be tokens.
Result<Json> merges_json(const GgufFields& fields, const Vocabulary& vocabulary) {
  SLUICE_ASSIGN(const GgufArray* merges, fields.array("tokenizer.ggml.merges"));
  if (merges == nullptr || merges->element() != GgufType::kString)
    return fail(ErrorCode::kCorrupt, "{}: tokenizer.ggml.merges should be an array of strings",
                fields.label());
  Json out = Json::array();
  out.get_ref<Json::array_t&>().reserve(merges->size());
  std::string joined;
  for (size_t i = 0; i < merges->size(); ++i) {
    const std::string_view merge = *merges->text(i);
    const size_t space = merge.find(' ', 1);
    bool known = space != std::string_view::npos && merge.find(' ', space + 1) == merge.npos;
    if (known) {
      const auto left = merge.substr(0, space), right = merge.substr(space + 1);
      joined.assign(left).append(right);
      known = vocabulary.ids.contains(left) && vocabulary.ids.contains(right) &&
              vocabulary.ids.contains(joined);
    }
    if (!known)
      return fail(ErrorCode::kCorrupt, "{}: merge {} is no pair of tokens: {}", fields.label(), i,
                  printable(merge));
    out.push_back(merge);
  }
  return out;
}

// ---- sentencepiece BPE ----

bool starts_character(char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }

size_t characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), starts_character));
}

// A way to make one piece out of two. Sizes are kept small: Llama-2 has 61,249 of these.
struct Merge {
  double score;
  uint32_t piece, left, right;
  uint32_t left_characters, right_characters;
};

// Pieces that merging may produce or consume. Control tokens are cut out beforehand and byte
// tokens come after; `</s>` must not arise from `</` and `s>`.
bool takes_part(int64_t type) { return type == kNormal || type == kUserDefined; }

// The order in which `transformers` ranks them when it converts a sentencepiece model: best score
// first, then longer left and right parts, then by ids.
Result<std::vector<Merge>> merges_from_scores(const GgufFields& fields,
                                              const Vocabulary& vocabulary) {
  SLUICE_ASSIGN(const GgufArray* scores, fields.array("tokenizer.ggml.scores"));
  const size_t count = vocabulary.tokens->size();
  if (scores == nullptr || scores->element() != GgufType::kF32 || scores->size() != count)
    return fail(ErrorCode::kCorrupt, "{}: tokenizer.ggml.scores should be {} f32 numbers",
                fields.label(), count);
  std::vector<Merge> merges;
  for (uint32_t id = 0; id < count; ++id) {
    const double score = *scores->number(id);
    if (!std::isfinite(score))
      return fail(ErrorCode::kCorrupt, "{}: the score of token {} is not finite", fields.label(),
                  id);
    const std::string_view piece = vocabulary.text(id);
    if (!takes_part(vocabulary.type(id)) || piece.size() > kPieceBytesMax) continue;
    for (size_t at = 1; at < piece.size(); ++at) {
      if (!starts_character(piece[at])) continue;
      const auto left = vocabulary.ids.find(piece.substr(0, at));
      const auto right = vocabulary.ids.find(piece.substr(at));
      if (left == vocabulary.ids.end() || right == vocabulary.ids.end()) continue;
      if (!takes_part(vocabulary.type(left->second)) || !takes_part(vocabulary.type(right->second)))
        continue;
      merges.push_back({score, id, left->second, right->second,
                        static_cast<uint32_t>(characters(left->first)),
                        static_cast<uint32_t>(characters(right->first))});
    }
    if (merges.size() > kMergesPerTokenMax * (count + 64))
      return fail(ErrorCode::kUnsupported,
                  "{}: its {} tokens can be merged in more than {} ways, as no real vocabulary can",
                  fields.label(), count, merges.size());
  }
  std::sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
    return std::tie(b.score, b.left_characters, b.right_characters, a.piece, a.left, a.right) <
           std::tie(a.score, a.left_characters, a.right_characters, b.piece, b.left, b.right);
  });
  return merges;
}

bool has_all_bytes(const Vocabulary& vocabulary) {
  for (int byte = 0; byte < 256; ++byte)
    if (!vocabulary.ids.contains(fmt::format("<0x{:02X}>", byte))) return false;
  return true;
}

// ---- What both share ----

struct SpecialTokens {
  std::optional<uint32_t> bos, eos, unknown, padding;
  bool add_bos = false, add_eos = false;
};

Result<std::optional<uint32_t>> special_id(const GgufFields& fields, std::string_view key,
                                           size_t count) {
  SLUICE_ASSIGN(const auto id, fields.integer(key, 0, UINT32_MAX));
  if (!id || *id == UINT32_MAX) return std::nullopt;  // −1 is how some writers say none
  if (*id < count) return static_cast<uint32_t>(*id);
  return fail(ErrorCode::kCorrupt, "{}: {} is {}, there are {} tokens", fields.label(), key, *id,
              count);
}

Result<SpecialTokens> read_special_tokens(const GgufFields& fields, size_t count,
                                          bool bos_default) {
  SpecialTokens special;
  SLUICE_ASSIGN(special.bos, special_id(fields, "tokenizer.ggml.bos_token_id", count));
  SLUICE_ASSIGN(special.eos, special_id(fields, "tokenizer.ggml.eos_token_id", count));
  SLUICE_ASSIGN(special.unknown, special_id(fields, "tokenizer.ggml.unknown_token_id", count));
  SLUICE_ASSIGN(special.padding, special_id(fields, "tokenizer.ggml.padding_token_id", count));
  SLUICE_ASSIGN(const auto add_bos, fields.boolean("tokenizer.ggml.add_bos_token"));
  SLUICE_ASSIGN(const auto add_eos, fields.boolean("tokenizer.ggml.add_eos_token"));
  special.add_bos = add_bos.value_or(bos_default) && special.bos.has_value();
  special.add_eos = add_eos.value_or(false) && special.eos.has_value();
  return special;
}

// Puts bos before and eos after a text, as the file asks; `otherwise` when it asks for neither.
Json post_processor_json(const SpecialTokens& special, const Vocabulary& vocabulary,
                         Json otherwise) {
  if (!special.add_bos && !special.add_eos) return otherwise;
  Json tokens = Json::object();
  const auto mark = [&](uint32_t id, int type_id) -> Json {
    const std::string text(vocabulary.text(id));
    tokens[text] = {{"id", text}, {"ids", {id}}, {"tokens", {text}}};
    return {{"SpecialToken", {{"id", text}, {"type_id", type_id}}}};
  };
  const auto sequence = [&](Json& out, const char* id, int type_id) {
    if (special.add_bos) out.push_back(mark(*special.bos, type_id));
    out.push_back({{"Sequence", {{"id", id}, {"type_id", type_id}}}});
    if (special.add_eos) out.push_back(mark(*special.eos, type_id));
  };
  Json single = Json::array(), pair = Json::array();
  sequence(single, "A", 0);
  sequence(pair, "A", 0);
  sequence(pair, "B", 1);
  return {{"type", "TemplateProcessing"},
          {"single", std::move(single)},
          {"pair", std::move(pair)},
          {"special_tokens", std::move(tokens)}};
}

Json model_json(const Vocabulary& vocabulary, Json merges) {
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"ignore_merges", false},
          {"vocab", vocabulary_json(vocabulary)},
          {"merges", std::move(merges)}};
}

Json tokenizer_json(const Vocabulary& vocabulary) {
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added_tokens_json(vocabulary)}};
}

struct Rebuilt {
  Json tokenizer;
  SpecialTokens special;
};

Result<Rebuilt> rebuild_byte_level(const GgufFields& fields, const Vocabulary& vocabulary) {
  SLUICE_ASSIGN(const auto pre, fields.text("tokenizer.ggml.pre"));
  const std::string name = pre.value_or("default");
  const auto* kind = std::find_if(std::begin(kPreTokenizers), std::end(kPreTokenizers),
                                  [&](const PreTokenizer& p) { return p.name == name; });
  if (kind == std::end(kPreTokenizers))
    return fail(ErrorCode::kUnsupported,
                "{}: pre-tokenizer {} is not known, so tokenizer.json cannot be rebuilt; use the "
                "model's safetensors instead",
                fields.label(), printable(name));
  Rebuilt out;
  SLUICE_ASSIGN(out.special, read_special_tokens(fields, vocabulary.tokens->size(), kind->bos));
  SLUICE_ASSIGN(Json merges, merges_json(fields, vocabulary));
  out.tokenizer = tokenizer_json(vocabulary);
  out.tokenizer["model"] = model_json(vocabulary, std::move(merges));
  out.tokenizer["model"]["ignore_merges"] = kind->ignore_merges;
  out.tokenizer["normalizer"] = kind->nfc ? Json{{"type", "NFC"}} : Json(nullptr);
  out.tokenizer["pre_tokenizer"] = pre_tokenizer_json(kind->split);
  Json byte_level = byte_level_json(true);
  byte_level["trim_offsets"] = false;
  out.tokenizer["post_processor"] = post_processor_json(out.special, vocabulary, byte_level);
  out.tokenizer["decoder"] = byte_level_json(true);
  return out;
}

Result<Rebuilt> rebuild_sentencepiece(const GgufFields& fields, const Vocabulary& vocabulary) {
  Rebuilt out;
  SLUICE_ASSIGN(out.special, read_special_tokens(fields, vocabulary.tokens->size(), true));
  SLUICE_ASSIGN(const auto squeeze, fields.boolean("tokenizer.ggml.remove_extra_whitespaces"));
  if (squeeze.value_or(false))
    return fail(ErrorCode::kUnsupported,
                "{}: a tokenizer that removes extra white space cannot be rebuilt", fields.label());
  SLUICE_ASSIGN(const auto prefix, fields.boolean("tokenizer.ggml.add_space_prefix"));
  SLUICE_ASSIGN(const auto ranked, merges_from_scores(fields, vocabulary));
  Json merges = Json::array();
  merges.get_ref<Json::array_t&>().reserve(ranked.size());
  // Pairs, since a sentencepiece piece may hold a plain space.
  for (const Merge& merge : ranked)
    merges.push_back({vocabulary.text(merge.left), vocabulary.text(merge.right)});

  Json normalizers = Json::array(), decoders = Json::array();
  if (prefix.value_or(true)) normalizers.push_back({{"type", "Prepend"}, {"prepend", kSpace}});
  normalizers.push_back({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpace}});
  decoders.push_back({{"type", "Replace"}, {"pattern", {{"String", kSpace}}}, {"content", " "}});
  decoders.push_back({{"type", "ByteFallback"}});
  decoders.push_back({{"type", "Fuse"}});
  if (prefix.value_or(true))
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});

  out.tokenizer = tokenizer_json(vocabulary);
  Json& model = out.tokenizer["model"] = model_json(vocabulary, std::move(merges));
  model["fuse_unk"] = true;
  model["byte_fallback"] = has_all_bytes(vocabulary);
  if (out.special.unknown) model["unk_token"] = vocabulary.text(*out.special.unknown);
  out.tokenizer["normalizer"] = {{"type", "Sequence"}, {"normalizers", std::move(normalizers)}};
  out.tokenizer["pre_tokenizer"] = nullptr;
  out.tokenizer["post_processor"] = post_processor_json(out.special, vocabulary, nullptr);
  out.tokenizer["decoder"] = {{"type", "Sequence"}, {"decoders", std::move(decoders)}};
  return out;
}

Result<Json> tokenizer_config_json(const GgufFields& fields, const Vocabulary& vocabulary,
                                   const SpecialTokens& special) {
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"clean_up_tokenization_spaces", false},
                 {"add_bos_token", special.add_bos},
                 {"add_eos_token", special.add_eos}};
  for (const auto& [key, id] : {std::pair("bos_token", special.bos),
                                {"eos_token", special.eos},
                                {"unk_token", special.unknown},
                                {"pad_token", special.padding}})
    if (id) config[key] = vocabulary.text(*id);
  const GgufValue* context = fields.header().find(fields.architecture() + ".context_length");
  if (context != nullptr)
    if (const auto* length = std::get_if<uint64_t>(context)) config["model_max_length"] = *length;
  SLUICE_ASSIGN(const auto chat_template, fields.text("tokenizer.chat_template"));
  if (chat_template) config["chat_template"] = *chat_template;
  return config;
}

}  // namespace

Result<std::vector<TextFile>> rebuild_tokenizer(const GgufHeader& header,
                                                const std::string& label) {
  const GgufValue* name = header.find("general.architecture");
  const auto* architecture = name == nullptr ? nullptr : std::get_if<std::string>(name);
  const GgufFields fields(header, label, architecture == nullptr ? "" : *architecture);
  SLUICE_ASSIGN(const auto model, fields.text("tokenizer.ggml.model"));
  if (!model) return fail(ErrorCode::kUnsupported, "{}: the file holds no tokenizer", label);
  if (*model != "gpt2" && *model != "llama")
    return fail(ErrorCode::kUnsupported,
                "{}: tokenizer model {} cannot be rebuilt (gpt2 and llama can)", label,
                printable(*model));
  SLUICE_ASSIGN(const Vocabulary vocabulary, read_vocabulary(fields));
  SLUICE_ASSIGN(const Rebuilt rebuilt, *model == "gpt2"
                                           ? rebuild_byte_level(fields, vocabulary)
                                           : rebuild_sentencepiece(fields, vocabulary));
  SLUICE_ASSIGN(const Json config, tokenizer_config_json(fields, vocabulary, rebuilt.special));
  std::vector<TextFile> files;
  files.push_back({"tokenizer.json", dump_json(rebuilt.tokenizer, 1)});
  files.push_back({"tokenizer_config.json", dump_json(config, 2) + "\n"});
  return files;
}

}  // namespace sluice::io
