// Where messages and progress go. The modules below cli only know these interfaces; cli decides
// whether that is a progress bar, a plain line now and then, or nothing.
#pragma once

#include <cstdint>
#include <string_view>

namespace sluice {

// Thread-safe.
class Log {
 public:
  virtual ~Log() = default;
  virtual void info(std::string_view message) = 0;
  virtual void warn(std::string_view message) = 0;
};

// Thread-safe. advance() is called with the bytes of finished work since the last call.
class Progress {
 public:
  virtual ~Progress() = default;
  virtual void begin(std::string_view stage, uint64_t total_bytes) = 0;
  virtual void advance(uint64_t bytes) = 0;
  virtual void end() = 0;
};

// Discards everything.
class NullLog : public Log {
 public:
  void info(std::string_view) override {}
  void warn(std::string_view) override {}
};
class NullProgress : public Progress {
 public:
  void begin(std::string_view, uint64_t) override {}
  void advance(uint64_t) override {}
  void end() override {}
};

}  // namespace sluice
