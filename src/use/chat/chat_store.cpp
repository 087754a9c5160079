#include "chat/chat_store.h"

#include <algorithm>
#include <charconv>
#include <ctime>
#include <filesystem>

namespace sluice::chat {
namespace {

constexpr int64_t kApplicationId = 0x736c6368;  // "slch"
constexpr int64_t kVersion = 1;
constexpr size_t kOpeningBytes = 200;

constexpr const char* kSchema = R"sql(
CREATE TABLE conversation (
  id INTEGER PRIMARY KEY,
  name TEXT UNIQUE,
  model TEXT NOT NULL,
  system TEXT NOT NULL,
  changed_s INTEGER NOT NULL) STRICT;
CREATE TABLE message (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  conversation INTEGER NOT NULL REFERENCES conversation ON DELETE CASCADE,
  parent INTEGER REFERENCES message ON DELETE CASCADE,
  body TEXT NOT NULL,
  model TEXT NOT NULL,
  rating INTEGER NOT NULL DEFAULT 0,
  note TEXT NOT NULL DEFAULT '',
  created_s INTEGER NOT NULL) STRICT;
CREATE INDEX message_of_conversation ON message (conversation);
CREATE TABLE branch (
  conversation INTEGER NOT NULL REFERENCES conversation ON DELETE CASCADE,
  name TEXT NOT NULL,
  start INTEGER NOT NULL,
  tip INTEGER NOT NULL,
  PRIMARY KEY (conversation, name)) STRICT;
PRAGMA application_id = 1936483176;
PRAGMA user_version = 1;
)sql";
static_assert(kApplicationId == 1936483176 && kVersion == 1);

// From a message to the beginning. Ids grow along a timeline, so that a damaged file cannot lead
// in a circle.
constexpr std::string_view kTimeline = R"sql(
WITH RECURSIVE line (id, parent, body, rating, depth) AS (
  SELECT id, parent, body, rating, 1 FROM message WHERE conversation = ?1 AND id = ?2
  UNION ALL
  SELECT message.id, message.parent, message.body, message.rating, depth + 1
  FROM message JOIN line ON message.id = line.parent
  WHERE message.conversation = ?1 AND message.id < line.id AND depth < ?3)
SELECT id, parent, body, rating FROM line ORDER BY id)sql";

int64_t now_s() { return static_cast<int64_t>(std::time(nullptr)); }

// At most so many bytes, cut between characters.
std::string beginning(std::string text, size_t bytes_max) {
  if (text.size() <= bytes_max) return text;
  while (bytes_max > 0 && (static_cast<unsigned char>(text[bytes_max]) & 0xc0) == 0x80) --bytes_max;
  text.resize(bytes_max);
  return text;
}

SqlValue parent_value(int64_t parent) {
  if (parent == 0) return nullptr;
  return parent;
}

}  // namespace

Result<ChatStore> ChatStore::open(const std::string& path) {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  if (error)
    return fail(ErrorCode::kIo, "{}: the folder cannot be made: {}", folder.string(),
                error.message());
  SLUICE_ASSIGN(Database database, Database::open(path));
  ChatStore store(std::move(database));
  SLUICE_TRY(store.prepare());
  return store;
}

// Within one transaction, so that of two processes one makes the tables and the other finds them.
Status ChatStore::prepare() {
  SLUICE_ASSIGN(Transaction transaction, Transaction::begin(database_));
  SLUICE_ASSIGN(const auto application, database_.query("PRAGMA application_id"));
  SLUICE_ASSIGN(const auto version, database_.query("PRAGMA user_version"));
  SLUICE_ASSIGN(const auto tables, database_.query("SELECT count(*) FROM sqlite_schema"));
  const int64_t found = application.at(0).integer(0);
  if (found == 0 && tables.at(0).integer(0) == 0) {
    SLUICE_TRY(database_.script(kSchema));
    return transaction.commit();
  }
  if (found != kApplicationId)
    return fail(ErrorCode::kCorrupt, "{} is another program's database, not one of chats", path());
  if (version.at(0).integer(0) != kVersion)
    return fail(ErrorCode::kUnsupported,
                "{} is of version {}, and this program knows version {} alone", path(),
                version.at(0).integer(0), kVersion);
  return transaction.commit();
}

Result<int64_t> ChatStore::create(const std::string& model, const std::string& system) {
  SLUICE_ASSIGN(Transaction transaction, Transaction::begin(database_));
  SLUICE_TRY(database_.run("INSERT INTO conversation (model, system, changed_s) VALUES (?, ?, ?)",
                           {model, system, now_s()}));
  const int64_t id = database_.last_row();
  SLUICE_TRY(
      database_.run("INSERT INTO branch (conversation, name, start, tip) VALUES (?, ?, 0, 0)",
                    {id, std::string(kFirstBranch)}));
  SLUICE_TRY(transaction.commit());
  return id;
}

