#include "runtime/product_peak.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/clock.h"

namespace sluice::runtime {
namespace {

using kernels::Activations;

// Products of one thread at a time: enough to outlast its start, some milliseconds at most.
constexpr uint64_t kProducts = 100'000'000;
constexpr int kTries = 3;  // the fastest counts; the first may meet a processor that still slows

// Products a second.
double peak_rate(Activations activations, const kernels::MatmulTable& matmul, ThreadPool& pool) {
  double best = 0;
  std::vector<uint64_t> done(pool.threads());
  for (int i = 0; i < kTries; ++i) {
    const Stopwatch watch;
    pool.run(done.size(), [&](size_t item, size_t) {
      done[item] = matmul.multiply_only(activations, kProducts);
    });
    const uint64_t products = std::accumulate(done.begin(), done.end(), uint64_t{0});
    best = std::max(best, static_cast<double>(products) / watch.seconds());
  }
  return best;
}

}  // namespace

double seconds_at_peak(const ProductCounts& counts, const kernels::MatmulTable& matmul,
                       ThreadPool& pool) {
  double seconds = 0;
  ProductCounts wanted = counts;
  for (const Activations kind : {Activations::kF32, Activations::kI16, Activations::kI8}) {
    const uint64_t count = count_of(wanted, kind);
    if (count == 0) continue;
    const double rate = peak_rate(kind, matmul, pool);
    if (rate == 0) return 0;
    seconds += static_cast<double>(count) / rate;
  }
  return seconds;
}

}  // namespace sluice::runtime
