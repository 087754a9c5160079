// For constraints_test.py: draws texts at random under the masks of JSON schemas.
//   constrain_export SEED TOKENS_MAX [tokenizer.json]   without a file: a small byte-level one
// Reads a schema from each line of standard input, perhaps with a tab and a list of texts behind
// it, and writes a line of JSON for it: {"error", "code"}, or {"text", "finish", "tokens",
// "mask_us", "accepted"}. finish: "end", or "length" where TOKENS_MAX were drawn before; mask_us: a
// median; accepted: which of the texts keep to the schema (byte-level tokenizer only).
#include <algorithm>
#include <chrono>
#include <iostream>
#include <random>

#include "tokenizer/constraint.h"
#include "tokenizer/real_inputs.h"
#include "tokenizer/tiny_tokenizers.h"

namespace sluice::tokenizer {
namespace {

// Chance alone seldom ends anything: every other draw takes what closes, if it may be.
constexpr std::string_view kClosing[] = {"\"", "}", "]", "0", ","};

std::vector<uint32_t> tokens_of(std::span<const uint32_t> mask) {
  std::vector<uint32_t> tokens;
  for (size_t word = 0; word < mask.size(); ++word)
    for (uint32_t bit = 0; bit < 32; ++bit)
      if ((mask[word] >> bit & 1) != 0) tokens.push_back(static_cast<uint32_t>(word * 32 + bit));
  return tokens;
}

bool allowed(std::span<const uint32_t> mask, uint32_t token) {
  return token / 32 < mask.size() && (mask[token / 32] >> token % 32 & 1) != 0;
}

// Whether the text is one of the constraint's, whole. A byte's token has the byte's number.
Result<bool> accepts(const Constraint& constraint, std::string_view text) {
  SLUICE_ASSIGN(Constraint copy, constraint.clone());
  std::vector<uint32_t> tokens;
  for (const char c : text) tokens.push_back(static_cast<uint8_t>(c));
  SLUICE_ASSIGN(const size_t allowed, copy.count_allowed(tokens));
  if (allowed != tokens.size()) return false;
  for (const uint32_t token : tokens) SLUICE_TRY(copy.take(token));
  return copy.may_end();
}

Result<Json> draw(const Tokenizer& tokenizer, std::string_view schema, const Json& texts,
                  size_t tokens_max, std::mt19937& random) {
  SLUICE_ASSIGN(Constraint constraint, Constraint::json_schema(tokenizer, schema));
  Json accepted = Json::array();
  for (const Json& given : texts) {
    SLUICE_ASSIGN(const bool accept, accepts(constraint, given.get_ref<const std::string&>()));
    accepted.push_back(accept);
  }
  Decoder decoder(tokenizer, true);
  std::string text;
  std::vector<double> times;
  bool ended = false;
  while (!ended && times.size() < tokens_max) {
    const auto start = std::chrono::steady_clock::now();
    SLUICE_ASSIGN(const auto mask, constraint.mask({}));
    times.push_back(
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
            .count());
    const std::vector<uint32_t> open = tokens_of(mask);
    std::optional<uint32_t> token;
    for (const std::string_view closing : kClosing)
      if (const auto id = tokenizer.id(closing); !token && id && allowed(mask, *id))
        if (random() % 3 == 0) token = *id;
    SLUICE_ASSIGN(const bool may_end, constraint.may_end());
    ended = open.empty() || (may_end && random() % 2 == 0);
    if (ended) break;
    if (!token) token = open[random() % open.size()];
    SLUICE_TRY(constraint.take(*token));
    SLUICE_ASSIGN(const std::string piece, decoder.push(*token));
    text += piece;
  }
  SLUICE_ASSIGN(const std::string rest, decoder.flush());
  std::ranges::sort(times);
  return Json{{"text", text + rest},
              {"finish", ended ? "end" : "length"},
              {"accepted", std::move(accepted)},
              {"tokens", times.size()},
              {"mask_us", times.empty() ? 0 : times[times.size() / 2]}};
}

int run(int count, char** arguments) {
  std::mt19937 random(static_cast<uint32_t>(std::stoul(arguments[1])));
  const size_t tokens_max = std::stoul(arguments[2]);
  const std::string json =
      count > 3 ? testing::read_text(arguments[3]) : dump_json(testing::byte_level());
  const auto tokenizer = Tokenizer::open({.tokenizer = json});
  if (!tokenizer) {
    std::cerr << tokenizer.error().message << "\n";
    return 1;
  }
  for (std::string line; std::getline(std::cin, line);) {
    const size_t tab = std::min(line.find('\t'), line.size());
    const auto texts = parse_json(tab < line.size() ? line.substr(tab + 1) : "[]", "the texts");
    if (!texts) return 1;
    const auto drawn = draw(*tokenizer, line.substr(0, tab), *texts, tokens_max, random);
    const Json answer = drawn ? *drawn
                              : Json{{"error", drawn.error().message},
                                     {"code", static_cast<int>(drawn.error().code)}};
    std::cout << dump_json(answer) << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace sluice::tokenizer

int main(int count, char** arguments) {
  if (count < 3) return 2;
  return sluice::tokenizer::run(count, arguments);
}
