#include "evaluate/throughput.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>
#include <span>

#include "base/clock.h"
#include "base/cpu.h"
#include "evaluate/statistics.h"

namespace sluice::evaluate {
namespace {

// Any ids do: a dense model's work does not depend on them, and spread ones exercise routers.
std::vector<uint32_t> some_tokens(size_t count, size_t vocabulary) {
  std::vector<uint32_t> ids(count);
  uint64_t state = 0x9e3779b97f4a7c15;
  for (uint32_t& id : ids) {
    state = state * 6364136223846793005 + 1442695040888963407;
    id = static_cast<uint32_t>((state >> 33) % vocabulary);
  }
  return ids;
}

void finish(Throughput& result) {
  const double tokens = static_cast<double>(result.tokens * result.batch);
  result.tokens_per_s = tokens / quantile(result.seconds, 0.5);
}

// What reading weights came to in each repetition, beside its seconds.
class DiskMeter {
 public:
  explicit DiskMeter(runtime::Engine& engine)
      : engine_(engine), used_(engine.info().disk_bytes_token > 0) {}

  void begin() {
    if (!used_) return;
    engine_.record_reads();
    before_ = engine_.statistics();
    cpu_before_ = cpu_seconds();
  }
  // seconds: what the repetition took, its steps alone.
  Status end(size_t steps, double seconds) {
    if (!used_) return {};
    const double cpu = cpu_seconds() - cpu_before_;
    const runtime::StreamStatistics now = engine_.statistics();
    engine_.stop_recording_reads();
    const Stopwatch watch;
    SLUICE_TRY(engine_.replay_reads());
    const double limit = watch.seconds();
    limits_.push_back(limit);
    shares_.push_back(limit / seconds);
    bytes_.push_back(static_cast<double>(now.bytes_read - before_.bytes_read) /
                     static_cast<double>(steps));
    cpu_.push_back(cpu / static_cast<double>(steps));
    requested_ += now.experts_requested - before_.experts_requested;
    there_ += now.experts_there - before_.experts_there;
    return {};
  }
  void report(Throughput& result) {
    if (!used_) return;
    result.limit_s = quantile(limits_, 0.5);
    result.share_of_limit = quantile(shares_, 0.5);
    result.disk_bytes_step = quantile(bytes_, 0.5);
    result.cpu_s_step = quantile(cpu_, 0.5);
    if (requested_ > 0)
      result.hit_rate = static_cast<double>(there_) / static_cast<double>(requested_);
  }

 private:
  runtime::Engine& engine_;
  const bool used_;
  runtime::StreamStatistics before_;
  double cpu_before_ = 0;
  std::vector<double> limits_, shares_, bytes_, cpu_;
  uint64_t requested_ = 0, there_ = 0;
};

// A sum over memory in whole kBlocks. Registers by what read fastest; whether to ask for what comes
// next depends on the processor: one thread of a Zen 4 reads 33 GB/s with it and 28 without, of a
// Zen 5 26 with it and 35 without.
constexpr size_t kBlock = 128;
template <size_t kAhead>
uint64_t sum_blocks(std::span<const std::byte> bytes) {
  using Pair [[gnu::vector_size(16)]] = uint64_t;
  constexpr size_t kPairs = kBlock / sizeof(Pair);
  Pair lanes[kPairs] = {};
  for (size_t at = 0; at + kBlock <= bytes.size(); at += kBlock) {
    if constexpr (kAhead > 0) {
      __builtin_prefetch(bytes.data() + at + kAhead);
      __builtin_prefetch(bytes.data() + at + kAhead + kBlock / 2);
    }
#pragma GCC unroll 8
    for (size_t lane = 0; lane < kPairs; ++lane) {
      Pair next;
      std::memcpy(&next, bytes.data() + at + lane * sizeof(Pair), sizeof(Pair));
      lanes[lane] += next;
    }
  }
  const Pair sum = std::accumulate(std::begin(lanes), std::end(lanes), Pair{});
  return sum[0] + sum[1];
}

// What reading the weights without computing came to after each repetition.
class MemoryMeter {
 public:
  explicit MemoryMeter(const runtime::Engine& engine)
      : pool_(engine.pool()),
        weights_(engine.info().disk_bytes_token > 0 ? std::span<const std::byte>()
                                                    : engine.resident_weights()) {}

