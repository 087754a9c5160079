// What every fallible function of Sluice returns, and the check for our own promises. An Error is
// for what lies outside our control (files, memory, requests); SLUICE_CHECK is for bugs.
#pragma once

#include <fmt/format.h>

#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace sluice {

enum class ErrorCode {
  kNotFound,         // a file or tensor that should be there is not
  kCorrupt,          // bytes that contradict their own format
  kUnsupported,      // well formed, but not something Sluice handles
  kInvalidArgument,  // a request that cannot be met, such as a budget below the smallest plan
  kIo,               // the operating system failed a read, write, sync or rename
  kExhausted,        // no space or no memory left
  kCancelled,        // interrupted by the user; the work can be resumed
};

std::string_view error_code_name(ErrorCode code);

// message: one sentence naming file, tensor, offset, expected and found as far as they apply,
// optionally a second one saying what to do.
struct Error {
  ErrorCode code;
  std::string message;
};

template <class T>
using Result = std::expected<T, Error>;
using Status = Result<void>;

template <class... Args>
[[nodiscard]] std::unexpected<Error> fail(ErrorCode code, fmt::format_string<Args...> format,
                                          Args&&... args) {
  return std::unexpected(Error{code, fmt::format(format, std::forward<Args>(args)...)});
}

// Prefixes the message of an error that crosses a boundary worth naming.
[[nodiscard]] inline std::unexpected<Error> in_context(std::string_view context, Error error) {
  return std::unexpected(Error{error.code, fmt::format("{}: {}", context, error.message)});
}

[[noreturn]] void check_failed(const char* expression, const char* file, int line);

}  // namespace sluice

#define SLUICE_CONCAT_INNER(a, b) a##b
#define SLUICE_CONCAT(a, b) SLUICE_CONCAT_INNER(a, b)

// SLUICE_TRY(status_expression); returns the error to the caller.
#define SLUICE_TRY(expression)                                  \
  do {                                                          \
    if (auto sluice_status = (expression); !sluice_status)      \
      return std::unexpected(std::move(sluice_status).error()); \
  } while (false)

// SLUICE_ASSIGN(auto value, result_expression); declares or assigns value, or returns the error.
#define SLUICE_ASSIGN(declaration, expression) \
  SLUICE_ASSIGN_INNER(SLUICE_CONCAT(sluice_result_, __LINE__), declaration, expression)
#define SLUICE_ASSIGN_INNER(temporary, declaration, expression)         \
  auto temporary = (expression);                                        \
  if (!temporary) return std::unexpected(std::move(temporary).error()); \
  declaration = std::move(*temporary)

// A broken promise between our own functions; stays on in release builds.
#define SLUICE_CHECK(condition)                               \
  do {                                                        \
    if (!(condition)) [[unlikely]]                            \
      ::sluice::check_failed(#condition, __FILE__, __LINE__); \
  } while (false)

// For inner loops: on only in builds without NDEBUG.
#ifdef NDEBUG
#define SLUICE_DCHECK(condition) \
  do {                           \
  } while (false)
#else
#define SLUICE_DCHECK(condition) SLUICE_CHECK(condition)
#endif
