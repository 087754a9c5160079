// Mixtures of experts: routers, whose choice is read; products with experts that stay or take
// turns; sums. What is computed together follows from the choices alone, and so do the bits:
// experts with one row each are gathered in one call, every other has its own.
#include <algorithm>

#include "gpu/mlx_backend.h"

namespace sluice::gpu {

using model::ExpertGroup;
using model::ExpertPlan;
using model::Tensor;
using model::Weight;

std::span<const model::Choice> MlxBackend::route(Tensor logits, const model::RouterRule& rule) {
  const std::span<const float> found = read(logits);
  if (!status_) {
    no_choices_.assign(rows_ * rule.top_k, {});
    return no_choices_;
  }
  host_.assign(found.begin(), found.end());
  return router_.choose(host_, rule,
                        {host_vector(rule.correction), host_vector(rule.expert_scale)});
}

void MlxBackend::request(std::span<const Weight> weights, std::span<const ExpertGroup> experts) {
  for (Value& v : values_) v.pieces.clear();
  if (status_) weights_.store().request(static_cast<uint32_t>(weights[0]), experts);
}

void MlxBackend::guess(std::span<const Weight> weights, std::span<const model::Choice> choices) {
  if (status_) weights_.store().guess(static_cast<uint32_t>(weights[0]), choices);
}

// Slots are read into again: what looks at them is computed first.
std::span<const ExpertGroup> MlxBackend::next_experts() {
  if (weights_.store().slots() != nullptr && !waiting_.empty())
    attempt([&] { evaluate(waiting_); });
  waiting_.clear();
  if (!status_) return {};
  const auto groups = weights_.store().next_experts();
  if (groups) return *groups;
  status_ = std::unexpected(groups.error());
  return {};
}

std::vector<MlxBackend::Together> MlxBackend::split_groups(std::span<const ExpertGroup> groups,
                                                           uint32_t entry) const {
  const runtime::WeightStore& store = weights_.store();
  const bool gathers = store.slots() == nullptr && store.stays(entry) &&
                       store.entries()[entry].format.quant.mode != numerics::QuantMode::kFloat;
  std::vector<Together> out;
  Together single{.slots = {}, .experts = {}, .gathered = true};
  for (const ExpertGroup& group : groups) {
    if (gathers && group.slots == 1) {
      single.slots.push_back(group.first_slot);
      single.experts.push_back(group.expert);
      continue;
    }
    Together& own = out.emplace_back();
    own.experts.assign(group.slots, group.expert);
    for (uint32_t slot = 0; slot < group.slots; ++slot)
      own.slots.push_back(group.first_slot + slot);
  }
  if (!single.slots.empty()) out.push_back(std::move(single));
  return out;
}

mx::array MlxBackend::rows_of_slots(Tensor x, bool x_by_row, const ExpertPlan& plan,
                                    const Together& together, size_t piece) {
  const Value& v = value(x);
  if (!x_by_row && v.pieces.size() > v.wave + piece &&
      v.pieces[v.wave + piece].slots == together.slots)
    return v.pieces[v.wave + piece].rows;
  if (!x_by_row) return mx::take(all_slots(x, plan), indices(together.slots), 0, device_);
  std::vector<uint32_t> rows;
  for (const uint32_t slot : together.slots) rows.push_back(plan.slot_row[slot]);
  return mx::take(at(x), indices(rows), 0, device_);
}

void MlxBackend::expert_matmul(Tensor x, bool x_by_row, const ExpertPlan& plan,
                               std::span<const ExpertGroup> groups,
                               std::span<const model::Product> products) {
  attempt([&] {
    for (const model::Product& product : products) {
      const auto entry = static_cast<uint32_t>(product.weight);
      Value& out = value(product.out);
      out.rows_of = std::nullopt;
      out.wave = out.pieces.size();
      const std::vector<Together> parts = split_groups(groups, entry);
      for (size_t i = 0; i < parts.size(); ++i) {
        const Together& together = parts[i];
        const mx::array rows = rows_of_slots(x, x_by_row, plan, together, i);
        mx::array y =
            together.gathered
                ? weights_.gather(rows, weights_.whole(entry), indices(together.experts))
                : weights_.multiply(rows, weights_.matrix(entry, weights_.store().expert(
                                                                     entry, together.experts[0])));
        if (product.bias != Weight::kNone)
          y = mx::add(y,
                      mx::take(weights_.floats(static_cast<uint32_t>(product.bias)),
                               indices(together.experts), 0, device_),
                      device_);
        waiting_.push_back(y);
        out.pieces.push_back({together.slots, y});
      }
    }
  });
}

// All slots' rows, in the order of slots.
mx::array MlxBackend::all_slots(Tensor x, const ExpertPlan& plan) {
  const Value& v = value(x);
  if (v.rows_of) return *v.rows_of;
  std::vector<mx::array> parts;
  std::vector<uint32_t> place(plan.slot_row.size());
  uint32_t next = 0;
  for (const Piece& piece : v.pieces) {
    parts.push_back(piece.rows);
    for (const uint32_t slot : piece.slots) place[slot] = next++;
  }
  SLUICE_CHECK(next == place.size());
  return mx::take(mx::concatenate(parts, 0, device_), indices(place), 0, device_);
}

void MlxBackend::scale_slots(Tensor x, const ExpertPlan& plan, Tensor out) {
  attempt([&] {
    std::vector<float> factors(plan.slot_row.size());
    for (size_t i = 0; i < factors.size(); ++i)
      factors[plan.choice_slot[i]] = plan.choice_weight[i];
    const mx::array rows = mx::take(at(x), indices(plan.slot_row), 0, device_);
    set(out, mx::multiply(rows, mx::array(factors.begin(), {dim(factors.size()), 1}, mx::float32),
                          device_));
  });
}

void MlxBackend::activate_slots(const model::ActivationRule& rule, Tensor gate, Tensor up,
                                std::span<const ExpertGroup>) {
  attempt([&] {
    Value &gates = value(gate), &ups = value(up);
    for (size_t i = gates.wave; i < gates.pieces.size(); ++i)
      gates.pieces[i].rows = activated(rule, gates.pieces[i].rows, ups.pieces[i].rows);
  });
}

void MlxBackend::weighted_sum(Tensor slots, const ExpertPlan& plan, Tensor out) {
  attempt([&] {
    const int rows = dim(plan.rows), top_k = dim(plan.top_k), columns = dim(value(out).columns);
    const mx::array chosen =
        mx::reshape(mx::take(all_slots(slots, plan), indices(plan.choice_slot), 0, device_),
                    {rows, top_k, columns}, device_);
    const mx::array weights(plan.choice_weight.begin(), {rows, top_k, 1}, mx::float32);
    set(out, mx::sum(mx::multiply(chosen, weights, device_), 1, false, device_));
  });
}

}  // namespace sluice::gpu