  // step_bytes: read by each of so many steps, which took so many seconds together.
  void end(size_t steps, uint64_t step_bytes, double seconds) {
    if (weights_.empty()) return;
    const double rate = std::max(read_weights(sum_blocks<512>), read_weights(sum_blocks<0>));
    rates_.push_back(rate);
    shares_.push_back(static_cast<double>(steps * step_bytes) / rate / seconds);
  }
  void report(Throughput& result) {
    if (rates_.empty()) return;
    result.memory_bytes_s = quantile(rates_, 0.5);
    result.share_of_memory = quantile(shares_, 0.5);
  }

 private:
  double read_weights(uint64_t (*sum_of)(std::span<const std::byte>)) {
    const size_t share = weights_.size() / (8 * pool_.threads());
    const size_t piece = std::clamp<size_t>(share, 64 << 10, 8 << 20) / kBlock * kBlock;
    std::vector<uint64_t> sums(pool_.threads() * 16);  // each on a cache line of its own
    const Stopwatch watch;
    pool_.run((weights_.size() + piece - 1) / piece, [&](size_t item, size_t worker) {
      const size_t first = item * piece;
      sums[worker * 16] +=
          sum_of(weights_.subspan(first, std::min(piece, weights_.size() - first)));
    });
    const double seconds = watch.seconds();
    const uint64_t sum = std::accumulate(sums.begin(), sums.end(), uint64_t{0});
    SLUICE_CHECK(sum == sum_.value_or(sum));  // the reading is done for its sum
    sum_ = sum;
    return static_cast<double>(weights_.size()) / seconds;
  }

  ThreadPool& pool_;
  const std::span<const std::byte> weights_;
  std::optional<uint64_t> sum_;
  std::vector<double> rates_, shares_;
};

// What multiplying alone would have come to in each repetition.
class PeakMeter {
 public:
  explicit PeakMeter(const runtime::Engine& engine)
      : engine_(engine), used_(engine.info().disk_bytes_token == 0) {}

  void begin() { before_ = engine_.products(); }
  void end(double seconds) {
    const runtime::ProductCounts now = engine_.products();
    shares_.push_back(engine_.seconds_at_peak({.f32 = now.f32 - before_.f32,
                                               .i16 = now.i16 - before_.i16,
                                               .i8 = now.i8 - before_.i8}) /
                      seconds);
  }
  void report(Throughput& result) const {
    if (used_) result.share_of_peak = quantile(shares_, 0.5);
  }

