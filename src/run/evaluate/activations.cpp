#include "evaluate/activations.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "numerics/feedback.h"

namespace sluice::evaluate {
namespace {

using io::ActivationInput;
using io::Moments;
using runtime::Feed;
using runtime::ProductInput;

// Columns that lie together in packed rows; a multiple of every vector's width.
constexpr size_t kTile = 16;
// Rows of the triangle that are added up together.
constexpr size_t kRowsTogether = 4;

uint64_t token_count(std::span<const Window> windows) {
  uint64_t count = 0;
  for (const Window& window : windows) count += window.ids.size();
  return count;
}

uint64_t memory_of(const ActivationInput& input) {
  return input.experts * numerics::triangle_elements(input.columns) * sizeof(float);
}

// A window from an empty session. The head is multiplied only where rows are asked for.
Status run_window(runtime::Engine& engine, runtime::Session& session,
                  std::span<const uint32_t> tokens, const CancelToken* cancel) {
  session.rewind(0);
  const Feed feed{&session, tokens, tokens.size()};
  return engine.step({&feed, 1}, [](size_t, size_t, std::span<const float>) {}, cancel);
}

// Observes until it goes.
class Observing {
 public:
  Observing(runtime::Engine& engine, runtime::OnInput on_input) : engine_(engine) {
    engine.observe_inputs(std::move(on_input));
  }
  ~Observing() { engine_.observe_inputs(nullptr); }
  Observing(const Observing&) = delete;
  Observing& operator=(const Observing&) = delete;

 private:
  runtime::Engine& engine_;
};

// Rows [first, first + kRowsTogether) of the triangle. packed: see add_moments.
void add_rows(size_t first, size_t columns, size_t rows, std::span<const float> packed,
              std::span<float> triangle) {
  const float* left = packed.data() + first / kTile * kTile * rows + first % kTile;
  for (size_t column = first / kTile * kTile; column < columns; column += kTile) {
    const float* right = packed.data() + column * rows;
    float sums[kRowsTogether][kTile] = {};
    const auto each = [&](auto&& body) {
      for (size_t r = 0; r < kRowsTogether; ++r) {
        const size_t i = first + r;
        float* row = triangle.data() + i * (2 * columns - i + 1) / 2;
        for (size_t c = 0; c < kTile; ++c)
          if (column + c >= i) body(row[column + c - i], sums[r][c]);
      }
    };
    each([](const float& element, float& sum) { sum = element; });
    for (size_t t = 0; t < rows; ++t)
      for (size_t r = 0; r < kRowsTogether; ++r) {
        const float factor = left[t * kTile + r];
        for (size_t c = 0; c < kTile; ++c) {
          const float product = factor * right[t * kTile + c];
          sums[r][c] = sums[r][c] + product;
        }
      }
    each([](float& element, const float& sum) { element = sum; });
  }
}

// The moments of one pass.
class Recorder {
 public:
  Recorder(const ActivationPlan& plan, std::span<const size_t> inputs, ThreadPool& pool)
      : pool_(pool) {
    for (const size_t index : inputs) {
      const ActivationInput& input = plan.manifest.inputs[index];
      std::vector<Moments>& moments = moments_[input.weights.front()];
      moments.resize(input.experts);
      for (Moments& part : moments) part.values.resize(numerics::triangle_elements(input.columns));
    }
  }

  void add(const ProductInput& input) {
    for (const std::string_view weight : input.weights) {
      const auto found = moments_.find(std::string(weight));
      if (found == moments_.end()) continue;
      add_moments(input.values, input.columns, found->second[input.expert.value_or(0)], packed_,
                  pool_);
      return;
    }
  }

  std::span<const Moments> of(const ActivationInput& input) const {
    return moments_.at(input.weights.front());
  }

