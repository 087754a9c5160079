// Which experts a run chose, step by step, and what share of them would have been in memory with
// so many slots under a rule: rules are compared without running the model.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "runtime/slot_table.h"

namespace sluice::runtime {

struct ExpertTrace {
  struct Use {
    uint32_t expert = 0, tokens = 0;  // how many of the step's tokens chose it
  };
  struct Step {
    uint32_t layer = 0;  // among those that have experts
    uint32_t tokens = 0;
    uint32_t first = 0, count = 0;  // of uses
  };
  std::vector<uint32_t> experts;  // of each layer that has some
  uint32_t experts_per_token = 0;
  std::vector<Step> steps;
  std::vector<Use> uses;

  std::span<const Use> uses_of(const Step& step) const {
    return std::span(uses).subspan(step.first, step.count);
  }
  size_t experts_all() const;
};

// JSON lines: docs/formats.md#expert-trace.
std::string trace_text(const ExpertTrace& trace);
// Errors name where: the name given, and the line.
Result<ExpertTrace> parse_trace(std::string_view text, const std::string& name);

struct TraceHits {
  uint64_t requests = 0, hits = 0;
  double share() const {
    return requests == 0 ? 0 : static_cast<double>(hits) / static_cast<double>(requests);
  }
};
// Steps before skip warm up and are not counted. policy: nothing means Belady's rule, which knows
// the future: whoever is needed last leaves. No rule that must admit what it reads does better.
TraceHits replay_experts(const ExpertTrace& trace, size_t slots, std::optional<SlotPolicy> policy,
                         size_t skip = 0);

}  // namespace sluice::runtime
