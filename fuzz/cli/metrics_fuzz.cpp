// The answers of a server to `sluice top`: the input's first line is /slots, the rest /metrics.
// What is taken is shown in the room there is.
#include <string_view>

#include "chat/visible_text.h"
#include "cli/server_gauges.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sluice;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t line = text.find('\n');
  if (line == std::string_view::npos) return 0;
  auto slots = cli::parse_slots(text.substr(0, line), "slots");
  auto metrics = cli::Metrics::parse(text.substr(line + 1), "metrics");
  if (!metrics) {
    SLUICE_CHECK(!metrics.error().message.empty());
    return 0;
  }
  cli::ServerGauges gauges("fuzz");
  for (int time_s = 0; time_s < 2; ++time_s)
    gauges.add(
        {*metrics, slots ? *slots : std::vector<cli::ServerSlot>(), static_cast<double>(time_s)});
  const auto lines = gauges.lines(60, 20, "");
  SLUICE_CHECK(lines.size() <= 20);
  for (const std::string& shown : lines) SLUICE_CHECK(chat::text_columns(shown) <= 60);
  SLUICE_CHECK(parse_json(dump_json(gauges.json()), "fuzz").has_value());
  return 0;
}
