// The text that a server's /metrics answers with (Prometheus' exposition format), read back.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace sluice::cli {

struct MetricSample {
  std::string name;
  std::map<std::string, std::string> labels;
  double value = 0;
};

// One scrape.
class Metrics {
 public:
  // label names the source in errors: kCorrupt for a line that is no sample, naming it; kExhausted
  // beyond 100,000 samples.
  static Result<Metrics> parse(std::string_view text, std::string_view label);

  // The sum over all labels; nothing where the server has no such metric.
  std::optional<double> value(std::string_view name) const;
  // The sum over those samples whose label begins so.
  double sum_where(std::string_view name, const std::string& label, std::string_view begins) const;
  // A label of the first sample of that name; empty where there is none.
  std::string label(std::string_view name, const std::string& label) const;
  // Of a histogram, interpolated within its bucket as Prometheus does; nothing while it is empty.
  std::optional<double> quantile(const std::string& name, double share) const;

 private:
  std::vector<MetricSample> samples_;
};

}  // namespace sluice::cli
