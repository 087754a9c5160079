#include "chat/sqlite.h"

#include <sqlite3.h>
#include <sys/stat.h>

namespace sluice::chat {
namespace {

constexpr int kWaitMs = 5000;
constexpr int kValueBytesMax = 64 << 20;
constexpr int kSqlBytesMax = 1 << 16;

struct Finalize {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using Statement = std::unique_ptr<sqlite3_stmt, Finalize>;

int bind(sqlite3_stmt* statement, int place, const SqlValue& value) {
  if (const auto* number = std::get_if<int64_t>(&value))
    return sqlite3_bind_int64(statement, place, *number);
  if (const auto* text = std::get_if<std::string>(&value))
    return sqlite3_bind_text64(statement, place, text->data(), text->size(), SQLITE_TRANSIENT,
                               SQLITE_UTF8);
  return sqlite3_bind_null(statement, place);
}

SqlValue column_value(sqlite3_stmt* statement, int column) {
  switch (sqlite3_column_type(statement, column)) {
    case SQLITE_INTEGER: return static_cast<int64_t>(sqlite3_column_int64(statement, column));
    case SQLITE_TEXT: {
      const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement, column));
      return std::string(text, static_cast<size_t>(sqlite3_column_bytes(statement, column)));
    }
    default: return nullptr;
  }
}

SqlRow row_of(sqlite3_stmt* statement) {
  std::vector<SqlValue> values;
  const int count = sqlite3_column_count(statement);
  for (int column = 0; column < count; ++column) values.push_back(column_value(statement, column));
  return SqlRow(std::move(values));
}

// A file that somebody else prepared must not make the library do more than read and write it.
void harden(sqlite3* handle) {
  sqlite3_extended_result_codes(handle, 1);
  sqlite3_busy_timeout(handle, kWaitMs);
  sqlite3_limit(handle, SQLITE_LIMIT_LENGTH, kValueBytesMax);
  sqlite3_limit(handle, SQLITE_LIMIT_SQL_LENGTH, kSqlBytesMax);
  sqlite3_limit(handle, SQLITE_LIMIT_ATTACHED, 0);
  sqlite3_db_config(handle, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
}

}  // namespace

int64_t SqlRow::integer(size_t column) const {
  const auto* number = std::get_if<int64_t>(&values_.at(column));
  return number == nullptr ? 0 : *number;
}

std::string SqlRow::text(size_t column) const {
  const auto* text = std::get_if<std::string>(&values_.at(column));
  return text == nullptr ? "" : *text;
}

bool SqlRow::is_null(size_t column) const {
  return std::holds_alternative<std::nullptr_t>(values_.at(column));
}

void Database::Close::operator()(sqlite3* handle) const { sqlite3_close(handle); }

Result<Database> Database::open(const std::string& path) {
  Database database(path);
  sqlite3* handle = nullptr;
  constexpr int kFlags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
  const mode_t before = umask(0077);
  const int code = sqlite3_open_v2(path.c_str(), &handle, kFlags, nullptr);
  database.handle_.reset(handle);  // there even where opening failed
  if (code == SQLITE_OK) {
    harden(handle);
    // A quarter of a megabyte of pages suffices; what is committed has reached the disk.
    const Status set = database.script("PRAGMA cache_size = -256; PRAGMA synchronous = FULL");
    const Status good = set ? database.script("PRAGMA foreign_keys = ON") : set;
    umask(before);
    if (!good) return std::unexpected(good.error());
    return database;
  }
  umask(before);
  return database.failed(code);
}

std::unexpected<Error> Database::failed(int code) const {
  const std::string reason = handle_ ? sqlite3_errmsg(handle_.get()) : sqlite3_errstr(code);
  switch (code & 0xff) {
    case SQLITE_NOTADB:
      return fail(ErrorCode::kCorrupt, "{} is no database; move it away to begin with a new one",
                  path_);
    case SQLITE_CORRUPT:
      return fail(ErrorCode::kCorrupt, "{} is damaged ({}); move it away to begin with a new one",
                  path_, reason);
    case SQLITE_FULL:
      return fail(ErrorCode::kExhausted, "{}: there is no space left to write", path_);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return fail(ErrorCode::kIo, "{}: another process has been writing for {} s", path_,
                  kWaitMs / 1000);
    case SQLITE_NOMEM: return fail(ErrorCode::kExhausted, "{}: there is no memory left", path_);
    case SQLITE_TOOBIG:
      return fail(ErrorCode::kInvalidArgument, "{}: a value has more than {} bytes", path_,
                  kValueBytesMax);
    default: return fail(ErrorCode::kIo, "{}: {}", path_, reason);
  }
}

Result<std::vector<SqlRow>> Database::query(std::string_view sql,
                                            std::initializer_list<SqlValue> values) {
  sqlite3_stmt* prepared = nullptr;
  int code = sqlite3_prepare_v2(handle_.get(), sql.data(), static_cast<int>(sql.size()), &prepared,
                                nullptr);
  const Statement statement(prepared);
  if (code != SQLITE_OK) return failed(code);
  int place = 0;
  for (const SqlValue& value : values)
    if ((code = bind(prepared, ++place, value)) != SQLITE_OK) return failed(code);
  std::vector<SqlRow> rows;
  while ((code = sqlite3_step(prepared)) == SQLITE_ROW) rows.push_back(row_of(prepared));
  if (code != SQLITE_DONE) return failed(code);
  return rows;
}

Status Database::run(std::string_view sql, std::initializer_list<SqlValue> values) {
  SLUICE_TRY(query(sql, values));
  return {};
}

Status Database::script(const char* sql) {
  const int code = sqlite3_exec(handle_.get(), sql, nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) return failed(code);
  return {};
}

int64_t Database::last_row() const { return sqlite3_last_insert_rowid(handle_.get()); }
int64_t Database::changed_rows() const { return sqlite3_changes64(handle_.get()); }

Result<Transaction> Transaction::begin(Database& database) {
  SLUICE_TRY(database.script("BEGIN IMMEDIATE"));
  return Transaction(&database);
}

Transaction::~Transaction() {
  if (database_ == nullptr) return;
  // Where this fails, closing the file undoes it, and so does whoever opens it next.
  static_cast<void>(database_->script("ROLLBACK"));
}

Status Transaction::commit() {
  SLUICE_TRY(database_->script("COMMIT"));
  database_ = nullptr;
  return {};
}

}  // namespace sluice::chat
