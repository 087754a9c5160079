// Names of roles, and the walk from output rows to source rows.
#include "families/recipe.h"

#include <algorithm>

namespace sluice::families {
namespace {

uint64_t source_row(const RowSource& source, uint64_t row) {
  if (source.order == RowOrder::kInOrder) return source.first_row + row;
  const uint64_t head_rows = source.head_rows;
  const uint64_t in_head = row % head_rows;
  const uint64_t half = head_rows / 2;
  return source.first_row + row - in_head + 2 * (in_head % half) + in_head / half;
}

}  // namespace

std::string_view role_name(Role role) {
  switch (role) {
    case Role::kEmbedding: return "embedding";
    case Role::kHead: return "head";
    case Role::kAttentionQ: return "attention_q";
    case Role::kAttentionK: return "attention_k";
    case Role::kAttentionV: return "attention_v";
    case Role::kAttentionO: return "attention_o";
    case Role::kMlpGate: return "mlp_gate";
    case Role::kMlpUp: return "mlp_up";
    case Role::kMlpDown: return "mlp_down";
    case Role::kExpertGate: return "expert_gate";
    case Role::kExpertUp: return "expert_up";
    case Role::kExpertDown: return "expert_down";
    case Role::kRouter: return "router";
    case Role::kNorm: return "norm";
    case Role::kBias: return "bias";
    case Role::kOther: return "other";
  }
  SLUICE_CHECK(false);
}

bool is_expert(Role role) {
  return role == Role::kExpertGate || role == Role::kExpertUp || role == Role::kExpertDown;
}

uint64_t OutputModule::rows() const {
  if (filters) return shape[0];
  uint64_t rows = by_element ? shape.back() : 1;
  for (size_t axis = 0; axis + 1 < shape.size(); ++axis) rows *= shape[axis];
  return rows;
}

void append_row_runs(const Recipe& recipe, uint64_t first_row, uint64_t rows,
                     std::vector<RowRun>& out) {
  const size_t start = out.size();
  uint64_t skip = first_row;
  for (const RowSource& source : recipe.sources) {
    if (rows == 0) return;
    if (skip >= source.rows) {
      skip -= source.rows;
      continue;
    }
    const uint64_t taken = std::min(rows, source.rows - skip);
    const bool transposed = source.order == RowOrder::kTransposed;
    if (transposed || source.stride > 1) {
      const uint64_t first = skip * source.stride;
      out.push_back({source.tensor, source.first_row + (transposed ? 0 : first), taken, transposed,
                     transposed ? source.first_column + first : 0, source.stride});
      rows -= taken;
      skip = 0;
      continue;
    }
    const uint64_t step = source.order == RowOrder::kInOrder ? taken : 1;
    for (uint64_t done = 0; done < taken; done += step) {
      const uint64_t from = source_row(source, skip + done);
      const bool joins = out.size() > start && out.back().tensor == source.tensor &&
                         out.back().stride == 1 && out.back().source_row + out.back().rows == from;
      if (joins)
        out.back().rows += step;
      else
        out.push_back({source.tensor, from, step});
    }
    rows -= taken;
    skip = 0;
  }
  SLUICE_CHECK(rows == 0);
}

}  // namespace sluice::families
