#include "convert/convert_visitor.h"

#include <algorithm>

#include "numerics/block_codec.h"
#include "stream/feedback_factors.h"
#include "stream/values.h"

namespace sluice::convert {

using allocate::PlannedTensor;
using families::OutputModule;
using numerics::DType;
using numerics::Encoder;
using numerics::ErrorStats;
using numerics::QuantFormat;
using numerics::QuantMode;
using stream::RowBlock;

numerics::EncodedBytes row_bytes(const OutputModule& module, const QuantFormat& format,
                                 DType dtype) {
  const uint64_t row[] = {1, module.columns()};
  return numerics::encoded_bytes(format, row, dtype);
}

std::vector<ConvertVisitor::BlockResult>& ConvertVisitor::results_of(const RowBlock& block) {
  MutexLock lock(mutex_);
  auto& state = states_[block.block.module];
  if (state == nullptr)
    state = std::make_unique<std::vector<BlockResult>>(block.grid.block_count());
  return *state;
}

numerics::EncodedBytes ConvertVisitor::make_room(const RowBlock& block,
                                                 const PlannedTensor& planned,
                                                 Scratch& scratch) const {
  const auto bytes = row_bytes(block.module, planned.format, map_.dtype);
  const uint64_t rows = block.block.rows;
  scratch.weight.resize(rows * bytes.weight);
  scratch.scales.resize(rows * bytes.scales);
  scratch.biases.resize(rows * bytes.biases);
  return bytes;
}

Result<ErrorStats> ConvertVisitor::encode_affine(const RowBlock& block,
                                                 const PlannedTensor& planned,
                                                 Scratch& scratch) const {
  const auto bytes = make_room(block, planned, scratch);
  const uint64_t rows = block.block.rows;
  // A lossless move is held against the source itself, an encoding against what MLX would see.
  const std::span<const float> values =
      planned.encoder == Encoder::kLossless
          ? block.values
          : stream::values_in_dtype(block, map_.dtype, scratch.decoded);
  const uint64_t columns = block.module.columns();
  ErrorStats stats;
  for (uint64_t r = 0; r < rows; ++r) {
    const numerics::AffineRow out{
        std::span(scratch.weight).subspan(r * bytes.weight, bytes.weight),
        std::span(scratch.scales).subspan(r * bytes.scales, bytes.scales),
        std::span(scratch.biases).subspan(r * bytes.biases, bytes.biases)};
    const std::span<const float> row = values.subspan(r * columns, columns);
    if (planned.encoder == Encoder::kLossless) {
      if (!stream::move_row(block.stored, block.source, rows, r, planned.format, map_.dtype, out))
        return fail(ErrorCode::kCorrupt,
                    "{}: tensor {}, row {}: cannot be moved to {} without loss, though the plan "
                    "says so",
                    checkpoint_.path, block.module.tensor_name(), block.block.first_row + r,
                    numerics::format_text(planned.format));
      stats.merge(kernels_.affine_row_error(row, {out.weight, out.scales, out.biases},
                                            planned.format, map_.dtype));
    } else if (planned.encoder == Encoder::kBest) {
      stats.merge(kernels_.encode_affine_best(row, planned.format, map_.dtype, out));
    } else {
      stats.merge(kernels_.encode_affine_parity(row, planned.format, map_.dtype, rule_, out));
    }
  }
  return stats;
}

Result<ErrorStats> ConvertVisitor::encode_feedback(const RowBlock& block,
                                                   const PlannedTensor& planned,
                                                   Scratch& scratch) const {
  const auto bytes = make_room(block, planned, scratch);
  const uint64_t rows = block.block.rows;
  const std::span<const float> values = stream::values_in_dtype(block, map_.dtype, scratch.decoded);
  SLUICE_ASSIGN(const auto factor,
                options_.feedback->get(block.module, block.grid.expert_of(block.block.index)));
  numerics::encode_affine_feedback(values, *factor, planned.format, map_.dtype,
                                   {scratch.weight, scratch.scales, scratch.biases});
  const uint64_t columns = block.module.columns();
  ErrorStats stats;
  for (uint64_t r = 0; r < rows; ++r)
    stats.merge(kernels_.affine_row_error(
        values.subspan(r * columns, columns),
        {std::span<const std::byte>(scratch.weight).subspan(r * bytes.weight, bytes.weight),
         std::span<const std::byte>(scratch.scales).subspan(r * bytes.scales, bytes.scales),
         std::span<const std::byte>(scratch.biases).subspan(r * bytes.biases, bytes.biases)},
        planned.format, map_.dtype));
  return stats;
}

Result<ErrorStats> ConvertVisitor::encode_fp(const RowBlock& block, const PlannedTensor& planned,
                                             Scratch& scratch) const {
  const auto bytes = row_bytes(block.module, planned.format, map_.dtype);
  const uint64_t rows = block.block.rows, columns = block.module.columns();
  scratch.weight.resize(rows * bytes.weight);
  scratch.scales.resize(rows * bytes.scales);
  scratch.biases.clear();
  const std::span<const float> values =
      planned.encoder == Encoder::kLossless
          ? block.values
          : stream::values_in_dtype(block, map_.dtype, scratch.decoded);
  ErrorStats stats;
  for (uint64_t r = 0; r < rows; ++r) {
    const numerics::FpRow out{std::span(scratch.weight).subspan(r * bytes.weight, bytes.weight),
                              std::span(scratch.scales).subspan(r * bytes.scales, bytes.scales)};
    const std::span<const float> row = values.subspan(r * columns, columns);
    if (planned.encoder == Encoder::kLossless) {
      if (!stream::move_row(block.stored, block.source, rows, r, planned.format, map_.dtype,
                            {out.weight, out.scales, {}}))
        return fail(ErrorCode::kCorrupt,
                    "{}: tensor {}, row {}: cannot be moved to {} without loss, though the plan "
                    "says so",
                    checkpoint_.path, block.module.tensor_name(), block.block.first_row + r,
                    numerics::format_text(planned.format));
      stats.merge(kernels_.fp_row_error(row, {out.weight, out.scales}, planned.format));
    } else if (planned.encoder == Encoder::kBest) {
      stats.merge(kernels_.encode_fp_best(row, planned.format, map_.dtype, out));
    } else {
      const size_t tiny = numerics::find_unscalable(row, planned.format, map_.dtype);
      if (tiny != row.size())
        return fail(ErrorCode::kUnsupported,
                    "{}: tensor {}, row {}, column {}: weights this small (below 2^-125) have no "
                    "scale in {}, where MLX would write an enormous one; choose another format or "
                    "the best encoder",
                    checkpoint_.path, block.module.tensor_name(), block.block.first_row + r, tiny,
                    numerics::format_text(planned.format));
      stats.merge(kernels_.encode_fp_parity(row, planned.format, map_.dtype, out));
    }
  }
  return stats;
}

// Tensors that stay as they are: copied when the type is kept, rounded otherwise.
ErrorStats ConvertVisitor::encode_plain(const RowBlock& block, Scratch& scratch) const {
  const DType output = stream::plain_dtype(checkpoint_, map_, block.module);
  scratch.scales.clear();
  scratch.biases.clear();
  if (block.is_plain(output)) {
    scratch.weight.assign(block.source.begin(), block.source.end());
    return numerics::error_between(block.values, block.values);
  }
  scratch.weight.resize(block.values.size() * dtype_info(output).block_bytes);
  scratch.decoded.resize(block.values.size());
  numerics::encode_elements(output, block.values, scratch.weight);
  numerics::decode_elements(output, scratch.weight, scratch.decoded);
  return numerics::error_between(block.values, scratch.decoded);
}

Result<ErrorStats> ConvertVisitor::encode(const RowBlock& block, Scratch& scratch) const {
  const PlannedTensor& planned = *planned_[block.block.module];
  const bool quantized = planned.format.mode != QuantMode::kFloat;
  const DType output =
      quantized ? map_.dtype : stream::plain_dtype(checkpoint_, map_, block.module);
  if (!block.values.empty())
    SLUICE_TRY(stream::check_values(checkpoint_, block, output, [this](std::span<const float> row) {
      return kernels_.find_unencodable(row);
    }));
  if (numerics::is_fp(planned.format)) return encode_fp(block, planned, scratch);
  if (planned.encoder == Encoder::kFeedback) return encode_feedback(block, planned, scratch);
  if (quantized) return encode_affine(block, planned, scratch);
  return encode_plain(block, scratch);
}

Status ConvertVisitor::write(const RowBlock& block, const Scratch& scratch) {
  const stream::ModulePlace& place = layout_.places[block.block.module];
  io::WritableFile& file = *files_[place.shard];
  const auto put = [&](uint64_t start, const std::vector<std::byte>& bytes) -> Status {
    if (bytes.empty()) return {};
    return file.write_at(start + block.block.first_row * (bytes.size() / block.block.rows), bytes);
  };
  SLUICE_TRY(put(place.weight, scratch.weight));
  SLUICE_TRY(put(place.scales, scratch.scales));
  SLUICE_TRY(put(place.biases, scratch.biases));
  checkpointer_.wrote(place.shard,
                      scratch.weight.size() + scratch.scales.size() + scratch.biases.size());
  return {};
}

Status ConvertVisitor::visit(const RowBlock& block, unsigned worker) {
  Scratch& scratch = scratch_[worker];
  BlockResult& result = results_of(block)[block.block.index];
  SLUICE_ASSIGN(result.error, encode(block, scratch));
  if (options_.prove_block != nullptr)
    SLUICE_TRY(
        options_.prove_block(block, {scratch.weight, scratch.scales, scratch.biases}, worker));
  SLUICE_TRY(write(block, scratch));
  result.source = digest_of(block.source);
  result.weight = digest_of(scratch.weight);
  result.scales = digest_of(scratch.scales);
  result.biases = digest_of(scratch.biases);
  return {};
}

// A plan made by analysis knows the digest of every source tensor.
Status ConvertVisitor::check_source(uint32_t module, const Digest& found) const {
  const Digest& expected = planned_[module]->source;
  if (expected == Digest{} || expected == found) return {};
  return fail(ErrorCode::kCorrupt,
              "{}: the source of tensor {} has changed since it was analyzed (digest {}, expected "
              "{}); analyze again",
              checkpoint_.path, map_.modules[module].tensor_name(), found.hex(), expected.hex());
}

Status ConvertVisitor::finish_module(uint32_t module) {
  std::unique_ptr<std::vector<BlockResult>> blocks;
  {
    MutexLock lock(mutex_);
    blocks = std::move(states_[module]);
  }
  if (blocks == nullptr) blocks = std::make_unique<std::vector<BlockResult>>();
  ModuleResult result;
  result.proved = options_.prove_block != nullptr;
  Hasher source, weight, scales, biases;
  for (const BlockResult& block : *blocks) {
    source.update(block.source);
    weight.update(block.weight);
    scales.update(block.scales);
    biases.update(block.biases);
    result.error.merge(block.error);
  }
  result.source = source.finish();
  result.weight = weight.finish();
  const QuantMode mode = planned_[module]->format.mode;
  if (mode != QuantMode::kFloat) result.scales = scales.finish();
  if (mode == QuantMode::kAffine) result.biases = biases.finish();
  SLUICE_TRY(check_source(module, result.source));
  return checkpointer_.add(module, result, planned_[module]->bytes);
}

}  // namespace sluice::convert
