#include "verify/block_prover.h"

#include "numerics/block_codec.h"
#include "stream/output_layout.h"
#include "stream/values.h"
#include "verify/block_rows.h"

namespace sluice::verify {

using allocate::PlannedTensor;
using numerics::DType;
using numerics::Encoder;
using numerics::ErrorStats;
using numerics::QuantMode;
using stream::RowBlock;

BlockProver::BlockProver(const io::Checkpoint& checkpoint, const families::ModelMap& map,
                         const allocate::Plan& plan, unsigned workers, SimdLevel simd,
                         std::shared_ptr<const io::Activations> activations)
    : checkpoint_(checkpoint), map_(map), plan_(plan) {
  if (activations != nullptr)
    feedback_ = std::make_unique<stream::FeedbackFactors>(std::move(activations));
  for (unsigned i = 0; i < workers; ++i) scratch_.emplace_back(simd);
}

Result<ErrorStats> BlockProver::check_affine(const RowBlock& block, const PlannedTensor& planned,
                                             const MadeBlock& made, Scratch& scratch,
                                             Findings& findings) {
  const std::span<const float> values =
      planned.encoder == Encoder::kLossless
          ? block.values
          : stream::values_in_dtype(block, map_.dtype, scratch.rounded);
  const auto rule =
      plan_.data().parity == "gpu" ? numerics::ParityRule::kGpu : numerics::ParityRule::kCpu;
  const AffineBlock found{block, planned, map_.dtype,
                          rule,  values,  {made.weight, made.scales, made.biases}};
  if (planned.encoder == Encoder::kFeedback && feedback_ != nullptr) {
    SLUICE_ASSIGN(const auto factor,
                  feedback_->get(block.module, block.grid.expert_of(block.block.index)));
    scratch.weight.resize(made.weight.size());
    scratch.scales.resize(made.scales.size());
    scratch.biases.resize(made.biases.size());
    numerics::encode_affine_feedback(values, *factor, planned.format, map_.dtype,
                                     {scratch.weight, scratch.scales, scratch.biases});
    scratch.affine.compare(found, {scratch.weight, scratch.scales, scratch.biases}, findings);
  }
  return scratch.affine.check(found, findings);
}

ErrorStats BlockProver::check_fp(const RowBlock& block, const PlannedTensor& planned,
                                 const MadeBlock& made, Scratch& scratch, Findings& findings) {
  const std::span<const float> values =
      planned.encoder == Encoder::kLossless
          ? block.values
          : stream::values_in_dtype(block, map_.dtype, scratch.rounded);
  return scratch.fp.check({block, planned, map_.dtype, values, {made.weight, made.scales}},
                          findings);
}

ErrorStats BlockProver::check_plain(const RowBlock& block, const MadeBlock& made, Scratch& scratch,
                                    Findings& findings) {
  const DType output = stream::plain_dtype(checkpoint_, map_, block.module);
  const uint64_t rows = block.block.rows;
  std::span<const std::byte> expected = block.source;
  std::span<const float> decoded = block.values;
  if (!block.is_plain(output)) {
    scratch.expected.resize(made.weight.size());
    scratch.decoded.resize(block.values.size());
    numerics::encode_elements(output, block.values, scratch.expected);
    numerics::decode_elements(output, scratch.expected, scratch.decoded);
    expected = scratch.expected;
    decoded = scratch.decoded;
  }
  if (!equal_bytes(expected, made.weight))
    for (uint64_t r = 0; r < rows; ++r)
      if (!equal_bytes(row_of(expected, r, rows), row_of(made.weight, r, rows)))
        findings.add(block.module.tensor_name(),
                     fmt::format("{} differs from the source", place_text(block, r)));
  return numerics::error_between(block.values, decoded);
}

Result<ErrorStats> BlockProver::check(const RowBlock& block, const MadeBlock& made, unsigned worker,
                                      Findings& findings) {
  Scratch& scratch = scratch_[worker];
  const PlannedTensor& planned = *plan_.find(block.module.tensor_name());
  if (numerics::is_fp(planned.format)) return check_fp(block, planned, made, scratch, findings);
  if (planned.format.mode == QuantMode::kAffine)
    return check_affine(block, planned, made, scratch, findings);
  return check_plain(block, made, scratch, findings);
}

Status BlockProver::prove(const RowBlock& block, const MadeBlock& made, unsigned worker) {
  Findings findings;
  SLUICE_TRY(check(block, made, worker, findings));
  uint64_t count = 0;
  const std::vector<Finding> found = findings.take(&count);
  if (count == 0) return {};
  return fail(ErrorCode::kCorrupt, "{}: tensor {} failed its proof while it was converted: {}",
              checkpoint_.path, found.front().subject, found.front().message);
}

}  // namespace sluice::verify
