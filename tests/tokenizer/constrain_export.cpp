// For constraints_test.py: draws texts at random under the masks of JSON schemas.
//   constrain_export SEED TOKENS_MAX [tokenizer.json]   without a file: a small byte-level one
// Reads a schema from each line of standard input and writes a line of JSON for it: {"error",
// "code"}, or {"text", "complete", "tokens", "mask_us"}, the last a median.
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

Result<Json> draw(const Tokenizer& tokenizer, std::string_view schema, size_t tokens_max,
                  std::mt19937& random) {
  SLUICE_ASSIGN(Constraint constraint, Constraint::json_schema(tokenizer, schema));
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
              {"complete", ended},
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
  for (std::string schema; std::getline(std::cin, schema);) {
    const auto drawn = draw(*tokenizer, schema, tokens_max, random);
    const Json line = drawn ? *drawn
                            : Json{{"error", drawn.error().message},
                                   {"code", static_cast<int>(drawn.error().code)}};
    std::cout << dump_json(line) << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace sluice::tokenizer

int main(int count, char** arguments) {
  if (count < 3) return 2;
  return sluice::tokenizer::run(count, arguments);
}
