// A running server in figures: what `sluice top` shows of /metrics and /slots. Nothing here asks
// the network or moves the cursor.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "cli/metrics_text.h"

namespace sluice::cli {

struct ServerSlot {
  int64_t id = 0;
  std::string state, model;
  int64_t prompt_tokens = 0, generated_tokens = 0, context = 0;
};
// The answer of /slots. Errors: kCorrupt naming what is wrong; label: the address.
Result<std::vector<ServerSlot>> parse_slots(std::string_view text, const std::string& label);

// One look at the server.
struct ServerSample {
  Metrics metrics;
  std::vector<ServerSlot> slots;
  double time_s = 0;  // of a clock that never goes back
};

// Samples one after another. One thread.
class ServerGauges {
 public:
  explicit ServerGauges(std::string address) : address_(std::move(address)) {}

  void add(ServerSample sample);

  // Lines no wider than columns and no more than rows of them, without line ends. problem: why
  // there is no newer sample; empty: there is.
  std::vector<std::string> lines(size_t columns, size_t rows, const std::string& problem) const;
  Json json() const;

 private:
  struct Figures;
  Figures figures() const;
  void add_figures(std::vector<std::string>& lines, size_t columns) const;
  // Of a counter: what was added per second since the sample before.
  std::optional<double> rate(std::string_view counter) const;
  std::optional<double> hit_rate() const;

  const std::string address_;
  std::optional<ServerSample> last_, before_;
  std::deque<double> speeds_;  // tokens per second, the latest last
};

// The last values as small columns, the largest of them as high as a line.
std::string sparkline(const std::deque<double>& values, size_t columns);

}  // namespace sluice::cli
