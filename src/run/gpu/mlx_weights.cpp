#include "gpu/mlx_weights.h"

#include "base/error.h"

namespace sluice::gpu {

using numerics::DType;
using numerics::QuantMode;

namespace {

std::optional<mx::Dtype> float_type(DType dtype) {
  switch (dtype) {
    case DType::kF32: return mx::float32;
    case DType::kF16: return mx::float16;
    case DType::kBF16: return mx::bfloat16;
    default: return std::nullopt;
  }
}

std::string mode_name(const numerics::QuantFormat& format) {
  return std::string(numerics::quant_mode_name(format.mode));
}

}  // namespace

std::string unsupported_format(const numerics::WeightFormat& format) {
  const bool stored_as_floats =
      format.quant.mode == QuantMode::kFloat || format.quant.mode == QuantMode::kAffine;
  if (!stored_as_floats || float_type(format.dtype)) return "";
  return std::string(dtype_info(format.dtype).name);
}

// As MLX's own models do, in the type of the weights or of their scales; scales of one byte have
// none. Routers decide between experts, and gates of a recurrence are exponents: both stay in f32.
mx::Dtype MlxWeights::compute_type(uint32_t entry) const {
  const runtime::WeightEntry& e = store_.entries()[entry];
  if (precise_ || e.role == families::Role::kRouter || e.role == families::Role::kOther)
    return mx::float32;
  return is_fp(e.format.quant) ? mx::bfloat16 : *float_type(e.format.dtype);
}

template <class MakeArray>
MlxMatrix MlxWeights::make_matrix(uint32_t entry, const numerics::WeightView& view, size_t count,
                                  MakeArray&& make_array) const {
  const numerics::QuantFormat quant = view.format.quant;
  const auto shape = [&](size_t columns) {
    return count > 1 ? mx::Shape{dim(count), dim(view.rows / count), dim(columns)}
                     : mx::Shape{dim(view.rows), dim(columns)};
  };
  const mx::Dtype compute = compute_type(entry);
  if (quant.mode == QuantMode::kFloat)
    return {quant, make_array(view.weight, shape(view.columns), *float_type(view.format.dtype)),
            std::nullopt, std::nullopt, compute};
  const size_t groups = view.columns / quant.group_size;
  const mx::Dtype scale = is_fp(quant) ? mx::uint8 : *float_type(view.format.dtype);
  MlxMatrix out{quant, make_array(view.weight, shape(view.columns * quant.bits / 32), mx::uint32),
                make_array(view.scales, shape(groups), scale), std::nullopt, compute};
  if (view.biases != nullptr) out.biases = make_array(view.biases, shape(groups), scale);
  return out;
}

MlxMatrix MlxWeights::matrix(uint32_t entry, const numerics::WeightView& view, size_t count) const {
  return make_matrix(entry, view, count,
                     [&](const std::byte* data, mx::Shape shape, mx::Dtype dtype) {
                       return memory_.view(data, std::move(shape), dtype);
                     });
}

// A window's frame is read into again once the next one is taken.
Result<MlxMatrix> MlxWeights::assemble(uint32_t entry) const {
  std::vector<MlxMatrix> parts;
  const auto [first, end] = store_.windows(entry);
  SLUICE_CHECK(first < end);
  for (size_t window = first; window < end; ++window) {
    SLUICE_ASSIGN(const numerics::WeightView view, store_.take(window));
    parts.push_back(make_matrix(entry, view, 1, MlxMemory::copy));
  }
  const auto joined = [&](auto part_of) {
    std::vector<mx::array> arrays;
    for (const MlxMatrix& part : parts) arrays.push_back(part_of(part));
    return mx::concatenate(arrays, 0, device_);
  };
  MlxMatrix whole = parts[0];
  whole.weight = joined([](const MlxMatrix& part) { return part.weight; });
  if (whole.scales) whole.scales = joined([](const MlxMatrix& part) { return *part.scales; });
  if (whole.biases) whole.biases = joined([](const MlxMatrix& part) { return *part.biases; });
  return whole;
}

const MlxMatrix& MlxWeights::whole(uint32_t entry) {
  const auto found = whole_.find(entry);
  if (found != whole_.end()) return found->second;
  const auto experts = static_cast<size_t>(store_.entries()[entry].experts);
  return whole_.emplace(entry, matrix(entry, store_.view(entry), experts)).first->second;
}

const mx::array& MlxWeights::floats(uint32_t entry) {
  const auto found = floats_.find(entry);
  if (found != floats_.end()) return found->second;
  const numerics::WeightView view = store_.view(entry);
  mx::Shape shape{dim(view.columns)};
  if (view.rows > 1) shape = {dim(view.rows), dim(view.columns)};
  return floats_.emplace(entry, memory_.view(view.weight, shape, mx::float32)).first->second;
}

mx::array MlxWeights::decode(const MlxMatrix& m, const mx::array& rows) const {
  const auto taken = [&](const mx::array& part) { return mx::take(part, rows, 0, device_); };
  if (m.quant.mode == QuantMode::kFloat) return astype(taken(m.weight), mx::float32, device_);
  mx::array scales = taken(*m.scales);
  std::optional<mx::array> biases;
  if (m.biases) {
    scales = astype(scales, mx::float32, device_);
    biases = astype(taken(*m.biases), mx::float32, device_);
  }
  return mx::dequantize(taken(m.weight), scales, biases, m.quant.group_size, m.quant.bits,
                        mode_name(m.quant), std::nullopt, mx::float32, device_);
}

mx::array MlxWeights::multiply(const mx::array& x, const MlxMatrix& m, bool transpose) const {
  const mx::array input = astype(x, m.compute, device_);
  if (m.quant.mode == QuantMode::kFloat) {
    const mx::array w = astype(m.weight, m.compute, device_);
    return astype(mx::matmul(input, transpose ? mx::swapaxes(w, -1, -2, device_) : w, device_),
                  mx::float32, device_);
  }
  return astype(mx::quantized_matmul(input, m.weight, *m.scales, m.biases, transpose,
                                     m.quant.group_size, m.quant.bits, mode_name(m.quant), device_),
                mx::float32, device_);
}

mx::array MlxWeights::gather(const mx::array& x, const MlxMatrix& m,
                             const mx::array& experts) const {
  SLUICE_DCHECK(m.quant.mode != QuantMode::kFloat);
  const mx::array rows = mx::expand_dims(astype(x, m.compute, device_), 1, device_);
  const mx::array out = mx::gather_qmm(rows, m.weight, *m.scales, m.biases, std::nullopt, experts,
                                       true, m.quant.group_size, m.quant.bits, mode_name(m.quant),
                                       std::nullopt, false, device_);
  return astype(mx::squeeze(out, 1, device_), mx::float32, device_);
}

}  // namespace sluice::gpu
