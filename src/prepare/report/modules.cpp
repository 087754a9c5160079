#include "report/modules.h"

#include <algorithm>

#include "allocate/uniform.h"
#include "report/html.h"

namespace sluice::report {
namespace {

using allocate::Candidate;
using allocate::Item;
using allocate::PlannedTensor;
using allocate::UniformPlan;
using numerics::Encoder;
using numerics::QuantMode;

// Without a plan the page shows how hard each module is at the format most people would take.
constexpr numerics::QuantFormat kUsual{QuantMode::kAffine, 4, 64};

std::string format_name(const numerics::QuantFormat& format, Encoder encoder) {
  if (format.mode == QuantMode::kFloat) return numerics::format_text(format);
  return fmt::format("{} {}", numerics::format_text(format), numerics::encoder_name(encoder));
}

// A role that holds stacked experts is named so (families::role_name).
bool is_expert_role(const std::string& role) { return role.starts_with("expert"); }

ModuleView view_of(const PlannedTensor& tensor, const ReportInput& input) {
  ModuleView view;
  view.name = tensor.tensor_name();
  view.role = tensor.role;
  view.layer = tensor.layer;
  view.elements = tensor.elements;
  view.bytes = tensor.bytes;
  view.quantizable = tensor.quantizable;
  view.format = format_name(tensor.format, tensor.encoder);
  const auto measured = input.measured.find(view.name);
  view.after = measured != input.measured.end() ? measured->second : tensor.error;
  const double cost = input.plan->data().cost;
  const double squared = nrmse_squared(tensor.error);
  const bool linear = input.plan->data().objective == "nrmse-linear";
  if (cost > 0) view.share = tensor.alpha * (linear ? std::sqrt(squared) : squared) / cost;
  view.worst_expert_db = tensor.worst_expert_sqnr_db;
  view.worst_expert = tensor.worst_expert;
  view.has_experts = is_expert_role(tensor.role);
  return view;
}

ModuleView view_of(const Item& item, const Candidate& candidate) {
  ModuleView view;
  view.name = item.tensor_name();
  view.role = item.role;
  view.layer = item.layer;
  view.elements = item.elements;
  view.bytes = candidate.bytes;
  view.quantizable = item.quantizable;
  view.format = format_name(candidate.format, candidate.encoder);
  view.after = candidate.error;
  view.worst_expert_db = candidate.worst_expert_sqnr_db;
  view.worst_expert = candidate.worst_expert;
  view.has_experts = is_expert_role(item.role);
  return view;
}

const Candidate& usual_candidate(const Item& item) {
  for (const Candidate& candidate : item.candidates)
    if (candidate.format == kUsual && candidate.encoder == Encoder::kParity) return candidate;
  return item.candidates.back();
}

// What every module would be in the uniform plan, in the order of items; empty when the analysis
// is not there.
allocate::Choice rival_choice(const ReportInput& input, const UniformPlan& rival) {
  for (allocate::UniformChoice& choice : allocate::uniform_choices(input.items))
    if (choice.format == rival.format && choice.encoder == rival.encoder)
      return std::move(choice.choice);
  return {};
}

void add_rival(const ReportInput& input, ModuleViews& views) {
  const UniformPlan* rival = uniform_rival(input);
  if (rival == nullptr) return;
  views.uniform = numerics::format_text(rival->format);
  views.uniform_bytes = rival->exact_bytes;
  views.uniform_cost = rival->cost;
  const allocate::Choice choice = rival_choice(input, *rival);
  std::map<std::string, numerics::ErrorStats> errors;
  for (size_t i = 0; i < choice.size(); ++i)
    errors[input.items[i].tensor_name()] = input.items[i].candidates[choice[i]].error;
  for (ModuleView& view : views.modules)
    if (const auto found = errors.find(view.name); found != errors.end())
      view.before = found->second;
}

}  // namespace

const UniformPlan* uniform_rival(const ReportInput& input) {
  if (!input.plan) return nullptr;
  const uint64_t budget = input.plan->data().budget_bytes;
  const UniformPlan* fits = nullptr;
  const UniformPlan* smallest = nullptr;
  for (const UniformPlan& plan : input.uniform) {
    if (plan.encoder != Encoder::kParity) continue;
    if (plan.exact_bytes <= budget && (fits == nullptr || plan.cost < fits->cost)) fits = &plan;
    if (smallest == nullptr || plan.exact_bytes < smallest->exact_bytes) smallest = &plan;
  }
  return fits != nullptr ? fits : smallest;
}

ModuleViews module_views(const ReportInput& input) {
  ModuleViews views;
  if (input.plan) {
    views.planned = true;
    views.priced = input.plan->data().cost > 0;
    for (const PlannedTensor& tensor : input.plan->data().tensors)
      views.modules.push_back(view_of(tensor, input));
    add_rival(input, views);
  } else {
    for (const Item& item : input.items)
      views.modules.push_back(view_of(item, usual_candidate(item)));
  }
  return views;
}

std::vector<std::string> roles_of(const std::vector<ModuleView>& modules) {
  std::vector<std::string> roles;
  for (const ModuleView& module : modules)
    if (module.quantizable && std::ranges::find(roles, module.role) == roles.end())
      roles.push_back(module.role);
  return roles;
}

}  // namespace sluice::report
