#include "cli/metrics_text.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>

namespace sluice::cli {
namespace {

constexpr size_t kSamplesMax = 100'000;
constexpr std::string_view kNameLetters =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_:";

void skip_spaces(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
}

std::optional<std::string> take_name(std::string_view& text) {
  const size_t length = std::min(text.find_first_not_of(kNameLetters), text.size());
  if (length == 0) return std::nullopt;
  std::string name(text.substr(0, length));
  text.remove_prefix(length);
  return name;
}

// A value in quotes, with \\, \" and \n.
std::optional<std::string> take_quoted(std::string_view& text) {
  if (!text.starts_with('"')) return std::nullopt;
  std::string value;
  for (size_t i = 1; i < text.size(); ++i) {
    if (text[i] == '"') {
      text.remove_prefix(i + 1);
      return value;
    }
    if (text[i] == '\\' && i + 1 < text.size()) {
      ++i;
      value += text[i] == 'n' ? '\n' : text[i];
    } else {
      value += text[i];
    }
  }
  return std::nullopt;
}

bool take_labels(std::string_view& text, std::map<std::string, std::string>& labels) {
  if (!text.starts_with('{')) return true;
  text.remove_prefix(1);
  for (;;) {
    skip_spaces(text);
    if (text.starts_with('}')) {
      text.remove_prefix(1);
      return true;
    }
    auto name = take_name(text);
    if (!name || !text.starts_with('=')) return false;
    text.remove_prefix(1);
    auto value = take_quoted(text);
    if (!value) return false;
    labels[*name] = std::move(*value);
    skip_spaces(text);
    if (text.starts_with(','))
      text.remove_prefix(1);
    else if (!text.starts_with('}'))
      return false;
  }
}

// A number, and behind it perhaps a time, which says nothing here.
std::optional<double> take_number(std::string_view text) {
  skip_spaces(text);
  const std::string number(text.substr(0, text.find_first_of(" \t\r")));
  char* end = nullptr;
  const double value = std::strtod(number.c_str(), &end);
  if (number.empty() || *end != '\0') return std::nullopt;
  return value;
}

std::optional<MetricSample> sample_of(std::string_view line) {
  MetricSample sample;
  auto name = take_name(line);
  if (!name || !take_labels(line, sample.labels)) return std::nullopt;
  const auto value = take_number(line);
  if (!value) return std::nullopt;
  sample.name = std::move(*name);
  sample.value = *value;
  return sample;
}

}  // namespace

Result<Metrics> Metrics::parse(std::string_view text, std::string_view label) {
  Metrics metrics;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    skip_spaces(line);
    if (line.empty() || line == "\r" || line.starts_with('#')) continue;
    auto sample = sample_of(line);
    if (!sample) return fail(ErrorCode::kCorrupt, "{}: line {} is no metric", label, number);
    metrics.samples_.push_back(std::move(*sample));
    if (metrics.samples_.size() > kSamplesMax)
      return fail(ErrorCode::kExhausted, "{}: more than {} samples", label, kSamplesMax);
  }
  return metrics;
}

std::optional<double> Metrics::value(std::string_view name) const {
  std::optional<double> sum;
  for (const MetricSample& sample : samples_)
    if (sample.name == name && std::isfinite(sample.value)) sum = sum.value_or(0) + sample.value;
  return sum;
}

double Metrics::sum_where(std::string_view name, const std::string& label,
                          std::string_view begins) const {
  double sum = 0;
  for (const MetricSample& sample : samples_) {
    const auto found = sample.labels.find(label);
    if (sample.name == name && std::isfinite(sample.value) && found != sample.labels.end() &&
        found->second.starts_with(begins))
      sum += sample.value;
  }
  return sum;
}

std::string Metrics::label(std::string_view name, const std::string& label) const {
  for (const MetricSample& sample : samples_) {
    const auto found = sample.labels.find(label);
    if (sample.name == name && found != sample.labels.end()) return found->second;
  }
  return "";
}

std::optional<double> Metrics::quantile(const std::string& name, double share) const {
  std::map<double, double> counts;  // at most so long: how many
  for (const MetricSample& sample : samples_) {
    const auto bound = sample.labels.find("le");
    if (sample.name != name + "_bucket" || bound == sample.labels.end()) continue;
    const double limit = std::strtod(bound->second.c_str(), nullptr);
    if (!std::isnan(limit) && std::isfinite(sample.value)) counts[limit] += sample.value;
  }
  if (counts.empty() || counts.rbegin()->second <= 0) return std::nullopt;
  const double wanted = share * counts.rbegin()->second;
  double before = 0, below = 0;
  for (const auto& [limit, count] : counts) {
    if (count >= wanted) {
      if (std::isinf(limit)) return before;
      const double inside = count - below;
      return inside <= 0 ? limit : before + (limit - before) * (wanted - below) / inside;
    }
    before = limit;
    below = count;
  }
  return before;
}

}  // namespace sluice::cli