 private:
  const runtime::Engine& engine_;
  const bool used_;
  runtime::ProductCounts before_;
  std::vector<double> shares_;
};

Result<Throughput> time_prefill(runtime::Engine& engine, size_t tokens, size_t repetitions,
                                Progress& progress, const CancelToken* cancel) {
  Throughput result;
  result.tokens = tokens;
  const auto ids = some_tokens(tokens, engine.info().vocabulary);
  runtime::Session session = engine.new_session();
  DiskMeter disk(engine);
  PeakMeter peak(engine);
  for (size_t i = 0; i < repetitions; ++i) {
    session.rewind(0);
    disk.begin();
    peak.begin();
    const Stopwatch watch;
    SLUICE_TRY(session.append(ids, cancel));
    result.seconds.push_back(watch.seconds());
    SLUICE_TRY(disk.end(1, result.seconds.back()));
    peak.end(result.seconds.back());
    progress.advance(tokens);
  }
  finish(result);
  disk.report(result);
  peak.report(result);
  return result;
}

struct DecodeCase {
  size_t depth, batch, tokens;
};

Status decode_steps(runtime::Engine& engine, std::vector<runtime::Session>& sessions,
                    const DecodeCase& wanted, std::span<const uint32_t> ids, double& seconds,
                    const CancelToken* cancel) {
  for (runtime::Session& session : sessions) session.rewind(wanted.depth);
  std::vector<runtime::Feed> feeds;
  for (runtime::Session& session : sessions) feeds.push_back({&session, {}, 1});
  const Stopwatch watch;
  for (size_t step = 0; step < wanted.tokens; ++step) {
    for (runtime::Feed& feed : feeds) feed.tokens = ids.subspan(step, 1);
    SLUICE_TRY(engine.step(feeds, [](size_t, size_t, std::span<const float>) {}, cancel));
  }
  seconds = watch.seconds();
  return {};
}

Result<Throughput> time_decode(runtime::Engine& engine, const DecodeCase& wanted,
                               size_t repetitions, Progress& progress, const CancelToken* cancel) {
  Throughput result;
  result.kind = Throughput::Kind::kDecode;
  result.tokens = wanted.tokens;
  result.depth = wanted.depth;
  result.batch = wanted.batch;
  const auto& info = engine.info();
  result.read_bytes_token = info.read_bytes_token +
                            wanted.batch * (wanted.depth + wanted.tokens / 2) * info.kv_bytes_token;
  // Other tokens in each repetition: the experts of the same ones would all be in memory.
  const auto ids = some_tokens(wanted.depth + wanted.tokens * repetitions, info.vocabulary);
  std::vector<runtime::Session> sessions;
  for (size_t i = 0; i < wanted.batch; ++i) {
    sessions.push_back(engine.new_session());
    if (wanted.depth > 0)
      SLUICE_TRY(sessions.back().append(std::span(ids).first(wanted.depth), cancel));
  }
  DiskMeter disk(engine);
  MemoryMeter memory(engine);
  for (size_t i = 0; i < repetitions; ++i) {
    disk.begin();
    const auto next = std::span(ids).subspan(wanted.depth + i * wanted.tokens, wanted.tokens);
    SLUICE_TRY(decode_steps(engine, sessions, wanted, next, result.seconds.emplace_back(), cancel));
    SLUICE_TRY(disk.end(wanted.tokens, result.seconds.back()));
    memory.end(wanted.tokens, result.read_bytes_token, result.seconds.back());
    progress.advance(wanted.tokens * wanted.batch);
  }
  finish(result);
  disk.report(result);
  memory.report(result);
  return result;
}

uint64_t tokens_of(const ThroughputOptions& options) {
  uint64_t total = 0;
  for (const size_t prompt : options.prompts) total += prompt;
  for (const size_t batch : options.batches)
    total += batch * options.depths.size() * options.decode_tokens;
  return total * options.repetitions;
}

}  // namespace

Result<std::vector<Throughput>> measure_throughput(runtime::Engine& engine,
                                                   const ThroughputOptions& options,
                                                   Progress& progress, const CancelToken* cancel) {
  std::vector<Throughput> results;
  {
    runtime::Session warm = engine.new_session();
    SLUICE_TRY(warm.append(some_tokens(1, engine.info().vocabulary), cancel));
  }
  progress.begin("bench", tokens_of(options));
  for (const size_t prompt : options.prompts) {
    SLUICE_ASSIGN(results.emplace_back(),
                  time_prefill(engine, prompt, options.repetitions, progress, cancel));
  }
  for (const size_t depth : options.depths)
    for (const size_t batch : options.batches) {
      const DecodeCase wanted{depth, batch, options.decode_tokens};
      SLUICE_ASSIGN(results.emplace_back(),
                    time_decode(engine, wanted, options.repetitions, progress, cancel));
    }
  progress.end();
  return results;
}

}  // namespace sluice::evaluate
