// The factors that the feedback encoder goes by, made from recorded activations when the first
// block of a module asks and kept while others of it do.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <utility>

#include "base/mutex.h"
#include "families/recipe.h"
#include "io/activations.h"
#include "numerics/feedback.h"

namespace sluice::stream {

// Of those that nobody uses any more, so many bytes are kept: modules of one input come one after
// another, and their blocks in about the order of rows.
inline constexpr uint64_t kIdleFactorBytes = 256ull << 20;

// Thread-safe. What is made depends on the record alone.
class FeedbackFactors {
 public:
  explicit FeedbackFactors(std::shared_ptr<const io::Activations> activations)
      : activations_(std::move(activations)) {}

  const io::Activations& activations() const { return *activations_; }
  // Of the module's rows of that expert. Whoever asks for what another thread is making waits.
  // Errors: the record's; kInvalidArgument where it holds nothing for this module, or of another
  // shape.
  Result<std::shared_ptr<const numerics::FeedbackFactor>> get(const families::OutputModule& module,
                                                              uint64_t expert);

 private:
  struct Entry {
    std::pair<size_t, uint64_t> key;  // input, expert
    Mutex making;                     // held while it is made
    bool made GUARDED_BY(making) = false;
    std::shared_ptr<const numerics::FeedbackFactor> factor GUARDED_BY(making);
  };

  Result<std::shared_ptr<const numerics::FeedbackFactor>> make(size_t input, uint64_t expert);
  std::shared_ptr<Entry> entry_of(const std::pair<size_t, uint64_t>& key);

  const std::shared_ptr<const io::Activations> activations_;
  Mutex mutex_;
  std::list<std::shared_ptr<Entry>> entries_ GUARDED_BY(mutex_);  // the last used first
};

// Bytes that encoding and making factors will take at most beside everything else, with so many
// workers.
uint64_t feedback_bytes(const io::Activations& activations, unsigned workers);

}  // namespace sluice::stream
