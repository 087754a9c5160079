// SQLite behind the few calls that the chat store needs, with errors as values; no other file knows
// the library. What the tables mean is chat_store's business.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"

struct sqlite3;
struct sqlite3_stmt;

namespace sluice::chat {

using SqlValue = std::variant<std::nullptr_t, int64_t, std::string>;

// A row of results; what is of another type reads as 0 or "".
class SqlRow {
 public:
  explicit SqlRow(std::vector<SqlValue> values) : values_(std::move(values)) {}
  int64_t integer(size_t column) const;
  std::string text(size_t column) const;
  bool is_null(size_t column) const;

 private:
  std::vector<SqlValue> values_;
};

// One thread. Other processes may use the same file: a statement waits for them for some seconds.
class Database {
 public:
  // Creates the file, readable by its owner alone, where there is none. kCorrupt when it is no
  // database or a damaged one; kIo.
  static Result<Database> open(const std::string& path);

  // All rows of one statement. kCorrupt, kExhausted (no space), kIo (locked, unwritable), each
  // naming the file.
  Result<std::vector<SqlRow>> query(std::string_view sql,
                                    std::initializer_list<SqlValue> values = {});
  Status run(std::string_view sql, std::initializer_list<SqlValue> values = {});
  // Several statements without values.
  Status script(const char* sql);
  int64_t last_row() const;
  int64_t changed_rows() const;  // by the last statement

  const std::string& path() const { return path_; }

 private:
  struct Close {
    void operator()(sqlite3* handle) const;
  };
  explicit Database(std::string path) : path_(std::move(path)) {}
  std::unexpected<Error> failed(int code) const;

  std::string path_;
  std::unique_ptr<sqlite3, Close> handle_;
};

// Everything until commit() happens or nothing of it; undone on destruction.
class Transaction {
 public:
  static Result<Transaction> begin(Database& database);
  Transaction(Transaction&& other) noexcept : database_(std::exchange(other.database_, nullptr)) {}
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();
  Status commit();

 private:
  explicit Transaction(Database* database) : database_(database) {}
  Database* database_;
};

}  // namespace sluice::chat
