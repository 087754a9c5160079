#include "server/metrics.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/machine.h"

namespace sluice::server {
namespace {

// A label's value: backslash, quote and line feed have a meaning.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    out += c == '\n' ? std::string("\\n") : std::string(1, c);
  }
  return out;
}

template <class Number>
std::string line(std::string_view name, std::string_view kind, Number value) {
  return fmt::format("# TYPE sluice_{0} {1}\nsluice_{0} {2}\n", name, kind, value);
}

}  // namespace

void Histogram::add(double seconds) {
  ++counts_[static_cast<size_t>(std::ranges::lower_bound(kBounds, seconds) - std::begin(kBounds))];
  ++total_;
  sum_ += seconds;
}

std::string Histogram::text(const std::string& name) const {
  std::string text = fmt::format("# TYPE sluice_{} histogram\n", name);
  uint64_t below = 0;
  for (size_t i = 0; i < std::size(kBounds); ++i) {
    below += counts_[i];
    text += fmt::format("sluice_{}_bucket{{le=\"{}\"}} {}\n", name, kBounds[i], below);
  }
  return text + fmt::format(
                    "sluice_{0}_bucket{{le=\"+Inf\"}} {1}\nsluice_{0}_sum {2}\n"
                    "sluice_{0}_count {1}\n",
                    name, total_, sum_);
}

std::string metrics_text(const Metrics& metrics, const Gauges& gauges) {
  const RegistryState registry = gauges.models->state();
  const SchedulerState& state = registry.scheduler;
  uint64_t used = 0, weights = 0, kv = 0;
  std::string models;
  for (const size_t index : registry.loaded) {
    const runtime::Engine& engine = *gauges.models->loaded(index)->chat.engine;
    weights += engine.info().weight_bytes;
    kv += engine.memory().kv;
    models += fmt::format("sluice_model_info{{model=\"{}\",family=\"{}\",storage=\"{}\"}} 1\n",
                          escaped(gauges.models->card(index).name), escaped(engine.info().family),
                          escaped(engine.info().storage));
  }
  for (const SlotState& slot : state.slots) used += slot.context_tokens;
  std::string text = "# TYPE sluice_requests_total counter\n";
  for (const auto& [key, count] : metrics.requests)
    text += fmt::format("sluice_requests_total{{path=\"{}\",status=\"{}\"}} {}\n",
                        escaped(key.first), key.second, count);
  text += line("prompt_tokens_total", "counter", state.prompt_tokens);
  text += line("generated_tokens_total", "counter", state.generated_tokens);
  text += line("prompt_tokens_reused_total", "counter", state.reused_tokens);
  text += line("disk_read_bytes_total", "counter", state.reads.bytes_read);
  text += line("experts_requested_total", "counter", state.reads.experts_requested);
  text += line("experts_hit_total", "counter", state.reads.experts_there);
  text += line("requests_running", "gauge", state.running);
  text += line("requests_queued", "gauge", state.queued);
  text += line("slots_total", "gauge", state.slots.size());
  text += line("resident_bytes", "gauge", resident_bytes());
  text += line("memory_limit_bytes", "gauge", gauges.memory_limit_bytes);
  text += line("weight_bytes", "gauge", weights);
  text += line("kv_bytes", "gauge", kv);
  text += line("context_tokens_used", "gauge", used);
  text += line("decode_tokens_per_second", "gauge", state.decode_tokens_s);
  text += line("prefill_tokens_per_second", "gauge", state.prefill_tokens_s);
  text += line("uptime_seconds", "gauge", gauges.uptime_s);
  text += line("model_loads_total", "counter", registry.loads);
  text += "# TYPE sluice_model_info gauge\n" + models;
  return text + metrics.first_token_s.text("time_to_first_token_seconds") +
         metrics.request_s.text("request_seconds");
}

}  // namespace sluice::server
