#include "stream/feedback_factors.h"

#include <algorithm>

namespace sluice::stream {

using numerics::FeedbackFactor;

Result<std::shared_ptr<const FeedbackFactor>> FeedbackFactors::make(size_t input, uint64_t expert) {
  SLUICE_ASSIGN(const io::Moments moments, activations_->load(input, expert));
  const auto columns = static_cast<size_t>(activations_->manifest().inputs[input].columns);
  return std::make_shared<const FeedbackFactor>(moments.values, columns);
}

std::shared_ptr<FeedbackFactors::Entry> FeedbackFactors::entry_of(
    const std::pair<size_t, uint64_t>& key) {
  MutexLock lock(mutex_);
  const auto found = std::ranges::find(entries_, key, [](const auto& entry) { return entry->key; });
  if (found != entries_.end()) {
    entries_.splice(entries_.begin(), entries_, found);
  } else {
    entries_.push_front(std::make_shared<Entry>());
    entries_.front()->key = key;
  }
  std::shared_ptr<Entry> entry = entries_.front();
  uint64_t idle_bytes = 0;
  for (auto it = std::next(entries_.begin()); it != entries_.end();) {
    const uint64_t columns = activations_->manifest().inputs[(*it)->key.first].columns;
    idle_bytes += FeedbackFactor::bytes(columns);
    it = idle_bytes > kIdleFactorBytes ? entries_.erase(it) : std::next(it);
  }
  return entry;
}

Result<std::shared_ptr<const FeedbackFactor>> FeedbackFactors::get(
    const families::OutputModule& module, uint64_t expert) {
  const auto index = activations_->find(module.tensor_name());
  if (!index)
    return fail(ErrorCode::kInvalidArgument, "{}: nothing is recorded of what enters {}",
                activations_->folder(), module.tensor_name());
  const io::ActivationInput& input = activations_->manifest().inputs[*index];
  if (input.columns != module.columns() ||
      (input.experts != 1 && input.experts != module.experts()))
    return fail(ErrorCode::kInvalidArgument,
                "{}: recorded were {} columns and {} experts of {}, which has {} and {}",
                activations_->folder(), input.columns, input.experts, module.tensor_name(),
                module.columns(), module.experts());
  if (input.experts == 1) expert = 0;
  const std::shared_ptr<Entry> entry = entry_of({*index, expert});
  MutexLock lock(entry->making);
  if (!entry->made) {
    SLUICE_ASSIGN(entry->factor, make(*index, expert));
    entry->made = true;
  }
  return entry->factor;
}

uint64_t feedback_bytes(const io::Activations& activations, unsigned workers) {
  uint64_t columns_max = 0;
  for (const io::ActivationInput& input : activations.manifest().inputs)
    columns_max = std::max(columns_max, input.columns);
  // Moments as read and what is made of them; each worker may have one in hand.
  const uint64_t making =
      FeedbackFactor::bytes(columns_max) + FeedbackFactor::making_bytes(columns_max);
  return kIdleFactorBytes + making + (workers - 1) * FeedbackFactor::bytes(columns_max);
}

}  // namespace sluice::stream
