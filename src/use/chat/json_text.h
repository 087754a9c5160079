// Parts of a JSON text as they are written: what a model wrote keeps its order and its numbers.
#pragma once

#include <optional>
#include <string_view>

namespace sluice::chat {

// Where a value ends that comes in pieces: an object, a list or a string. Looks at strings and
// brackets alone, so a parser has still to check the value.
class JsonExtent {
 public:
  // depth: of brackets that are open already.
  explicit JsonExtent(size_t depth = 0) : depth_(depth) {}

  // How many bytes of the next piece belong to the value; all of them, until it is done.
  size_t take(std::string_view piece);
  bool done() const { return done_; }

 private:
  size_t depth_;
  bool in_string_ = false, escaped_ = false, done_ = false;
};

// Where the value that text begins with ends; npos where it does not end, or begin. As
// JsonExtent has it.
size_t json_value_end(std::string_view text);

// The value of an object's key, the outermost level only. object: valid JSON.
std::optional<std::string_view> json_member(std::string_view object, std::string_view key);

// Without the blank space around it.
std::string_view trimmed(std::string_view text);

}  // namespace sluice::chat
