#include "server/response_store.h"

namespace sluice::server {
namespace {

uint64_t bytes_of(const StoredResponse& stored) {
  uint64_t bytes = dump_json(stored.response).size();
  for (const chat::Message& message : stored.conversation) {
    bytes += sizeof message + message.content.size() + message.reasoning.size();
    for (const chat::MessageCall& call : message.tool_calls)
      bytes += sizeof call + call.name.size() + call.arguments.size();
  }
  return bytes;
}

}  // namespace

void ResponseStore::keep(const std::string& id, StoredResponse response) {
  remove(id);
  const uint64_t bytes = bytes_of(response);
  if (bytes > bytes_max_ || count_max_ == 0) return;
  while (!kept_.empty() && (bytes_ + bytes > bytes_max_ || kept_.size() >= count_max_))
    remove(order_.front());
  kept_[id] = {std::move(response), bytes};
  bytes_ += bytes;
  order_.push_back(id);
}

const StoredResponse* ResponseStore::find(const std::string& id) const {
  const auto found = kept_.find(id);
  return found == kept_.end() ? nullptr : &found->second.response;
}

bool ResponseStore::remove(const std::string& id) {
  const auto found = kept_.find(id);
  if (found == kept_.end()) return false;
  bytes_ -= found->second.bytes;
  kept_.erase(found);
  std::erase(order_, id);
  return true;
}

}  // namespace sluice::server
