// The plan: which format every output tensor gets, what that takes and costs, and from what it was
// made. A Plan cannot exist over its budget or contradict itself: it is made by Plan::create alone.
// The file form is docs/formats.md#plan; reading and writing files is the caller's business.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/digest.h"
#include "base/error.h"
#include "numerics/error_stats.h"
#include "numerics/quant_format.h"

namespace sluice::allocate {

inline constexpr int kPlanVersion = 1;

struct PlannedTensor {
  std::string path;       // module path
  std::string parameter;  // "weight", "bias"; empty for a raw parameter
  std::string role;
  int layer = -1;
  uint64_t elements = 0;
  bool quantizable = false;
  numerics::QuantFormat format;
  numerics::Encoder encoder = numerics::Encoder::kCast;
  uint64_t bytes = 0;               // of all tensors it becomes
  double alpha = 0;                 // its weight in the objective
  numerics::ErrorStats error;       // predicted: what analysis measured for this candidate
  double worst_expert_sqnr_db = 0;  // +infinity when exact
  uint32_t worst_expert = 0;
  Digest source;  // of its source's bytes as analysed (Item::source); zero: not known
  bool operator==(const PlannedTensor&) const = default;

  std::string tensor_name() const { return parameter.empty() ? path : path + "." + parameter; }
};

// One uniform plan under the same measure: this format and encoder for every quantizable module,
// a smaller group where the shape does not divide, routers at their floor.
struct UniformPlan {
  numerics::QuantFormat format;
  numerics::Encoder encoder = numerics::Encoder::kParity;
  uint64_t exact_bytes = 0;  // with headers
  double cost = 0;
  bool admissible = false;        // no module under the floor or outside the allowed formats
  uint32_t fallback_modules = 0;  // stored in another format than the plan's own
  bool operator==(const UniformPlan&) const = default;
};

struct PlanData {
  uint64_t budget_bytes = 0;
  uint64_t exact_bytes = 0;   // all weight files, headers included; ≤ budget_bytes
  uint64_t tensor_bytes = 0;  // Σ of tensors[i].bytes
  uint64_t elements = 0;      // Σ of tensors[i].elements

  std::string objective;     // objective_name
  std::string method;        // "exact" or "mint-greedy"
  std::string configs;       // ConfigSet::name
  std::string sensitivity;   // SensitivityTable::id
  double sqnr_floor_db = 0;  // −infinity: none
  double cost = 0;           // Σ αᵢ·NRMSEᵢ² of the plan
  double bound = 0;          // no plan within the budget costs less; ≤ cost
  // The divergence from the original that measured sensitivities predict, Σ αᵢ·NRMSEᵢ² in nats per
  // token; nothing under other tables.
  std::optional<double> predicted_kl = {};
  double gap() const { return cost > bound ? (cost - bound) / cost : 0; }

  Digest source;    // Checkpoint::identity_digest
  Digest analysis;  // Analysis::digest
  std::string family;
  std::string dtype;        // of the model: "bfloat16", "float16", "float32"
  std::string parity;       // rule of the parity encoder: "cpu", "gpu"
  std::string only_layers;  // "3-5" for a part of a model; empty: the whole
  // io::Activations::digest of the inputs that the feedback encoder goes by; zero: it is not used.
  // Predicted errors are then still those of the encoder that analysis priced.
  Digest activations;

  std::vector<PlannedTensor> tensors;  // in module order
  std::vector<UniformPlan> uniform;    // every uniform plan, whatever its size
  bool operator==(const PlanData&) const = default;
};

// Value, immutable; thread-safe. Copies share the data.
class Plan {
 public:
  // Errors: kInvalidArgument, one sentence, for a plan over budget, tensors named twice, sizes that
  // do not follow from formats, sums that do not add up, a bound above the cost.
  static Result<Plan> create(PlanData data);

  const PlanData& data() const { return state_->data; }
  // nullptr when absent. tensor_name: path.parameter.
  const PlannedTensor* find(std::string_view tensor_name) const;

  // The quantized format of most modules, which config.json names as the global one (ties: the one
  // with more elements, then the smaller format); nothing when no module is quantized.
  std::optional<numerics::QuantFormat> default_format() const { return state_->default_format; }
  // Of the plan's content; also what the file carries to notice damage.
  const Digest& digest() const { return state_->digest; }

  bool operator==(const Plan& other) const { return data() == other.data(); }

 private:
  struct State {
    PlanData data;
    std::unordered_map<std::string, size_t> by_name;
    std::optional<numerics::QuantFormat> default_format;
    Digest digest;
  };
  explicit Plan(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

// The same plan with the feedback encoder for every affine tensor that is encoded anew and whose
// input was recorded. activations: digest of the record.
Result<Plan> with_feedback(const Plan& plan, const Digest& activations,
                           const std::function<bool(const std::string& tensor_name)>& recorded);

// Indented JSON that ends in a newline; the same plan gives the same text.
std::string plan_to_json(const Plan& plan);
// label names the file in errors. Errors: kCorrupt for anything plan_to_json would not write,
// kUnsupported for a newer version.
Result<Plan> plan_from_json(std::string_view text, std::string_view label);

// ---- Summaries ----

// Σ αᵢ·NRMSEᵢ².
double squared_cost(std::span<const PlannedTensor> tensors);

double bits_per_weight(
    const Plan& plan);  // of all tensors, headers not counted; 0 without elements

// Share of each format and encoder among quantizable modules, largest elements first.
struct FormatShare {
  numerics::QuantFormat format;
  numerics::Encoder encoder = numerics::Encoder::kCast;
  size_t modules = 0;
  uint64_t elements = 0;
  uint64_t bytes = 0;
};
std::vector<FormatShare> format_shares(const Plan& plan);

// All modules by role, norms and biases too, in order of first appearance. sqnr_db: of the merged
// error sums; worst: the module of least SQNR. +infinity when exact.
struct RoleSummary {
  std::string role;
  size_t modules = 0;
  uint64_t elements = 0;
  uint64_t bytes = 0;
  double sqnr_db = 0;
  double worst_sqnr_db = 0;
  std::string worst_tensor;
};
std::vector<RoleSummary> role_summaries(const Plan& plan);

}  // namespace sluice::allocate
