#include "runtime/expert_trace.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "base/json.h"

namespace sluice::runtime {
namespace {

constexpr std::string_view kFormat = "sluice-expert-trace";
constexpr uint64_t kVersion = 1;
constexpr uint64_t kExpertsMax = 1 << 20, kLayersMax = 1 << 16;

std::unexpected<Error> bad_line(const std::string& name, size_t line, std::string_view what) {
  return fail(ErrorCode::kCorrupt, "{}: line {}: {}", name, line, what);
}

bool is_number(const Json& value, uint64_t most) {
  return value.is_number_unsigned() && value.get<uint64_t>() <= most;
}

Result<ExpertTrace> parse_header(const Json& json, const std::string& name) {
  ExpertTrace trace;
  const Json* format = json_find(json, "format");
  const Json* version = json_find(json, "version");
  if (format == nullptr || *format != kFormat)
    return bad_line(name, 1, "no header of a trace of experts");
  if (version == nullptr || *version != kVersion)
    return fail(ErrorCode::kUnsupported, "{}: a trace of another version than {}", name, kVersion);
  const Json* experts = json_find(json, "experts");
  const Json* chosen = json_find(json, "experts_per_token");
  if (experts == nullptr || !experts->is_array() || experts->empty() ||
      experts->size() > kLayersMax || chosen == nullptr || !is_number(*chosen, kExpertsMax))
    return bad_line(name, 1, "the experts of each layer and those of a token are wanted");
  for (const Json& count : *experts) {
    if (!is_number(count, kExpertsMax) || count == 0)
      return bad_line(name, 1, "a layer's number of experts is out of range");
    trace.experts.push_back(count.get<uint32_t>());
  }
  trace.experts_per_token = chosen->get<uint32_t>();
  return trace;
}

// [layer, tokens, expert, tokens, expert, tokens, …]
Status parse_step(const Json& json, const std::string& name, size_t line, ExpertTrace& trace) {
  const auto whole = [](const Json& value) { return is_number(value, UINT32_MAX); };
  if (!json.is_array() || json.size() < 4 || json.size() % 2 != 0 ||
      !std::ranges::all_of(json, whole))
    return bad_line(name, line, "a step is a list of whole numbers: layer, tokens, and pairs");
  ExpertTrace::Step step{.layer = json[0].get<uint32_t>(),
                         .tokens = json[1].get<uint32_t>(),
                         .first = static_cast<uint32_t>(trace.uses.size()),
                         .count = static_cast<uint32_t>(json.size() / 2 - 1)};
  if (step.layer >= trace.experts.size() || step.tokens == 0)
    return bad_line(name, line, "the layer, or the number of tokens, is out of range");
  for (size_t i = 2; i < json.size(); i += 2) {
    const ExpertTrace::Use use{json[i].get<uint32_t>(), json[i + 1].get<uint32_t>()};
    if (use.expert >= trace.experts[step.layer] || use.tokens == 0 || use.tokens > step.tokens)
      return bad_line(name, line, "an expert, or its number of tokens, is out of range");
    if (i > 2 && use.expert <= trace.uses.back().expert)
      return bad_line(name, line, "experts are not in rising order");
    trace.uses.push_back(use);
  }
  trace.steps.push_back(step);
  return {};
}

// When each use's expert is used again: the index of that step, or the number of steps.
std::vector<uint32_t> next_uses(const ExpertTrace& trace, std::span<const size_t> first_of_layer) {
  const auto never = static_cast<uint32_t>(trace.steps.size());
  std::vector<uint32_t> next(trace.uses.size());
  std::vector<uint32_t> seen(trace.experts_all(), never);
  for (uint32_t i = never; i-- > 0;) {
    const ExpertTrace::Step& step = trace.steps[i];
    for (uint32_t u = step.first; u < step.first + step.count; ++u) {
      uint32_t& later = seen[first_of_layer[step.layer] + trace.uses[u].expert];
      next[u] = later;
      later = i;
    }
  }
  return next;
}

TraceHits replay_belady(const ExpertTrace& trace, size_t slots, size_t skip) {
  std::vector<size_t> first_of_layer(trace.experts.size());
  std::exclusive_scan(trace.experts.begin(), trace.experts.end(), first_of_layer.begin(),
                      size_t{0});
  const std::vector<uint32_t> next = next_uses(trace, first_of_layer);
  std::set<std::pair<uint32_t, size_t>> there;  // by when it is needed next
  constexpr uint32_t kAbsent = UINT32_MAX;
  std::vector<uint32_t> needed(trace.experts_all(), kAbsent);
  TraceHits found;
  for (size_t i = 0; i < trace.steps.size(); ++i) {
    const ExpertTrace::Step& step = trace.steps[i];
    for (uint32_t u = step.first; u < step.first + step.count; ++u) {
      const size_t expert = first_of_layer[step.layer] + trace.uses[u].expert;
      const bool hit = needed[expert] != kAbsent;
      if (i >= skip) {
        ++found.requests;
        found.hits += hit ? 1 : 0;
      }
      if (hit) there.erase({needed[expert], expert});
      if (!hit && there.size() == slots) {
        const auto last = std::prev(there.end());
        needed[last->second] = kAbsent;
        there.erase(last);
      }
      needed[expert] = next[u];
      there.emplace(next[u], expert);
    }
  }
  return found;
}

}  // namespace

size_t ExpertTrace::experts_all() const {
  return std::accumulate(experts.begin(), experts.end(), size_t{0});
}

std::string trace_text(const ExpertTrace& trace) {
  std::string text = dump_json({{"format", kFormat},
                                {"version", kVersion},
                                {"experts", trace.experts},
                                {"experts_per_token", trace.experts_per_token}}) +
                     "\n";
  for (const ExpertTrace::Step& step : trace.steps) {
    text += fmt::format("[{},{}", step.layer, step.tokens);
    for (const ExpertTrace::Use& use : trace.uses_of(step))
      text += fmt::format(",{},{}", use.expert, use.tokens);
    text += "]\n";
  }
  return text;
}

Result<ExpertTrace> parse_trace(std::string_view text, const std::string& name) {
  ExpertTrace trace;
  for (size_t line = 1; !text.empty(); ++line) {
    const std::string_view row = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), row.size() + 1));
    SLUICE_ASSIGN(const Json json, parse_json(row, fmt::format("{}: line {}", name, line)));
    if (line == 1) {
      SLUICE_ASSIGN(trace, parse_header(json, name));
      continue;
    }
    SLUICE_TRY(parse_step(json, name, line, trace));
  }
  if (trace.steps.empty()) return fail(ErrorCode::kCorrupt, "{}: a trace without steps", name);
  return trace;
}

TraceHits replay_experts(const ExpertTrace& trace, size_t slots, std::optional<SlotPolicy> policy,
                         size_t skip) {
  if (!policy) return replay_belady(trace, slots, skip);
  SlotTable table(trace.experts, trace.experts_per_token, slots, *policy);
  TraceHits found;
  for (size_t i = 0; i < trace.steps.size(); ++i) {
    const ExpertTrace::Step& step = trace.steps[i];
    const auto uses = trace.uses_of(step);
    table.begin(step.layer, step.tokens);
    for (const ExpertTrace::Use& use : uses) table.use(use.expert, use.tokens);
    for (const ExpertTrace::Use& use : uses) {
      const bool hit = table.find(step.layer, use.expert) != SlotTable::kNowhere;
      if (i >= skip) {
        ++found.requests;
        found.hits += hit ? 1 : 0;
      }
    }
    for (const ExpertTrace::Use& use : uses) {
      if (table.find(step.layer, use.expert) != SlotTable::kNowhere) continue;
      if (table.admit(use.expert) != SlotTable::kNowhere) continue;
      for (const ExpertTrace::Use& other : uses) table.let_go(other.expert);  // the next wave
      table.admit(use.expert);
    }
  }
  return found;
}

}  // namespace sluice::runtime
