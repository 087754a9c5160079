#include "cli/kept_talk.h"

#include <algorithm>
#include <ranges>

namespace sluice::cli {
namespace {

constexpr size_t kListMax = 50;

}  // namespace

std::vector<chat::Message> KeptTalk::all() const {
  std::vector<chat::Message> list;
  if (!system_.empty()) list.push_back({.role = chat::Role::kSystem, .content = system_});
  for (const chat::StoredMessage& entry : messages_) list.push_back(entry.message);
  return list;
}

void KeptTalk::begin(std::string system) {
  system_ = std::move(system);
  branch_ = chat::kFirstBranch;
  messages_.clear();
  conversation_ = tip_ = 0;
}

void KeptTalk::begin(std::string system, std::vector<chat::Message> messages) {
  begin(std::move(system));
  use(messages);
}

void KeptTalk::use(const std::vector<chat::Message>& messages) {
  for (const chat::Message& message : messages) messages_.push_back({0, message, 0});
}

// What cannot be kept is said once, and the conversation goes on.
void KeptTalk::put(size_t keep_count, std::vector<chat::Message> messages,
                   const std::string& model) {
  messages_.resize(keep_count);
  use(messages);
  if (!automatic_ && conversation_ == 0) return;
  if (const Status kept = keep(model); !kept) {
    console_.error(fmt::format("{}; this conversation is not kept", kept.error().message));
    automatic_ = false;
    conversation_ = 0;
  }
}

Result<chat::ChatStore*> KeptTalk::store() {
  if (store_) return &*store_;
  if (folder_.empty())
    return fail(ErrorCode::kInvalidArgument,
                "there is no folder for conversations: neither XDG_DATA_HOME nor HOME is set");
  SLUICE_ASSIGN(store_, chat::ChatStore::open(folder_ + "/chats.db"));
  return &*store_;
}

// Writes what is not in the store.
Status KeptTalk::keep(const std::string& model) {
  SLUICE_ASSIGN(chat::ChatStore* const store, this->store());
  if (conversation_ == 0) {
    SLUICE_ASSIGN(conversation_, store->create(model, system_));
    tip_ = 0;
    for (chat::StoredMessage& entry : messages_) entry.id = 0;
    if (branch_ != chat::kFirstBranch) branch_ = chat::kFirstBranch;
  }
  const auto first = std::ranges::find(messages_, 0, &chat::StoredMessage::id);
  const int64_t parent = first == messages_.begin() ? 0 : std::prev(first)->id;
  if (first == messages_.end()) {
    if (parent == tip_) return {};
    SLUICE_TRY(store->move_branch(conversation_, branch_, parent));
    tip_ = parent;
    return {};
  }
  std::vector<chat::Message> fresh;
  for (auto entry = first; entry != messages_.end(); ++entry) fresh.push_back(entry->message);
  auto ids = store->append(conversation_, branch_, tip_, parent, fresh, model);
  if (!ids && ids.error().code == ErrorCode::kInvalidArgument) {
    // Another process goes on with the same branch: this one gets its own.
    SLUICE_ASSIGN(const std::string name, store->free_branch_name(conversation_, branch_));
    SLUICE_TRY(store->add_branch(conversation_, name, parent));
    console_.warn(fmt::format("{}; here it goes on as branch {}", ids.error().message, name));
    branch_ = name;
    ids = store->append(conversation_, branch_, parent, parent, fresh, model);
  }
  if (!ids) return std::unexpected(ids.error());
  for (size_t i = 0; i < ids->size(); ++i) (first + static_cast<ptrdiff_t>(i))->id = (*ids)[i];
  tip_ = messages_.back().id;
  return {};
}

Status KeptTalk::branch_off(const std::string& name, const std::string& model) {
  SLUICE_TRY(keep(model));
  SLUICE_TRY(store_->add_branch(conversation_, name, tip_));
  branch_ = name;
  return {};
}

Result<std::string> KeptTalk::restore(const std::string& name, const std::string& model) {
  SLUICE_TRY(keep(model));
  std::string kept;
  if (name == branch_) {
    SLUICE_ASSIGN(const int64_t start, store_->branch_start(conversation_, name));
    SLUICE_ASSIGN(kept, store_->move_branch(conversation_, name, start));
  }
  SLUICE_ASSIGN(const int64_t tip, store_->tip(conversation_, name));
  SLUICE_ASSIGN(messages_, store_->timeline(conversation_, tip));
  branch_ = name;
  tip_ = tip;
  return kept;
}

Status KeptTalk::save(const std::string& name, const std::string& model) {
  SLUICE_TRY(keep(model));
  return store_->rename(conversation_, name);
}

Status KeptTalk::load(const std::string& name) {
  SLUICE_ASSIGN(chat::ChatStore* const store, this->store());
  SLUICE_ASSIGN(const int64_t conversation, store->find(name));
  SLUICE_ASSIGN(const auto branch, store->last_branch(conversation));
  SLUICE_ASSIGN(auto messages, store->timeline(conversation, branch.tip));
  SLUICE_ASSIGN(system_, store->system(conversation));
  messages_ = std::move(messages);
  conversation_ = conversation;
  branch_ = branch.name;
  tip_ = branch.tip;
  return {};
}

Status KeptTalk::rate(int rating, const std::string& note, const std::string& model) {
  const auto last = std::ranges::find_if(messages_ | std::views::reverse, [](const auto& entry) {
    return entry.message.role == chat::Role::kAssistant;
  });
  if (last == messages_.rend())
    return fail(ErrorCode::kInvalidArgument, "there is no answer yet to rate");
  SLUICE_TRY(keep(model));
  SLUICE_TRY(store_->rate(last->id, rating, note));
  last->rating = rating;
  return {};
}

Result<std::string> KeptTalk::replace(std::vector<chat::Message> messages,
                                      const std::string& model) {
  std::string kept;
  if (automatic_ || conversation_ != 0) {
    SLUICE_TRY(keep(model));
    SLUICE_ASSIGN(kept, store_->free_branch_name(conversation_, "before-compact"));
    SLUICE_TRY(store_->add_branch(conversation_, kept, tip_));
  }
  put(0, std::move(messages), model);
  return kept;
}

Result<std::vector<chat::ConversationSummary>> KeptTalk::conversations() {
  SLUICE_ASSIGN(chat::ChatStore* const store, this->store());
  return store->list(kListMax);
}

Result<std::vector<chat::BranchSummary>> KeptTalk::branches(const std::string& model) {
  SLUICE_TRY(keep(model));
  return store_->branches(conversation_);
}

std::string KeptTalk::session_path() const {
  return conversation_ == 0 ? "" : fmt::format("{}/sessions/{}", folder_, conversation_);
}

}  // namespace sluice::cli