Result<std::vector<ConversationSummary>> ChatStore::list(size_t count_max) {
  SLUICE_ASSIGN(
      const auto rows,
      database_.query("SELECT id, name, model, changed_s, "
                      "(SELECT count(*) FROM message WHERE conversation = c.id), "
                      "(SELECT body FROM message WHERE conversation = c.id ORDER BY id LIMIT 1) "
                      "FROM conversation AS c ORDER BY changed_s DESC, id DESC LIMIT ?",
                      {static_cast<int64_t>(count_max)}));
  std::vector<ConversationSummary> list;
  for (const SqlRow& row : rows) {
    ConversationSummary& entry = list.emplace_back();
    entry.id = row.integer(0);
    entry.name = row.text(1);
    entry.model = row.text(2);
    entry.changed_s = row.integer(3);
    entry.messages = row.integer(4);
    if (const auto body = parse_json(row.text(5), path())) {
      const Json* content = json_find(*body, "content");
      if (content != nullptr && content->is_string())
        entry.opening = beginning(content->get<std::string>(), kOpeningBytes);
    }
  }
  return list;
}

Result<int64_t> ChatStore::find(const std::string& name) {
  SLUICE_ASSIGN(const auto named,
                database_.query("SELECT id FROM conversation WHERE name = ?", {name}));
  if (!named.empty()) return named[0].integer(0);
  int64_t id = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), id);
  if (error == std::errc() && end == name.data() + name.size()) {
    SLUICE_ASSIGN(const auto numbered,
                  database_.query("SELECT id FROM conversation WHERE id = ?", {id}));
    if (!numbered.empty()) return id;
  }
  return fail(ErrorCode::kNotFound, "there is no conversation \"{}\"", name);
}

Result<std::string> ChatStore::system(int64_t conversation) {
  SLUICE_ASSIGN(const auto rows,
                database_.query("SELECT system FROM conversation WHERE id = ?", {conversation}));
  return rows.empty() ? "" : rows[0].text(0);
}

Result<std::string> ChatStore::name(int64_t conversation) {
  SLUICE_ASSIGN(const auto rows,
                database_.query("SELECT name FROM conversation WHERE id = ?", {conversation}));
  return rows.empty() ? "" : rows[0].text(0);
}

Status ChatStore::rename(int64_t conversation, const std::string& name) {
  SLUICE_ASSIGN(Transaction transaction, Transaction::begin(database_));
  SLUICE_ASSIGN(const auto taken,
                database_.query("SELECT id FROM conversation WHERE name = ? AND id <> ?",
                                {name, conversation}));
  if (!taken.empty())
    return fail(ErrorCode::kInvalidArgument, "another conversation is named \"{}\"", name);
  SLUICE_TRY(database_.run("UPDATE conversation SET name = ?, changed_s = ? WHERE id = ?",
                           {name, now_s(), conversation}));
  return transaction.commit();
}

Status ChatStore::set_system(int64_t conversation, const std::string& system) {
  return database_.run("UPDATE conversation SET system = ? WHERE id = ?", {system, conversation});
}

Result<std::vector<int64_t>> ChatStore::append(int64_t conversation, const std::string& branch,
                                               int64_t expected_tip, int64_t parent,
                                               std::span<const Message> messages,
                                               const std::string& model) {
  SLUICE_ASSIGN(Transaction transaction, Transaction::begin(database_));
  std::vector<int64_t> ids;
  for (const Message& message : messages) {
    SLUICE_TRY(database_.run(
        "INSERT INTO message (conversation, parent, body, model, created_s) VALUES (?, ?, ?, ?, ?)",
        {conversation, parent_value(parent), dump_json(message_json(message)), model, now_s()}));
    parent = database_.last_row();
    ids.push_back(parent);
  }
  SLUICE_TRY(
      database_.run("UPDATE branch SET tip = ? WHERE conversation = ? AND name = ? AND tip = ?",
                    {parent, conversation, branch, expected_tip}));
  if (database_.changed_rows() != 1)
    return fail(ErrorCode::kInvalidArgument,
                "another process has gone on with branch {} of this conversation", branch);
  SLUICE_TRY(database_.run("UPDATE conversation SET model = ?, changed_s = ? WHERE id = ?",
                           {model, now_s(), conversation}));
  SLUICE_TRY(transaction.commit());
  return ids;
}

Result<ChatStore::BranchPlaces> ChatStore::places(int64_t conversation, const std::string& branch) {
  SLUICE_ASSIGN(const auto rows,
                database_.query("SELECT start, tip FROM branch WHERE conversation = ? AND name = ?",
                                {conversation, branch}));
  if (rows.empty()) return fail(ErrorCode::kNotFound, "there is no branch \"{}\"", branch);
  return BranchPlaces{rows[0].integer(0), rows[0].integer(1)};
}

Result<int64_t> ChatStore::tip(int64_t conversation, const std::string& branch) {
  SLUICE_ASSIGN(const BranchPlaces found, places(conversation, branch));
  return found.tip;
}

Result<int64_t> ChatStore::branch_start(int64_t conversation, const std::string& name) {
  SLUICE_ASSIGN(const BranchPlaces found, places(conversation, name));
  return found.start;
}

