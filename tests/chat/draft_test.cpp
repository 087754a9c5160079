// A small model's guesses: what it would write itself, whatever became of the last guess.
#include "chat/draft.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "runtime/engines.h"

namespace sluice::chat {
namespace {

using runtime::Tokens;

Result<uint32_t> likeliest(std::span<const float> logits, std::span<const uint32_t>) {
  return static_cast<uint32_t>(std::ranges::max_element(logits) - logits.begin());
}

// What the model writes behind tokens, from a session of its own.
Tokens written(runtime::Engine& engine, Tokens tokens, size_t count) {
  runtime::Session session = engine.new_session();
  const size_t begin = tokens.size();
  auto logits = session.append(tokens);
  for (size_t i = 0; i < count; ++i) {
    SLUICE_CHECK(logits.has_value());
    tokens.push_back(*likeliest(*logits, tokens));
    logits = session.append({&tokens.back(), 1});
  }
  return {tokens.begin() + static_cast<ptrdiff_t>(begin), tokens.end()};
}

TEST(ModelDraft, GuessesWhatTheModelWrites) {
  const runtime::Opened opened =
      runtime::open_engine(test::tiny_llama().build(), runtime::f32_options());
  runtime::Engine& engine = *opened.engine;
  const auto draft = model_draft(engine.new_session(), likeliest, 4);
  Tokens text = runtime::random_tokens(20, 64, 1);
  for (const size_t right : {4, 0, 2, 4, 1, 3}) {
    const auto guess = draft->guess(text, 10);
    ASSERT_TRUE(guess.has_value());
    EXPECT_EQ(*guess, written(engine, text, 4));
    // The large model agreed with so many of them, and went on by itself.
    text.insert(text.end(), guess->begin(), guess->begin() + static_cast<ptrdiff_t>(right));
    text.push_back(static_cast<uint32_t>(7 + right));
  }
  // Another text altogether.
  text = runtime::random_tokens(30, 64, 2);
  EXPECT_EQ(draft->guess(text, 2).value(), written(engine, text, 2));
  EXPECT_TRUE(draft->guess(text, 0).value().empty());
  EXPECT_EQ(draft->guess(text, 3).value(), written(engine, text, 3));
}

TEST(ModelDraft, StaysWithinItsContext) {
  runtime::EngineOptions options = runtime::f32_options();
  options.context = 32;
  const runtime::Opened opened = runtime::open_engine(test::tiny_llama().build(), options);
  const auto draft = model_draft(opened.engine->new_session(), likeliest, 8);
  for (const size_t length : {24, 25, 30, 31, 32, 33, 40}) {
    const auto guess = draft->guess(runtime::random_tokens(length, 64, 3), 8);
    ASSERT_TRUE(guess.has_value()) << guess.error().message;
    EXPECT_EQ(guess->size(), length > 32 ? 0 : std::min<size_t>(8, 33 - length)) << length;
  }
}

TEST(ModelDraft, PassesErrorsOn) {
  const runtime::Opened opened =
      runtime::open_engine(test::tiny_llama().build(), runtime::f32_options());
  const auto draft = model_draft(opened.engine->new_session(), likeliest, 4);
  EXPECT_FALSE(draft->guess(Tokens{1, 2, 100'000}, 4).has_value());
  const auto never = [](std::span<const float>, std::span<const uint32_t>) -> Result<uint32_t> {
    return fail(ErrorCode::kInvalidArgument, "no token is left");
  };
  const auto stuck = model_draft(opened.engine->new_session(), never, 4);
  EXPECT_FALSE(stuck->guess(Tokens{1, 2}, 4).has_value());
}

TEST(LookupDraft, GuessesAtMostSoMany) {
  const auto draft = lookup_draft(3);
  const Tokens text = {1, 2, 3, 4, 5, 6, 1, 2};
  EXPECT_EQ(draft->guess(text, 10).value(), (Tokens{3, 4, 5}));
  EXPECT_EQ(draft->guess(text, 2).value(), (Tokens{3, 4}));
  EXPECT_TRUE(draft->guess(text, 0).value().empty());
}

}  // namespace
}  // namespace sluice::chat
