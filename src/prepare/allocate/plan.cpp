#include "allocate/plan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>

#include "allocate/plan_json.h"
#include "allocate/size_text.h"
#include "base/checked.h"

namespace sluice::allocate {
namespace {

using numerics::Encoder;
using numerics::QuantFormat;
using numerics::QuantMode;

uint64_t float_bytes(std::string_view dtype) { return dtype == "float32" ? 4 : 2; }

bool is_affine_format(const QuantFormat& format) {
  return format.mode == QuantMode::kAffine &&
         std::ranges::find(numerics::kAffineBits, format.bits) != std::end(numerics::kAffineBits) &&
         std::ranges::find(numerics::kAffineGroups, format.group_size) !=
             std::end(numerics::kAffineGroups);
}

// Codes, and per group one scale and one bias, or one byte. Nothing on overflow or a part group.
std::optional<uint64_t> quantized_bytes(const PlannedTensor& tensor, uint64_t dtype_bytes) {
  const QuantFormat& format = tensor.format;
  if (tensor.elements % format.group_size != 0) return std::nullopt;
  const uint64_t groups = tensor.elements / format.group_size;
  const auto codes = checked_mul(groups, format.group_size / 8u * format.bits);
  const auto parameters = checked_mul(groups, is_fp(format) ? 1 : 2 * dtype_bytes);
  if (!codes || !parameters) return std::nullopt;
  return checked_add(*codes, *parameters);
}

bool non_negative(double value) { return std::isfinite(value) && value >= 0; }

Status check_tensor(const PlannedTensor& tensor, const PlanData& data) {
  const std::string name = tensor.tensor_name();
  const auto bad = [&](std::string_view what) {
    return fail(ErrorCode::kInvalidArgument, "plan: {}: {}", name, what);
  };
  if (tensor.path.empty()) return bad("has no name");
  if (!non_negative(tensor.error.squared_error) || !non_negative(tensor.error.squared_weight) ||
      !non_negative(tensor.error.error_max) || !non_negative(tensor.alpha) ||
      std::isnan(tensor.worst_expert_sqnr_db))
    return bad("its predicted error or weight is negative or not finite");
  if (tensor.format.mode == QuantMode::kFloat) {
    if (tensor.encoder != Encoder::kCast || tensor.format != QuantFormat{})
      return bad("an unquantized tensor takes no encoder, bits or group size");
    // Parameters may keep their own type, from one byte to eight per element.
    const bool whole = tensor.elements == 0
                           ? tensor.bytes == 0
                           : tensor.bytes % tensor.elements == 0 &&
                                 tensor.bytes / tensor.elements <= 8 && tensor.bytes > 0;
    if (!whole)
      return fail(ErrorCode::kInvalidArgument, "plan: {}: {} bytes do not hold {} elements", name,
                  tensor.bytes, tensor.elements);
    return {};
  }
  if (!is_affine_format(tensor.format) && !is_fp(tensor.format))
    return fail(ErrorCode::kInvalidArgument,
                "plan: {}: {} with {} bits in groups of {} does not exist", name,
                numerics::quant_mode_name(tensor.format.mode), tensor.format.bits,
                tensor.format.group_size);
  if (tensor.encoder == Encoder::kCast) return bad("a quantized tensor needs an encoder");
  if (!tensor.quantizable) return bad("is not quantizable but has a quantized format");
  if (tensor.encoder == Encoder::kFeedback) {
    if (tensor.format.mode != QuantMode::kAffine)
      return bad("error feedback is for affine formats");
    if (data.activations == Digest{}) return bad("error feedback needs recorded activations");
  }
  const auto expected = quantized_bytes(tensor, float_bytes(data.dtype));
  if (!expected || *expected != tensor.bytes)
    return fail(ErrorCode::kInvalidArgument,
                "plan: {}: {} elements at {} take {} bytes in a {} model, not {}", name,
                tensor.elements, numerics::format_text(tensor.format),
                expected ? fmt::format("{}", *expected) : "no whole number of", data.dtype,
                tensor.bytes);
  return {};
}

// Sums in tensor order, so that a plan read back adds up to the same double.
Status check_sums(const PlanData& data) {
  uint64_t bytes = 0;
  uint64_t elements = 0;
  for (const PlannedTensor& tensor : data.tensors) {
    const auto more_bytes = checked_add(bytes, tensor.bytes);
    const auto more_elements = checked_add(elements, tensor.elements);
    if (!more_bytes || !more_elements)
      return fail(ErrorCode::kInvalidArgument, "plan: tensor sizes overflow at {}",
                  tensor.tensor_name());
    bytes = *more_bytes;
    elements = *more_elements;
  }
  if (bytes != data.tensor_bytes)
    return fail(ErrorCode::kInvalidArgument, "plan: tensors add up to {} bytes, not {}", bytes,
                data.tensor_bytes);
  if (elements != data.elements)
    return fail(ErrorCode::kInvalidArgument, "plan: tensors add up to {} elements, not {}",
                elements, data.elements);
  if (data.exact_bytes < data.tensor_bytes)
    return fail(ErrorCode::kInvalidArgument,
                "plan: files of {} bytes cannot hold tensors of {} bytes", data.exact_bytes,
                data.tensor_bytes);
  if (data.exact_bytes > data.budget_bytes)
    return fail(ErrorCode::kInvalidArgument, "plan: files take {} bytes, over the budget of {}",
                data.exact_bytes, data.budget_bytes);
  if (data.budget_bytes > static_cast<uint64_t>(INT64_MAX))
    return fail(ErrorCode::kInvalidArgument, "plan: a budget of {} bytes is out of range",
                data.budget_bytes);
  return {};
}

Status check_settings(const PlanData& data) {
  if (!non_negative(data.cost) || !non_negative(data.bound) || data.bound > data.cost)
    return fail(ErrorCode::kInvalidArgument,
                "plan: cost {} and bound {} should be finite with 0 ≤ bound ≤ cost", data.cost,
                data.bound);
  if (std::isnan(data.sqnr_floor_db))
    return fail(ErrorCode::kInvalidArgument, "plan: the SQNR floor is not a number");
  if (data.objective != "nrmse-linear" && data.objective != "nrmse-squared")
    return fail(ErrorCode::kInvalidArgument, "plan: objective \"{}\" is not known", data.objective);
  if (data.dtype != "float32" && data.dtype != "float16" && data.dtype != "bfloat16")
    return fail(ErrorCode::kInvalidArgument, "plan: dtype \"{}\" is not a model's float type",
                data.dtype);
  if (data.parity != "cpu" && data.parity != "gpu")
    return fail(ErrorCode::kInvalidArgument, "plan: parity rule \"{}\" is neither cpu nor gpu",
                data.parity);
  return {};
}

// Requires tensors that have been checked.
Status check_cost(const PlanData& data) {
  const auto differ = [](double a, double b) {
    constexpr double kTolerance = 1e-9;
    return !(std::abs(a - b) <= kTolerance * std::max(a, b));
  };
  const double squared = squared_cost(data.tensors);
  double cost = squared;
  if (data.objective == "nrmse-linear") {
    cost = 0;
    for (const PlannedTensor& tensor : data.tensors)
      if (tensor.alpha != 0) cost += tensor.alpha * std::sqrt(nrmse_squared(tensor.error));
  }
  if (differ(cost, data.cost))
    return fail(ErrorCode::kInvalidArgument,
                "plan: tensors add up to a weighted error of {}, not {}", cost, data.cost);
  if (data.predicted_kl && differ(squared, *data.predicted_kl))
    return fail(ErrorCode::kInvalidArgument,
                "plan: tensors add up to a predicted divergence of {}, not {}", squared,
                *data.predicted_kl);
  return {};
}

std::optional<QuantFormat> most_frequent(const PlanData& data) {
  std::map<QuantFormat, std::pair<size_t, uint64_t>> counts;
  for (const PlannedTensor& tensor : data.tensors) {
    if (tensor.format.mode == QuantMode::kFloat) continue;
    auto& [modules, elements] = counts[tensor.format];
    ++modules;
    elements += tensor.elements;
  }
  if (counts.empty()) return std::nullopt;
  // Strictly greater: the first, smaller format wins ties.
  auto best = counts.begin();
  for (auto it = counts.begin(); it != counts.end(); ++it)
    if (it->second > best->second) best = it;
  return best->first;
}

double tensor_sqnr(const PlannedTensor& tensor) { return sqnr_db(tensor.error); }

}  // namespace

Result<Plan> Plan::create(PlanData data) {
  if (data.tensors.empty()) return fail(ErrorCode::kInvalidArgument, "plan: names no tensors");
  SLUICE_TRY(check_settings(data));
  auto state = std::make_shared<State>();
  state->by_name.reserve(data.tensors.size());
  for (size_t i = 0; i < data.tensors.size(); ++i) {
    SLUICE_TRY(check_tensor(data.tensors[i], data));
    if (!state->by_name.emplace(data.tensors[i].tensor_name(), i).second)
      return fail(ErrorCode::kInvalidArgument, "plan: {} is named twice",
                  data.tensors[i].tensor_name());
  }
  SLUICE_TRY(check_sums(data));
  SLUICE_TRY(check_cost(data));
  for (const UniformPlan& uniform : data.uniform) {
    const bool encoder = uniform.encoder == Encoder::kParity || uniform.encoder == Encoder::kBest;
    if ((!is_affine_format(uniform.format) && !is_fp(uniform.format)) || !encoder ||
        !non_negative(uniform.cost) || uniform.exact_bytes > static_cast<uint64_t>(INT64_MAX))
      return fail(ErrorCode::kInvalidArgument, "plan: uniform comparison with {} is malformed",
                  numerics::format_text(uniform.format));
  }
  state->default_format = most_frequent(data);
  state->digest = digest_of(dump_json(plan_content_to_json(data)));
  state->data = std::move(data);
  return Plan(std::move(state));
}

Result<Plan> with_feedback(const Plan& plan, const Digest& activations,
                           const std::function<bool(const std::string& tensor_name)>& recorded) {
  PlanData data = plan.data();
  data.activations = activations;
  for (PlannedTensor& tensor : data.tensors) {
    const bool encoded = tensor.encoder == Encoder::kParity || tensor.encoder == Encoder::kBest;
    if (encoded && tensor.format.mode == QuantMode::kAffine && recorded(tensor.tensor_name()))
      tensor.encoder = Encoder::kFeedback;
  }
  return Plan::create(std::move(data));
}

const PlannedTensor* Plan::find(std::string_view tensor_name) const {
  const auto found = state_->by_name.find(std::string(tensor_name));
  return found == state_->by_name.end() ? nullptr : &state_->data.tensors[found->second];
}

double squared_cost(std::span<const PlannedTensor> tensors) {
  double cost = 0;
  for (const PlannedTensor& tensor : tensors)
    if (tensor.alpha != 0) cost += tensor.alpha * nrmse_squared(tensor.error);
  return cost;
}

double bits_per_weight(const Plan& plan) {
  const PlanData& data = plan.data();
  if (data.elements == 0) return 0;
  return 8 * static_cast<double>(data.tensor_bytes) / static_cast<double>(data.elements);
}

std::vector<FormatShare> format_shares(const Plan& plan) {
  std::map<std::pair<QuantFormat, Encoder>, FormatShare> shares;
  for (const PlannedTensor& tensor : plan.data().tensors) {
    if (!tensor.quantizable) continue;
    FormatShare& share = shares[{tensor.format, tensor.encoder}];
    share.format = tensor.format;
    share.encoder = tensor.encoder;
    ++share.modules;
    share.elements += tensor.elements;
    share.bytes += tensor.bytes;
  }
  std::vector<FormatShare> sorted;
  for (const auto& [key, share] : shares) sorted.push_back(share);
  std::stable_sort(sorted.begin(), sorted.end(), [](const FormatShare& a, const FormatShare& b) {
    return a.elements > b.elements;
  });
  return sorted;
}

std::vector<RoleSummary> role_summaries(const Plan& plan) {
  std::vector<RoleSummary> summaries;
  std::vector<numerics::ErrorStats> errors;
  for (const PlannedTensor& tensor : plan.data().tensors) {
    auto found = std::ranges::find(summaries, tensor.role, &RoleSummary::role);
    if (found == summaries.end()) {
      RoleSummary fresh;
      fresh.role = tensor.role;
      fresh.worst_sqnr_db = std::numeric_limits<double>::infinity();
      fresh.worst_tensor = tensor.tensor_name();
      summaries.push_back(std::move(fresh));
      errors.emplace_back();
      found = summaries.end() - 1;
    }
    RoleSummary& summary = *found;
    ++summary.modules;
    summary.elements += tensor.elements;
    summary.bytes += tensor.bytes;
    errors[static_cast<size_t>(found - summaries.begin())].merge(tensor.error);
    if (tensor_sqnr(tensor) < summary.worst_sqnr_db) {
      summary.worst_sqnr_db = tensor_sqnr(tensor);
      summary.worst_tensor = tensor.tensor_name();
    }
  }
  for (size_t i = 0; i < summaries.size(); ++i) summaries[i].sqnr_db = sqnr_db(errors[i]);
  return summaries;
}

}  // namespace sluice::allocate
