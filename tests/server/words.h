// A tokenizer for tests of what generates.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "base/json.h"
#include "tokenizer/tokenizer.h"

namespace sluice::server {

// Sixty-four words, joined by spaces.
inline tokenizer::Tokenizer words() {
  Json vocabulary = Json::object();
  for (int i = 0; i < 64; ++i) vocabulary[fmt::format("w{}", i)] = i;
  const Json json = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", Json::array()},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "WhitespaceSplit"}}},
      {"post_processor", nullptr},
      {"decoder", nullptr},
      {"model", {{"type", "WordLevel"}, {"vocab", vocabulary}, {"unk_token", "w0"}}}};
  const std::string text = dump_json(json);
  auto tokenizer = tokenizer::Tokenizer::open({.tokenizer = text});
  if (!tokenizer) ADD_FAILURE() << tokenizer.error().message;
  return std::move(*tokenizer);
}

}  // namespace sluice::server
