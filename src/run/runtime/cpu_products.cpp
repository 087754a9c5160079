// The CPU back-end's matrix products and experts. A product is cut into items of whole row steps;
// all products of one call, and all experts of a layer, go to the pool as one list of items.
#include <algorithm>
#include <cstring>
#include <utility>

#include "runtime/cpu_backend.h"
#include "runtime/cpu_rows.h"
#include "runtime/product_peak.h"

namespace sluice::runtime {

using model::ExpertGroup;
using model::ExpertPlan;
using model::Product;
using model::Tensor;
using model::Weight;

namespace {

// An item is this part of a thread's share of what is left: large ones first, because products read
// an item's rows as eight streams, and small ones last, so that no thread waits long for another.
constexpr size_t kShare = 3;
// Weights below which an item is not worth handing out.
constexpr size_t kItemBytesMin = 64 << 10;
constexpr size_t kProductsMax = 8;  // of one input

}  // namespace

bool CpuBackend::prepared_alike(uint32_t a, uint32_t b) const {
  return weights_.entries()[a].format == weights_.entries()[b].format &&
         activations_of(a) == activations_of(b);
}

size_t CpuBackend::prepare_rows(uint32_t entry, const Buffer& x, size_t first, size_t count) {
  const numerics::WeightFormat& format = weights_.entries()[entry].format;
  const kernels::Activations activations = activations_of(entry);
  const size_t bytes = matmul_.prepared_bytes(format, activations, x.columns);
  SLUICE_DCHECK((first + count) * bytes <= prepared_.size());
  for_rows(pool_, count, [&](size_t i) {
    matmul_.prepare(format, activations, x.row(first + i), prepared_.data() + (first + i) * bytes);
  });
  return bytes;
}

void CpuBackend::add_task(const numerics::WeightView& view, uint32_t entry,
                          const std::byte* prepared, size_t tokens, const float* bias, float* y,
                          size_t y_stride) {
  const kernels::Activations taken = taken_activations(view.format, activations_of(entry));
  count_of(products_, taken) += uint64_t{tokens} * view.rows * view.columns;
  tasks_.push_back(
      {.weight = view,
       .activations = activations_of(entry),
       .prepared = prepared,
       .tokens = tokens,
       .bias = bias,
       .y = y,
       .y_stride = y_stride,
       .row_work = tokens * (static_cast<size_t>(weights_.entries()[entry].bytes_per_row()) + 1)});
}

void CpuBackend::cut_tasks() {
  const size_t threads = pool_.threads();
  size_t left = 0;
  for (const Task& task : tasks_) left += task.weight.rows * task.row_work;
  for (size_t i = 0; i < tasks_.size(); ++i) {
    const Task& task = tasks_[i];
    const size_t step = kernels::row_step(task.weight.format, task.activations);
    for (size_t first = 0; first < task.weight.rows;) {
      const size_t work = threads == 1 ? left : std::max(left / (kShare * threads), kItemBytesMin);
      const auto rows = static_cast<size_t>(align_up(work / task.row_work + 1, step));
      const size_t end = std::min(task.weight.rows, first + rows);
      items_.push_back({i, first, end});
      left -= (end - first) * task.row_work;
      first = end;
    }
  }
}

void CpuBackend::run_item(const Item& item, size_t worker) {
  const Task& task = tasks_[item.task];
  const size_t first = item.first, end = item.end;
  matmul_.matmul(task.weight, task.activations, task.prepared, task.tokens, first, end,
                 task.y + first, task.y_stride, scratch(worker).data());
  if (task.bias == nullptr) return;
  for (size_t token = 0; token < task.tokens; ++token)
    ops_.add({task.y + token * task.y_stride + first, end - first},
             {task.bias + first, end - first});
}

void CpuBackend::run_tasks() {
  cut_tasks();
  pool_.run(items_.size(), [&](size_t item, size_t worker) { run_item(items_[item], worker); });
  tasks_.clear();
  items_.clear();
}

void CpuBackend::add_perturbed(const Product& product, const numerics::WeightView& view,
                               uint64_t first_row, const Buffer& x) {
  if (perturbed_.empty()) return;
  Buffer& to = buffer(product.out);
  perturbed_.add(
      static_cast<uint32_t>(product.weight), view, first_row, x.rows,
      [&](size_t row) { return x.row(row); }, to.values.data() + first_row, to.columns);
}

// One window after the other, each by all threads while the next are being read.
void CpuBackend::multiply_windows(const Product& product, const Buffer& from) {
  const auto entry = static_cast<uint32_t>(product.weight);
  Buffer& to = buffer(product.out);
  to.rows = from.rows;
  prepare_rows(entry, from, 0, from.rows);
  const float* bias = product.bias == Weight::kNone ? nullptr : vector_of(product.bias).data();
  const auto [first, end] = weights_.windows(entry);
  for (size_t index = first; index < end && status_; ++index) {
    const auto view = weights_.take(index);
    if (!view) {
      status_ = std::unexpected(view.error());
      return;
    }
    const auto row = static_cast<size_t>(weights_.window(index).first_row);
    add_task(*view, entry, prepared_.data(), from.rows, bias == nullptr ? nullptr : bias + row,
             to.values.data() + row, to.columns);
    run_tasks();
    add_perturbed(product, *view, row, from);
  }
}

void CpuBackend::show_input(const Buffer& x, size_t first, size_t rows,
                            std::span<const Product> products, std::optional<uint32_t> expert) {
  std::string_view names[kProductsMax];
  SLUICE_CHECK(products.size() <= kProductsMax);
  for (size_t i = 0; i < products.size(); ++i)
    names[i] = weights_.entries()[static_cast<uint32_t>(products[i].weight)].name;
  on_input_({.weights = {names, products.size()},
             .values = x.values.subspan(first * x.columns, rows * x.columns),
             .columns = x.columns,
             .expert = expert});
}

void CpuBackend::qmatmul(Tensor x, std::span<const Product> products) {
  const Buffer& from = buffer(x);
  SLUICE_CHECK(products.size() <= kProductsMax);
  if (on_input_) show_input(from, 0, from.rows, products, std::nullopt);
  bool done[kProductsMax] = {};
  for (size_t i = 0; i < products.size(); ++i)
    if (!weights_.stays(static_cast<uint32_t>(products[i].weight))) {
      multiply_windows(products[i], from);
      done[i] = true;
    }
  for (size_t i = 0; i < products.size(); ++i) {
    if (done[i]) continue;
    const auto leader = static_cast<uint32_t>(products[i].weight);
    prepare_rows(leader, from, 0, from.rows);
    for (size_t j = i; j < products.size(); ++j) {
      const auto entry = static_cast<uint32_t>(products[j].weight);
      if (done[j] || !prepared_alike(leader, entry)) continue;
      done[j] = true;
      Buffer& to = buffer(products[j].out);
      to.rows = from.rows;
      const Weight bias = products[j].bias;
      add_task(weights_.view(entry), entry, prepared_.data(), from.rows,
               bias == Weight::kNone ? nullptr : vector_of(bias).data(), to.values.data(),
               to.columns);
    }
    run_tasks();
  }
  for (const Product& product : products)
    if (const auto entry = static_cast<uint32_t>(product.weight); weights_.stays(entry))
      add_perturbed(product, weights_.view(entry), 0, from);
}

// Rows [first_row, first_row + view.rows) of the weight, as far as they belong to heads' matrices.
// The activations of a head are prepared for all tokens together; as many heads at a time as there
// is room for.
void CpuBackend::multiply_heads(const model::HeadProduct& product, const numerics::WeightView& view,
                                uint64_t first_row, const Buffer& x, Buffer& out) {
  const auto entry = static_cast<uint32_t>(product.weight);
  const numerics::WeightFormat& format = weights_.entries()[entry].format;
  const kernels::Activations activations = activations_of(entry);
  const size_t head_bytes = matmul_.prepared_bytes(format, activations, view.columns) * x.rows;
  const size_t together = std::max<size_t>(1, prepared_.size() / head_bytes);
  const size_t x_head = x.columns / product.heads, out_head = out.columns / product.heads;
  const uint64_t end_row = first_row + view.rows;
  for (size_t head = 0; head < product.heads; head += together) {
    const size_t heads = std::min(together, product.heads - head);
    for_rows(pool_, heads * x.rows, [&](size_t i) {
      const size_t h = i / x.rows, row = i % x.rows;
      matmul_.prepare(format, activations, x.row(row).subspan((head + h) * x_head, view.columns),
                      prepared_.data() + h * head_bytes + row * (head_bytes / x.rows));
    });
    for (size_t h = 0; h < heads; ++h) {
      const uint64_t begins = uint64_t{head + h} * product.head_rows + product.first_row;
      const uint64_t from = std::max(first_row, begins);
      const uint64_t to = std::min(end_row, begins + product.rows);
      if (from >= to) continue;
      add_task(
          view.row_range(static_cast<size_t>(from - first_row), static_cast<size_t>(to - from)),
          entry, prepared_.data() + h * head_bytes, x.rows, nullptr,
          out.values.data() + (head + h) * out_head + (from - begins), out.columns);
    }
    run_tasks();
  }
  if (perturbed_.empty()) return;
  for (size_t head = 0; head < product.heads; ++head) {
    const uint64_t begins = uint64_t{head} * product.head_rows + product.first_row;
    const uint64_t from = std::max(first_row, begins);
    const uint64_t to = std::min(end_row, begins + product.rows);
    if (from >= to) continue;
    perturbed_.add(
        entry,
        view.row_range(static_cast<size_t>(from - first_row), static_cast<size_t>(to - from)), from,
        x.rows, [&](size_t row) { return x.row(row).subspan(head * x_head, view.columns); },
        out.values.data() + head * out_head + (from - begins), out.columns);
  }
}

// Sums the rows of a head's matrix, each times its element of x, in the order of rows: however many
// tokens there are, each adds the same numbers in the same order. A row is decoded once for all.
void CpuBackend::multiply_heads_transposed(const model::HeadProduct& product,
                                           const numerics::WeightView& view, uint64_t first_row,
                                           const Buffer& x, Buffer& out) {
  const size_t x_head = x.columns / product.heads, out_head = out.columns / product.heads;
  const uint64_t end_row = first_row + view.rows;
  pool_.run(product.heads, [&](size_t head, size_t worker) {
    const uint64_t begins = uint64_t{head} * product.head_rows + product.first_row;
    const uint64_t from = std::max(first_row, begins);
    const uint64_t to = std::min(end_row, begins + product.rows);
    const std::span<float> decoded(reinterpret_cast<float*>(scratch(worker).data()), view.columns);
    for (uint64_t r = from; r < to; ++r) {
      matmul_.decode_row(view, static_cast<size_t>(r - first_row), decoded);
      if (!perturbed_.empty()) perturbed_.apply(static_cast<uint32_t>(product.weight), r, decoded);
      for (size_t token = 0; token < x.rows; ++token)
        ops_.scale_add(out.row(token).subspan(head * out_head, view.columns),
                       x.row(token)[head * x_head + (r - begins)], decoded);
    }
  });
}

void CpuBackend::head_matmul(Tensor x, const model::HeadProduct& product, Tensor out) {
  const Buffer& from = buffer(x);
  Buffer& to = buffer(out);
  to.rows = from.rows;
  const auto entry = static_cast<uint32_t>(product.weight);
  const WeightEntry& e = weights_.entries()[entry];
  SLUICE_DCHECK(uint64_t{product.heads} * product.head_rows == e.rows);
  const auto multiply = [&](const numerics::WeightView& view, uint64_t first_row) {
    if (product.transposed)
      multiply_heads_transposed(product, view, first_row, from, to);
    else
      multiply_heads(product, view, first_row, from, to);
  };
  if (product.transposed)
    for_rows(pool_, to.rows, [&](size_t row) {
      for (size_t head = 0; head < product.heads; ++head)
        std::ranges::fill(to.row(row).subspan(head * (to.columns / product.heads),
                                              static_cast<size_t>(e.columns)),
                          0.0f);
    });
  if (weights_.stays(entry)) return multiply(weights_.view(entry), 0);
  const auto [first, end] = weights_.windows(entry);
  for (size_t index = first; index < end && status_; ++index) {
    const auto view = weights_.take(index);
    if (view)
      multiply(*view, weights_.window(index).first_row);
    else
      status_ = std::unexpected(view.error());
  }
}

void CpuBackend::request(std::span<const Weight> weights, std::span<const ExpertGroup> experts) {
  weights_.request(static_cast<uint32_t>(weights[0]), experts);
  slots_prepared_for_.reset();
  shown_ = false;
}

void CpuBackend::guess(std::span<const Weight> weights, std::span<const model::Choice> choices) {
  weights_.guess(static_cast<uint32_t>(weights[0]), choices);
}

std::span<const ExpertGroup> CpuBackend::next_experts() {
  if (!status_) return {};
  const auto experts = weights_.next_experts();
  if (experts) return *experts;
  status_ = std::unexpected(experts.error());
  return {};
}

// Biases are few beside the matrices and stay under every policy.
const float* CpuBackend::expert_bias(Weight bias, uint32_t expert) const {
  if (bias == Weight::kNone) return nullptr;
  const numerics::WeightView rows = weights_.view(static_cast<uint32_t>(bias));
  return reinterpret_cast<const float*>(rows.weight) + expert * rows.columns;
}

// Experts may come in any order: what they share is shown once, before the first of them.
void CpuBackend::expert_matmul(Tensor x, bool x_by_row, const ExpertPlan& plan,
                               std::span<const ExpertGroup> groups,
                               std::span<const Product> products) {
  if (on_input_ && !x_by_row)
    for (const ExpertGroup& group : groups)
      show_input(buffer(x), group.first_slot, group.slots, products, group.expert);
  if (on_input_ && x_by_row && !std::exchange(shown_, true))
    show_input(buffer(x), 0, buffer(x).rows, products, std::nullopt);
  multiply_experts(x, x_by_row, plan, groups, products);
}

// The rows of a group lie together in out; x's prepared rows are brought together first where they
// belong to rows of the step, for all experts of the request at once.
void CpuBackend::multiply_experts(Tensor x, bool x_by_row, const ExpertPlan& plan,
                                  std::span<const ExpertGroup> groups,
                                  std::span<const Product> products) {
  const Buffer& from = buffer(x);
  const auto leader = static_cast<uint32_t>(products[0].weight);
  size_t bytes = 0;
  if (!x_by_row) {
    for (const ExpertGroup& group : groups)
      bytes = prepare_rows(leader, from, group.first_slot, group.slots);
  } else if (slots_prepared_for_ && prepared_alike(*slots_prepared_for_, leader)) {
    bytes = slot_bytes_;
  } else {
    bytes = slot_bytes_ = prepare_rows(leader, from, 0, from.rows);
    slots_prepared_for_ = leader;
    for (size_t slot = 0; slot < plan.slot_row.size(); ++slot)
      std::memcpy(slot_prepared_.data() + slot * bytes,
                  prepared_.data() + plan.slot_row[slot] * bytes, bytes);
  }
  const std::byte* prepared = x_by_row ? slot_prepared_.data() : prepared_.data();
  for (const Product& product : products) {
    const auto entry = static_cast<uint32_t>(product.weight);
    if (entry != leader && !prepared_alike(leader, entry)) {
      const auto done = static_cast<size_t>(&product - products.data());
      run_tasks();
      add_perturbed_experts(from, x_by_row, plan, groups, products.first(done));
      return multiply_experts(x, x_by_row, plan, groups, products.subspan(done));
    }
    Buffer& to = buffer(product.out);
    to.rows = plan.slot_row.size();
    for (const ExpertGroup& group : groups)
      add_task(weights_.expert(entry, group.expert), entry, prepared + group.first_slot * bytes,
               group.slots, expert_bias(product.bias, group.expert),
               to.row(group.first_slot).data(), to.columns);
  }
  run_tasks();
  add_perturbed_experts(from, x_by_row, plan, groups, products);
}

void CpuBackend::add_perturbed_experts(const Buffer& x, bool x_by_row, const ExpertPlan& plan,
                                       std::span<const ExpertGroup> groups,
                                       std::span<const Product> products) {
  if (perturbed_.empty()) return;
  for (const Product& product : products) {
    const auto entry = static_cast<uint32_t>(product.weight);
    const uint64_t rows = weights_.entries()[entry].rows / weights_.entries()[entry].experts;
    Buffer& to = buffer(product.out);
    for (const ExpertGroup& group : groups)
      perturbed_.add(
          entry, weights_.expert(entry, group.expert), group.expert * rows, group.slots,
          [&](size_t i) {
            const size_t slot = group.first_slot + i;
            return x.row(x_by_row ? plan.slot_row[slot] : slot);
          },
          to.row(group.first_slot).data(), to.columns);
  }
}

void CpuBackend::scale_slots(Tensor x, const ExpertPlan& plan, Tensor out) {
  const Buffer& from = buffer(x);
  Buffer& to = buffer(out);
  to.rows = plan.slot_row.size();
  for_rows(pool_, plan.choice_slot.size(), [&](size_t choice) {
    const size_t slot = plan.choice_slot[choice];
    const std::span<const float> row = from.row(plan.slot_row[slot]);
    for (size_t i = 0; i < row.size(); ++i) to.row(slot)[i] = plan.choice_weight[choice] * row[i];
  });
}

void CpuBackend::activate_slots(const model::ActivationRule& rule, Tensor gate, Tensor up,
                                std::span<const ExpertGroup> groups) {
  Buffer& to = buffer(gate);
  const Buffer& factor = buffer(up);
  for (const ExpertGroup& group : groups)
    for_rows(pool_, group.slots, [&](size_t i) {
      const size_t slot = group.first_slot + i;
      activate_row(rule, to.row(slot), factor.row(slot));
    });
}

void CpuBackend::weighted_sum(Tensor slots, const ExpertPlan& plan, Tensor out) {
  const Buffer& from = buffer(slots);
  Buffer& to = buffer(out);
  to.rows = plan.rows;
  for_rows(pool_, plan.rows, [&](size_t row) {
    std::ranges::fill(to.row(row), 0.0f);
    for (size_t i = row * plan.top_k; i < (row + 1) * plan.top_k; ++i)
      ops_.scale_add(to.row(row), plan.choice_weight[i], from.row(plan.choice_slot[i]));
  });
}

}  // namespace sluice::runtime
