// A record of the reads of weights that were made ahead of their use.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/weight_entry.h"

namespace sluice::runtime {

// Everything that was submitted and waited for, in order: played again without computing, it tells
// what the disk allows.
struct ReadTrace {
  struct Event {
    uint32_t ticket = 0;
    uint32_t first = 0, count = 0;  // transfers submitted; none: waited for
  };
  std::vector<Event> events;
  std::vector<WeightTransfer> transfers;
  uint32_t tickets = 0;
  uint64_t bytes = 0;
};

}  // namespace sluice::runtime
