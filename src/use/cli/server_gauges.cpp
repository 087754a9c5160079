#include "cli/server_gauges.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/units.h"
#include "chat/visible_text.h"
#include "cli/console.h"

namespace sluice::cli {
namespace {

constexpr size_t kSpeedsMax = 512;
constexpr size_t kSlotsMax = 10'000;
constexpr size_t kLabelColumns = 10, kBarColumns = 24, kModelColumns = 32;
constexpr int64_t kCountMax = int64_t{1} << 53;  // what JSON's numbers hold exactly

std::string bytes_of(double bytes) {
  return bytes_text(static_cast<uint64_t>(std::clamp(bytes, 0.0, 9e18)));
}

std::string count_of(double count) { return fmt::format("{:.0f}", count); }

std::string shown(const std::string& text) {
  std::string line = chat::visible_text(text);
  std::ranges::replace(line, '\n', ' ');
  std::ranges::replace(line, '\t', ' ');
  return line;
}

Result<ServerSlot> parse_slot(const Json& json, const std::string& label) {
  ServerSlot slot;
  SLUICE_ASSIGN(slot.id, json_int(json, "id", 0, kCountMax, label));
  SLUICE_ASSIGN(slot.state, json_string(json, "state", label));
  if (const Json* model = json_find(json, "model"); model != nullptr && model->is_string())
    slot.model = model->get<std::string>();
  SLUICE_ASSIGN(slot.prompt_tokens, json_int(json, "prompt_tokens", 0, kCountMax, label));
  SLUICE_ASSIGN(slot.generated_tokens, json_int(json, "generated_tokens", 0, kCountMax, label));
  SLUICE_ASSIGN(slot.context, json_int(json, "context", 0, kCountMax, label));
  return slot;
}

void add_line(std::vector<std::string>& lines, std::string_view name, const std::string& text) {
  lines.push_back(fmt::format("{:<{}}{}", name, kLabelColumns, text));
}

}  // namespace

Result<std::vector<ServerSlot>> parse_slots(std::string_view text, const std::string& label) {
  SLUICE_ASSIGN(const Json json, parse_json(text, label));
  if (!json.is_array() || json.size() > kSlotsMax)
    return fail(ErrorCode::kCorrupt, "{}: expected a list of at most {} slots", label, kSlotsMax);
  std::vector<ServerSlot> slots;
  for (const Json& entry : json) {
    SLUICE_ASSIGN(slots.emplace_back(), parse_slot(entry, label));
  }
  return slots;
}

std::string sparkline(const std::deque<double>& values, size_t columns) {
  constexpr std::string_view kHeights[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  const size_t count = std::min(columns, values.size());
  const auto first = values.end() - static_cast<ptrdiff_t>(count);
  const double most = count == 0 ? 0 : *std::max_element(first, values.end());
  std::string text;
  for (auto value = first; value != values.end(); ++value) {
    const double share = most > 0 ? std::max(0.0, *value / most) : 0;
    text += kHeights[std::min<size_t>(static_cast<size_t>(share * 7.999), 7)];
  }
  return text;
}

// What both ways of showing need; nothing where the server does not say.
struct ServerGauges::Figures {
  std::optional<double> decode, prefill, resident, limit, weights, kv, context, running, queued,
      slots, uptime, disk_bytes, disk_rate, hit_rate, experts, prompt, reused, generated, first_p50,
      first_p95;
  double requests = 0, failed = 0;
};

std::optional<double> ServerGauges::rate(std::string_view counter) const {
  if (!before_) return std::nullopt;
  const auto now = last_->metrics.value(counter), then = before_->metrics.value(counter);
  const double seconds = last_->time_s - before_->time_s;
  // Less than before: another server has taken its place.
  if (!now || !then || *now < *then || seconds <= 0) return std::nullopt;
  return (*now - *then) / seconds;
}

// Since the sample before, and where nothing was asked for since then, of all.
std::optional<double> ServerGauges::hit_rate() const {
  const auto asked = rate("sluice_experts_requested_total");
  const auto hit = rate("sluice_experts_hit_total");
  if (asked && hit && *asked > 0) return *hit / *asked;
  const auto all = last_->metrics.value("sluice_experts_requested_total");
  const auto hits = last_->metrics.value("sluice_experts_hit_total");
  if (!all || !hits || *all <= 0) return std::nullopt;
  return *hits / *all;
}

ServerGauges::Figures ServerGauges::figures() const {
  const Metrics& metrics = last_->metrics;
  Figures figures;
  figures.decode = metrics.value("sluice_decode_tokens_per_second");
  figures.prefill = metrics.value("sluice_prefill_tokens_per_second");
  figures.resident = metrics.value("sluice_resident_bytes");
  figures.limit = metrics.value("sluice_memory_limit_bytes");
  figures.weights = metrics.value("sluice_weight_bytes");
  figures.kv = metrics.value("sluice_kv_bytes");
  figures.context = metrics.value("sluice_context_tokens_used");
  figures.running = metrics.value("sluice_requests_running");
  figures.queued = metrics.value("sluice_requests_queued");
  figures.slots = metrics.value("sluice_slots_total");
  figures.uptime = metrics.value("sluice_uptime_seconds");
  figures.disk_bytes = metrics.value("sluice_disk_read_bytes_total");
  figures.disk_rate = rate("sluice_disk_read_bytes_total");
  figures.experts = metrics.value("sluice_experts_requested_total");
  figures.hit_rate = hit_rate();
  figures.prompt = metrics.value("sluice_prompt_tokens_total");
  figures.reused = metrics.value("sluice_prompt_tokens_reused_total");
  figures.generated = metrics.value("sluice_generated_tokens_total");
  figures.first_p50 = metrics.quantile("sluice_time_to_first_token_seconds", 0.5);
  figures.first_p95 = metrics.quantile("sluice_time_to_first_token_seconds", 0.95);
  figures.requests = metrics.value("sluice_requests_total").value_or(0);
  figures.failed = metrics.sum_where("sluice_requests_total", "status", "4") +
                   metrics.sum_where("sluice_requests_total", "status", "5");
  return figures;
}

void ServerGauges::add(ServerSample sample) {
  before_ = std::exchange(last_, std::move(sample));
  speeds_.push_back(last_->metrics.value("sluice_decode_tokens_per_second").value_or(0));
  if (speeds_.size() > kSpeedsMax) speeds_.pop_front();
}

namespace {

using Figure = std::optional<double>;

template <class Text>
std::string text_of(const Figure& figure, Text text) {
  return figure ? text(*figure) : std::string("–");
}

std::string speed_of(double tokens_per_s) { return fmt::format("{:.1f} tokens/s", tokens_per_s); }
std::string seconds_of(double seconds) { return fmt::format("{:.2f} s", seconds); }

std::string memory_text(const Figure& resident, const Figure& limit) {
  if (!limit || *limit <= 0) return bytes_of(*resident);
  return fmt::format("{}  {} of {}", bar_text(*resident / *limit, kBarColumns), bytes_of(*resident),
                     bytes_of(*limit));
}

void add_slots(std::vector<std::string>& lines, const std::vector<ServerSlot>& slots) {
  Table table(
      {Align::kRight, Align::kLeft, Align::kRight, Align::kRight, Align::kRight, Align::kLeft});
  table.add({"slot", "state", "prompt", "written", "context", "model"});
  for (const ServerSlot& slot : slots)
    table.add({fmt::format("{}", slot.id), shown(slot.state), fmt::format("{}", slot.prompt_tokens),
               fmt::format("{}", slot.generated_tokens), fmt::format("{}", slot.context),
               std::string(chat::fitting(shown(slot.model), kModelColumns))});
  const std::string text = table.text("");
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
}

}  // namespace

void ServerGauges::add_figures(std::vector<std::string>& lines, size_t columns) const {
  const Figures now = figures();
  const Metrics& metrics = last_->metrics;
  if (now.uptime) lines[0] += "  up " + duration_text(std::max(0.0, *now.uptime));
  if (const std::string model = metrics.label("sluice_model_info", "model"); !model.empty())
    add_line(lines, "model",
             shown(model + "  " + metrics.label("sluice_model_info", "family") + "  " +
                   metrics.label("sluice_model_info", "storage")));
  constexpr size_t kSpeedColumns = 18;
  const size_t room = columns - std::min(columns, kLabelColumns + kSpeedColumns);
  add_line(lines, "decode",
           fmt::format("{:<{}}{}", text_of(now.decode, speed_of), kSpeedColumns,
                       sparkline(speeds_, room)));
  add_line(lines, "prefill", text_of(now.prefill, speed_of));
  if (now.resident)
    add_line(lines, "memory",
             fmt::format("{}  weights {}, keys and values {}", memory_text(now.resident, now.limit),
                         text_of(now.weights, bytes_of), text_of(now.kv, bytes_of)));
  if (now.hit_rate)
    add_line(
        lines, "experts",
        fmt::format("{}  {:.1f} % in memory, {} asked for", bar_text(*now.hit_rate, kBarColumns),
                    100 * *now.hit_rate, text_of(now.experts, count_of)));
  add_line(lines, "disk",
           fmt::format("{}/s  {} since the start", text_of(now.disk_rate, bytes_of),
                       text_of(now.disk_bytes, bytes_of)));
  add_line(lines, "requests",
           fmt::format("{} running, {} waiting, {:.0f} done, {:.0f} of them refused or failed",
                       text_of(now.running, count_of), text_of(now.queued, count_of), now.requests,
                       now.failed));
  add_line(lines, "tokens",
           fmt::format("{} read, {} of them kept from before; {} written; {} in the context",
                       text_of(now.prompt, count_of), text_of(now.reused, count_of),
                       text_of(now.generated, count_of), text_of(now.context, count_of)));
  if (now.first_p50)
    add_line(lines, "waiting",
             fmt::format("{} for the first token, {} in the slowest twentieth",
                         text_of(now.first_p50, seconds_of), text_of(now.first_p95, seconds_of)));
}

std::vector<std::string> ServerGauges::lines(size_t columns, size_t rows,
                                             const std::string& problem) const {
  std::vector<std::string> lines = {fmt::format("sluice top  {}", address_)};
  if (!problem.empty()) lines.push_back(shown(problem));
  if (last_) {
    add_figures(lines, columns);
    lines.emplace_back();
    add_slots(lines, last_->slots);
  }
  if (lines.size() > rows) lines.resize(rows);
  for (std::string& line : lines) line = chat::fitting(line, columns);
  return lines;
}

Json ServerGauges::json() const {
  if (!last_) return nullptr;
  const Figures now = figures();
  const auto number = [](const std::optional<double>& value) {
    return value ? Json(*value) : Json(nullptr);
  };
  Json slots = Json::array();
  for (const ServerSlot& slot : last_->slots)
    slots.push_back({{"id", slot.id},
                     {"state", slot.state},
                     {"model", slot.model},
                     {"prompt_tokens", slot.prompt_tokens},
                     {"generated_tokens", slot.generated_tokens},
                     {"context", slot.context}});
  return {{"server", address_},
          {"model", last_->metrics.label("sluice_model_info", "model")},
          {"uptime_s", number(now.uptime)},
          {"decode_tokens_per_s", number(now.decode)},
          {"prefill_tokens_per_s", number(now.prefill)},
          {"resident_bytes", number(now.resident)},
          {"memory_limit_bytes", number(now.limit)},
          {"weight_bytes", number(now.weights)},
          {"kv_bytes", number(now.kv)},
          {"context_tokens", number(now.context)},
          {"expert_hit_rate", number(now.hit_rate)},
          {"disk_read_bytes", number(now.disk_bytes)},
          {"disk_read_bytes_per_s", number(now.disk_rate)},
          {"requests_running", number(now.running)},
          {"requests_queued", number(now.queued)},
          {"requests", now.requests},
          {"requests_failed", now.failed},
          {"prompt_tokens", number(now.prompt)},
          {"prompt_tokens_reused", number(now.reused)},
          {"generated_tokens", number(now.generated)},
          {"first_token_s_p50", number(now.first_p50)},
          {"first_token_s_p95", number(now.first_p95)},
          {"slots_total", number(now.slots)},
          {"slots", std::move(slots)}};
}

}  // namespace sluice::cli
