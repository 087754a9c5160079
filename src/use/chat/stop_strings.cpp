#include "chat/stop_strings.h"

#include <algorithm>
#include <utility>

#include "chat/overlap.h"

namespace sluice::chat {

StopStrings::StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase(stops_, "");
}

// The one that is complete first stops; of those complete at once, the longest.
std::string StopStrings::feed(std::string_view piece) {
  if (stopped_) return {};
  const size_t old_size = held_.size();
  held_ += piece;
  for (size_t end = old_size + 1; end <= held_.size() && !stopped_; ++end) {
    const std::string_view text = std::string_view(held_).substr(0, end);
    size_t longest = 0;
    for (const std::string& stop : stops_)
      if (text.ends_with(stop)) longest = std::max(longest, stop.size());
    stopped_ = longest > 0;
    if (stopped_) held_.resize(end - longest);
  }
  size_t keep = 0;
  for (const std::string& stop : stops_) keep = std::max(keep, overlap(held_, stop));
  const size_t shown = stopped_ ? held_.size() : held_.size() - keep;
  std::string text = held_.substr(0, shown);
  held_.erase(0, shown);
  return text;
}

std::string StopStrings::finish() { return std::exchange(held_, {}); }

}  // namespace sluice::chat
