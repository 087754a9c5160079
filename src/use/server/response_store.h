// Responses that were given, so that later ones may continue them. In memory alone: the oldest are
// forgotten first, and all when the program ends.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "chat/conversation.h"

namespace sluice::server {

struct StoredResponse {
  Json response;
  std::vector<chat::Message> conversation;  // up to and with the response
};

// One thread.
class ResponseStore {
 public:
  // bytes_max: of texts and JSON, as they are written.
  ResponseStore(size_t count_max, uint64_t bytes_max)
      : count_max_(count_max), bytes_max_(bytes_max) {}

  // A response larger than all that may be kept is not kept.
  void keep(const std::string& id, StoredResponse response);
  // Null when there is none; until the next call that is not const.
  const StoredResponse* find(const std::string& id) const;
  // Whether there was one.
  bool remove(const std::string& id);
  size_t size() const { return kept_.size(); }
  uint64_t bytes() const { return bytes_; }

 private:
  struct Kept {
    StoredResponse response;
    uint64_t bytes = 0;
  };
  const size_t count_max_;
  const uint64_t bytes_max_;
  uint64_t bytes_ = 0;
  std::map<std::string, Kept> kept_;
  std::deque<std::string> order_;  // oldest first
};

}  // namespace sluice::server