Result<std::vector<StoredMessage>> ChatStore::timeline(int64_t conversation, int64_t tip) {
  std::vector<StoredMessage> line;
  if (tip == 0) return line;
  SLUICE_ASSIGN(const auto rows, database_.query(kTimeline, {conversation, tip,
                                                             static_cast<int64_t>(kMessagesMax)}));
  if (rows.empty() || !rows.front().is_null(1))
    return fail(ErrorCode::kCorrupt,
                "{}: message {} of conversation {} does not lead to a beginning", path(), tip,
                conversation);
  for (const SqlRow& row : rows) {
    const std::string label = fmt::format("{}: message {}", path(), row.integer(0));
    SLUICE_ASSIGN(const Json body, parse_json(row.text(2), label));
    auto message = parse_message(body, label);
    if (!message) return fail(ErrorCode::kCorrupt, "{}", message.error().message);
    line.push_back({row.integer(0), std::move(*message), static_cast<int>(row.integer(3))});
  }
  return line;
}

Status ChatStore::add_branch(int64_t conversation, const std::string& name, int64_t tip) {
  SLUICE_TRY(database_.run(
      "INSERT OR IGNORE INTO branch (conversation, name, start, tip) VALUES (?, ?, ?, ?)",
      {conversation, name, tip, tip}));
  if (database_.changed_rows() == 1) return {};
  return fail(ErrorCode::kInvalidArgument, "there is a branch \"{}\" already", name);
}

Result<std::string> ChatStore::free_branch_name(int64_t conversation, const std::string& name) {
  SLUICE_ASSIGN(const auto list, branches(conversation));
  for (size_t i = 1;; ++i) {
    std::string candidate = fmt::format("{}-{}", name, i);
    if (std::ranges::find(list, candidate, &BranchSummary::name) == list.end()) return candidate;
  }
}

// Whether the timeline that ends at tip has this message in it; every one has the beginning.
Result<bool> ChatStore::leads_through(int64_t conversation, int64_t tip, int64_t message) {
  if (message == 0) return true;
  SLUICE_ASSIGN(const auto line, timeline(conversation, tip));
  return std::ranges::find(line, message, &StoredMessage::id) != line.end();
}

// Another branch than this one that leads through the message; empty if there is none.
Result<std::string> ChatStore::holder(int64_t conversation, const std::string& name,
                                      int64_t message) {
  SLUICE_ASSIGN(const auto list, branches(conversation));
  for (const BranchSummary& branch : list) {
    if (branch.name == name) continue;
    SLUICE_ASSIGN(const bool leads, leads_through(conversation, branch.tip, message));
    if (leads) return branch.name;
  }
  return std::string();
}

Result<std::string> ChatStore::move_branch(int64_t conversation, const std::string& name,
                                           int64_t tip) {
  SLUICE_ASSIGN(Transaction transaction, Transaction::begin(database_));
  SLUICE_ASSIGN(const int64_t before, this->tip(conversation, name));
  SLUICE_ASSIGN(const bool ahead, leads_through(conversation, tip, before));
  std::string kept;
  if (!ahead) {
    SLUICE_ASSIGN(kept, holder(conversation, name, before));
    if (kept.empty()) {
      SLUICE_ASSIGN(kept, free_branch_name(conversation, name));
      SLUICE_TRY(add_branch(conversation, kept, before));
    }
  }
  SLUICE_TRY(database_.run("UPDATE branch SET tip = ? WHERE conversation = ? AND name = ?",
                           {tip, conversation, name}));
  SLUICE_TRY(transaction.commit());
  return kept;
}

Result<std::vector<BranchSummary>> ChatStore::branches(int64_t conversation) {
  SLUICE_ASSIGN(
      const auto rows,
      database_.query("SELECT name, tip FROM branch WHERE conversation = ? ORDER BY rowid",
                      {conversation}));
  std::vector<BranchSummary> list;
  for (const SqlRow& row : rows) {
    SLUICE_ASSIGN(const auto line, timeline(conversation, row.integer(1)));
    list.push_back({row.text(0), row.integer(1), static_cast<int64_t>(line.size())});
  }
  return list;
}

Result<BranchSummary> ChatStore::last_branch(int64_t conversation) {
  SLUICE_ASSIGN(const auto list, branches(conversation));
  if (list.empty())
    return fail(ErrorCode::kCorrupt, "{}: conversation {} has no branch", path(), conversation);
  // Of equals the first, which others were made from.
  return *std::ranges::max_element(list, {}, &BranchSummary::tip);
}

Status ChatStore::rate(int64_t message, int rating, const std::string& note) {
  SLUICE_TRY(database_.run("UPDATE message SET rating = ?, note = ? WHERE id = ?",
                           {int64_t{rating}, note, message}));
  if (database_.changed_rows() == 1) return {};
  return fail(ErrorCode::kNotFound, "{}: there is no message {}", path(), message);
}

}  // namespace sluice::chat
