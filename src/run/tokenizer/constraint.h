// What a model may write: text that a JSON schema, a regular expression or a grammar describes,
// token by token. A constraint gives the tokens that may follow as a mask for the sampler, and
// takes the one that was drawn; so text that ends by itself always is what was described, and text
// that is cut off is the beginning of it. Parsing is the llguidance crate's.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "tokenizer/tokenizer.h"

struct SluiceMatcher;

namespace sluice::tokenizer {

// Between the parts of JSON that a schema describes: a space, or a line break and what indents the
// next line. Without a bound, a model that is unsure writes spaces until it is cut off.
inline constexpr std::string_view kJsonWhitespace = R"(\x20|\r?\n[\x20\t]{0,32})";

class Constraint;

// Watches a text that is free, and says where a constraint begins to hold.
class Trigger {
 public:
  virtual ~Trigger() = default;
  // The text goes on with this token. True: from the next one on `held` holds, of which the trigger
  // has taken what is written already.
  virtual Result<bool> take(uint32_t token, Constraint& held) = 0;
  // Another one that has seen the same.
  virtual Result<std::unique_ptr<Trigger>> clone() const = 0;
};

// Special tokens are forbidden but where a grammar names them (or they end the text). One thread;
// move-only. Independent of the Tokenizer's life. The first constraint of a tokenizer builds the
// trie of its tokens, which all later ones share.
class Constraint {
 public:
  // What describes the text cannot be used: kInvalidArgument if it is malformed or nothing
  // satisfies it, kUnsupported if it asks for what cannot be enforced (a keyword of JSON Schema, a
  // size), always with the reason.

  // schema: a JSON Schema as text, draft 2020-12 and before; docs/constraints.md lists the
  // keywords.
  static Result<Constraint> json_schema(const Tokenizer& tokenizer, std::string_view schema);
  // Any JSON object.
  static Result<Constraint> json_object(const Tokenizer& tokenizer);
  // The whole text, in the syntax of Rust's regex crate, without look-around and anchors.
  static Result<Constraint> regex(const Tokenizer& tokenizer, std::string_view expression);
  // A Lark grammar as llguidance has it: `start: …`, /regex/, "text", %json {…}, and special tokens
  // as <|name|> or <[id]>.
  static Result<Constraint> lark(const Tokenizer& tokenizer, std::string_view grammar);
  // One of these texts. None may be empty, and there is at least one.
  static Result<Constraint> choices(const Tokenizer& tokenizer, std::span<const std::string> texts);

  // Everything is allowed, and the text may end, until the trigger has it that `held` holds.
  static Constraint after(std::unique_ptr<Trigger> trigger, Constraint held);

  // Another one at the same place, to go on independently: for branches and drafts. Cheap.
  Result<Constraint> clone() const;

  // The tokens that may follow: bit t % 32 of word t / 32 for token t, as runtime::Sampler takes
  // it. ends: tokens that end the text; allowed where may_end(), and only they where nothing may
  // follow. Valid until the next call. kUnsupported when the grammar turns out too large.
  Result<std::span<const uint32_t>> mask(std::span<const uint32_t> ends);

  // The text goes on with this token, which the last mask allowed: else kInvalidArgument, and the
  // constraint can no longer be used. A token that ends the text is not to be passed.
  Status take(uint32_t token);

  // The text goes on with this, however it is cut into tokens; errors as take's.
  Status take_text(std::string_view text);

  // How many of these tokens, one behind the other, are allowed from here; all of them while a
  // trigger waits. Changes nothing.
  Result<size_t> count_allowed(std::span<const uint32_t> tokens);

  // The text so far is complete, though it might go on.
  Result<bool> may_end();

 private:
  struct Free {
    void operator()(SluiceMatcher* matcher) const;
  };
  explicit Constraint(SluiceMatcher* matcher) : handle_(matcher) {}
  static Result<Constraint> open(const Tokenizer& tokenizer, uint32_t kind, std::string_view text);

  std::unique_ptr<SluiceMatcher, Free> handle_;
  std::unique_ptr<Trigger> trigger_;  // there is one as long as nothing is held
  std::vector<uint32_t> mask_;
};

}  // namespace sluice::tokenizer
