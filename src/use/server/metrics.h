// What the server counts, in the text format of Prometheus. One thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "server/model_registry.h"

namespace sluice::server {

class Histogram {
 public:
  void add(double seconds);
  std::string text(const std::string& name) const;

 private:
  static constexpr double kBounds[] = {0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,
                                       2.5,  5,     10,   30,  60,   300};
  std::vector<uint64_t> counts_ = std::vector<uint64_t>(std::size(kBounds) + 1);
  double sum_ = 0;
  uint64_t total_ = 0;
};

struct Metrics {
  std::map<std::pair<std::string, int>, uint64_t> requests;  // by route and status
  Histogram first_token_s, request_s;
};

// What is asked for when the text is made.
struct Gauges {
  const ModelRegistry* models = nullptr;
  uint64_t memory_limit_bytes = 0;
  double uptime_s = 0;
};

std::string metrics_text(const Metrics& metrics, const Gauges& gauges);

}  // namespace sluice::server
