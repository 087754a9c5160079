// Ends a text that arrives in pieces at whichever stop string is complete first, and holds back
// what could still become one. Knows nothing of tokens.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sluice::chat {

// One thread.
class StopStrings {
 public:
  // Empty strings are left out.
  explicit StopStrings(std::vector<std::string> stops);

  // The text that can be shown now. Nothing comes any more once stopped().
  std::string feed(std::string_view piece);
  // What was held back, when no more is to come.
  std::string finish();

  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;  // shorter than the longest stop string
  bool stopped_ = false;
};

}  // namespace sluice::chat