 private:
  ThreadPool& pool_;
  std::unordered_map<std::string, std::vector<Moments>> moments_;  // by the first weight's name
  std::vector<float> packed_;
};

}  // namespace

void add_moments(std::span<const float> values, size_t columns, Moments& moments,
                 std::vector<float>& packed, ThreadPool& pool) {
  const size_t rows = values.size() / columns;
  SLUICE_CHECK(columns % kTile == 0 &&
               moments.values.size() == numerics::triangle_elements(columns));
  // Tiles of columns, each with all rows one after another.
  packed.resize(values.size());
  for (size_t column = 0; column < columns; column += kTile)
    for (size_t t = 0; t < rows; ++t)
      std::copy_n(values.data() + t * columns + column, kTile,
                  packed.data() + column * rows + t * kTile);
  pool.run(columns / kRowsTogether, [&](size_t item, size_t) {
    add_rows(item * kRowsTogether, columns, rows, packed, moments.values);
  });
  moments.rows += rows;
}

Result<ActivationPlan> plan_activations(runtime::Engine& engine, std::span<const Window> windows,
                                        const WantedExperts& wanted, uint64_t memory_bytes_max,
                                        const std::string& folder, io::Storage& storage,
                                        const CancelToken* cancel) {
  SLUICE_CHECK(!windows.empty());
  ActivationPlan plan;
  plan.manifest.model = engine.info().identity;
  plan.manifest.text = windows_digest(windows);
  plan.manifest.tokens = token_count(windows);
  std::unordered_set<std::string> seen;
  {
    const Observing observing(engine, [&](const ProductInput& input) {
      ActivationInput found{.columns = input.columns};
      for (const std::string_view weight : input.weights) {
        const uint64_t experts = wanted(weight);
        if (experts == 0 || input.columns % 32 != 0) continue;
        if (!seen.emplace(weight).second) continue;
        found.weights.emplace_back(weight);
        if (input.expert) found.experts = experts;
      }
      if (!found.weights.empty()) plan.manifest.inputs.push_back(std::move(found));
    });
    runtime::Session session = engine.new_session();
    SLUICE_TRY(run_window(engine, session, std::span(windows[0].ids).first(1), cancel));
  }
  SLUICE_TRY(io::begin_activations(storage, folder, plan.manifest));
  uint64_t pass_bytes = 0;
  for (size_t i = 0; i < plan.manifest.inputs.size(); ++i) {
    const ActivationInput& input = plan.manifest.inputs[i];
    plan.disk_bytes += io::moment_file_bytes(input);
    if (io::has_moments(storage, folder, plan.manifest, i)) continue;
    const uint64_t bytes = memory_of(input);
    if (plan.passes.empty() || pass_bytes + bytes > memory_bytes_max) {
      plan.passes.emplace_back();
      pass_bytes = 0;
    }
    plan.passes.back().push_back(i);
    pass_bytes += bytes;
    plan.memory_bytes = std::max(plan.memory_bytes, pass_bytes);
  }
  return plan;
}

Status record_activations(runtime::Engine& engine, std::span<const Window> windows,
                          const ActivationPlan& plan, const std::string& folder,
                          io::Storage& storage, ThreadPool& pool, Progress& progress,
                          const CancelToken* cancel) {
  progress.begin("activations", plan.passes.size() * plan.manifest.tokens);
  runtime::Session session = engine.new_session();
  for (const std::vector<size_t>& inputs : plan.passes) {
    Recorder recorder(plan, inputs, pool);
    {
      const Observing observing(engine, [&](const ProductInput& input) { recorder.add(input); });
      for (const Window& window : windows) {
        SLUICE_TRY(run_window(engine, session, window.ids, cancel));
        progress.advance(window.ids.size());
      }
    }
    for (const size_t input : inputs)
      SLUICE_TRY(io::write_moments(storage, folder, plan.manifest, input,
                                   recorder.of(plan.manifest.inputs[input])));
  }
  progress.end();
  return {};
}

}  // namespace sluice::evaluate
