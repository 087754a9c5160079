#include "support/plans.h"

#include "numerics/block_codec.h"
#include "stream/output_layout.h"

namespace sluice::test {

using numerics::Encoder;
using numerics::QuantFormat;
using numerics::QuantMode;

allocate::Plan plan_of(const io::Checkpoint& checkpoint, const families::ModelMap& map,
                       const Choose& choose, const std::string& parity) {
  allocate::PlanData data;
  std::vector<QuantFormat> formats;
  for (size_t i = 0; i < map.modules.size(); ++i) {
    const families::OutputModule& module = map.modules[i];
    const Planned planned = module.quantizable ? choose(module, i) : Planned{};
    allocate::PlannedTensor tensor;
    tensor.path = module.path;
    tensor.parameter = module.parameter;
    tensor.role = role_name(module.role);
    tensor.layer = module.layer;
    tensor.elements = module.elements();
    tensor.quantizable = module.quantizable;
    tensor.format = planned.format;
    tensor.encoder = planned.encoder;
    const bool quantized = planned.format.mode != QuantMode::kFloat;
    tensor.bytes = numerics::encoded_bytes(
                       planned.format, module.shape,
                       quantized ? map.dtype : stream::plain_dtype(checkpoint, map, module))
                       .total();
    formats.push_back(planned.format);
    data.elements += tensor.elements;
    data.tensor_bytes += tensor.bytes;
    data.tensors.push_back(std::move(tensor));
  }
  const auto layout =
      stream::layout_output(stream::layout_modules(checkpoint, map), map.dtype, formats);
  SLUICE_CHECK(layout.has_value());
  data.exact_bytes = data.budget_bytes = layout->file_bytes;
  data.objective = "nrmse-squared";
  data.method = "uniform";
  data.configs = "all";
  data.source = checkpoint.identity_digest();
  data.family = map.family;
  data.dtype = map.dtype_name;
  data.parity = parity;
  auto plan = allocate::Plan::create(std::move(data));
  if (!plan) fmt::print(stderr, "{}\n", plan.error().message);
  SLUICE_CHECK(plan.has_value());
  return std::move(*plan);
}

allocate::Plan mixed_plan(const io::Checkpoint& checkpoint, const families::ModelMap& map) {
  constexpr Planned kCycle[] = {
      {affine(4, 32), Encoder::kParity}, {affine(3, 32), Encoder::kBest},
      {affine(8, 64), Encoder::kParity}, {affine(5, 32), Encoder::kParity},
      {affine(4, 128), Encoder::kBest},  {{}, Encoder::kCast},
      {affine(2, 64), Encoder::kParity}, {affine(6, 32), Encoder::kBest}};
  const bool f16 = map.dtype == numerics::DType::kF16;
  return plan_of(checkpoint, map, [&](const families::OutputModule& module, size_t index) {
    const auto source = checkpoint.tensors[module.recipe.sources.at(0).tensor].info.dtype;
    const auto fp = numerics::lossless_fp(source);
    const auto lossless = fp ? fp : numerics::lossless_affine(source);
    if ((f16 || fp) && lossless && index % 3 != 0) return Planned{*lossless, Encoder::kLossless};
    Planned planned = kCycle[index % std::size(kCycle)];
    if (module.bits_floor > planned.format.bits)
      planned = {affine(static_cast<uint8_t>(module.bits_floor), 32), Encoder::kParity};
    if (planned.format.mode == QuantMode::kAffine && !can_encode(planned.format, module.shape))
      planned.format.group_size = 32;
    return planned;
  });
}

}  // namespace sluice::test
