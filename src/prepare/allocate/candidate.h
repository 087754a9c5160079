// What analysis hands to allocation: per output module, every format it could be stored in, with
// exact bytes and error. Values; no bytes, files or threads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/digest.h"
#include "numerics/error_stats.h"
#include "numerics/quant_format.h"

namespace sluice::allocate {

struct Candidate {
  numerics::QuantFormat format;
  numerics::Encoder encoder = numerics::Encoder::kCast;
  uint64_t bytes = 0;               // all tensors of the module, headers not counted
  numerics::ErrorStats error;       // over the whole module, on what the loader decodes
  double worst_expert_sqnr_db = 0;  // smallest over stacked experts; the module's own for one
  uint32_t worst_expert = 0;
  double worst_row_sqnr_db = 0;
  bool operator==(const Candidate&) const = default;
};

// One output module. candidates: never empty; parity candidates of a format come before best ones.
struct Item {
  std::string path;       // module path
  std::string parameter;  // "weight", "bias"; empty for a raw parameter
  std::string role;       // families::role_name
  int layer = -1;
  uint64_t elements = 0;
  int bits_floor = 0;
  bool quantizable = false;
  std::vector<Candidate> candidates;
  Digest source;  // of the source's bytes, block by block; zero: not known
  bool operator==(const Item&) const = default;

  std::string tensor_name() const { return parameter.empty() ? path : path + "." + parameter; }
};

}  // namespace sluice::allocate
