#include "verify/error_directions.h"

#include <algorithm>

#include "numerics/block_codec.h"
#include "numerics/fp.h"
#include "verify/block_rows.h"
#include "verify/leading_share.h"

namespace sluice::verify {
namespace {

using allocate::PlannedTensor;
using numerics::DType;

// Looking at a matrix takes some 600 operations for each element of its sample. An eighth of the
// matrix, up to where chance tells little more: less time than a disk takes to deliver the matrix.
constexpr uint64_t kSampleShare = 8;
constexpr uint64_t kSampleElementsEnough = 1 << 18, kSampleElementsUsual = 1 << 20;
// Fewer rows would not tell a direction from chance; longer ones take too much memory.
constexpr uint64_t kSampleRowsMin = 64;
constexpr uint64_t kSampleElementsMax = 4 << 20;

// A place in [0, span), different in every stretch, so that no period of the rows is hit.
uint64_t scattered(uint64_t i, uint64_t span) {
  uint64_t x = (i + 1) * 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  return (x ^ (x >> 31)) % span;
}

// Error feedback moves errors into the directions in which the inputs are small, on purpose.
bool is_looked_at(const PlannedTensor& planned) {
  return planned.format.mode != numerics::QuantMode::kFloat &&
         planned.encoder != numerics::Encoder::kLossless &&
         planned.encoder != numerics::Encoder::kFeedback;
}

void decode_row(const MadeBlock& made, uint64_t row, uint64_t rows, const PlannedTensor& planned,
                DType dtype, std::span<float> out) {
  const auto weight = row_of(made.weight, row, rows), scales = row_of(made.scales, row, rows);
  if (numerics::is_fp(planned.format))
    numerics::decode_fp({weight, scales}, planned.format, out);
  else
    numerics::decode_affine({weight, scales, row_of(made.biases, row, rows)}, planned.format, dtype,
                            out);
}

// out −= what MLX's quantizer saw of the row.
void subtract_source(std::span<const float> row, DType dtype, std::span<float> out) {
  std::vector<std::byte> stored(row.size() * numerics::dtype_info(dtype).block_bytes);
  std::vector<float> rounded(row.size());
  numerics::encode_elements(dtype, row, stored);
  numerics::decode_elements(dtype, stored, rounded);
  for (size_t k = 0; k < row.size(); ++k) out[k] -= rounded[k];
}

}  // namespace

RowSample::RowSample(uint64_t rows, uint64_t columns) : rows_(rows) {
  if (rows < kFollowedDirections || columns < kFollowedDirections) return;
  const uint64_t elements =
      std::clamp(rows * columns / kSampleShare, kSampleElementsEnough, kSampleElementsUsual);
  const uint64_t count = std::min(rows, std::max(elements / columns, kSampleRowsMin));
  if (count * columns > kSampleElementsMax) return;
  if (white_share(count, columns) * kConcentration < 1) count_ = count;
}

uint64_t RowSample::row(uint64_t i) const {
  const uint64_t begin = i * rows_ / count_, end = (i + 1) * rows_ / count_;
  return begin + scattered(i, end - begin);
}

uint64_t RowSample::first_from(uint64_t from) const {
  if (count_ == 0 || from >= rows_) return count_;
  uint64_t i = from * count_ / rows_;  // its stretch begins at from or before
  while (i < count_ && row(i) < from) ++i;
  return i;
}

ErrorDirections::ErrorDirections(const families::ModelMap& map, const allocate::Plan& plan)
    : map_(map), plan_(plan), states_(map.modules.size()) {}

ErrorDirections::State* ErrorDirections::state_of(const stream::RowBlock& block) {
  MutexLock lock(mutex_);
  std::unique_ptr<State>& state = states_[block.block.module];
  if (state == nullptr) {
    const uint64_t columns = block.module.columns();
    state = std::make_unique<State>(State{RowSample(block.grid.expert_rows, columns), {}});
    state->blocks_left = block.grid.blocks_per_expert;
    state->errors.resize(state->sample.count() * columns);
  }
  return state.get();
}

void ErrorDirections::add(const stream::RowBlock& block, const MadeBlock& made) {
  const PlannedTensor& planned = *plan_.find(block.module.tensor_name());
  if (!is_looked_at(planned) || block.values.empty()) return;
  const uint32_t expert = std::min(planned.worst_expert, block.grid.experts - 1);
  if (block.grid.expert_of(block.block.index) != expert) return;
  State& state = *state_of(block);
  const uint64_t columns = block.module.columns(), rows = block.block.rows;
  const uint64_t first = block.block.first_row - expert * block.grid.expert_rows;
  for (uint64_t i = state.sample.first_from(first); i < state.sample.count(); ++i) {
    const uint64_t row = state.sample.row(i);
    if (row >= first + rows) break;
    const auto out = std::span(state.errors).subspan(i * columns, columns);
    decode_row(made, row - first, rows, planned, map_.dtype, out);
    subtract_source(block.row(row - first), map_.dtype, out);
  }
  {
    MutexLock lock(mutex_);
    if (--state.blocks_left > 0) return;
  }
  // The last of the matrix' blocks: nobody else holds the state any more.
  if (state.sample.count() > 0) {
    state.share = leading_share(state.errors, columns);
    state.measured = true;
  }
  state.errors = {};
}

void ErrorDirections::finish_module(uint32_t index) {
  std::unique_ptr<State> state;
  {
    MutexLock lock(mutex_);
    state = std::move(states_[index]);
  }
  if (state == nullptr || !state->measured) return;
  ++measured_;
  const families::OutputModule& module = map_.modules[index];
  const double white = white_share(state->sample.count(), module.columns());
  if (state->share <= kConcentration * white) return;
  const PlannedTensor& planned = *plan_.find(module.tensor_name());
  concentrated_.push_back(
      {module.tensor_name(), module.experts() > 1, planned.worst_expert, state->share, white});
}

}  // namespace sluice::verify
