// Matrix products in every format: for one token the bytes of packed weights per second, beside the
// rate at which the same memory is merely read; for many tokens operations per second, beside what
// the instructions could do at most. One thread.
//   SLUICE_BENCH_BYTES  bytes of packed weights for one token (default 1 GiB; caches hold less)
#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "kernels/matmul.h"
#include "numerics/weight_view.h"

namespace {

using namespace sluice;
using namespace sluice::numerics;
using kernels::Activations;
using kernels::MatmulTable;

// SLUICE_BENCH_COLUMNS: of the matrices (default 4096), a multiple of 256.
size_t wanted_columns() {
  const char* text = std::getenv("SLUICE_BENCH_COLUMNS");
  return text ? std::strtoull(text, nullptr, 10) : 4096;
}
const size_t kColumns = wanted_columns();

size_t wanted_bytes() {
  const char* text = std::getenv("SLUICE_BENCH_BYTES");
  return text ? std::strtoull(text, nullptr, 10) : size_t{1} << 30;
}

// One buffer of random bytes for all formats: with huge pages, as the weight store has them.
std::byte* shared_bytes(size_t size) {
  static std::byte* bytes = nullptr;
  static size_t have = 0;
  if (have >= size) return bytes;
  constexpr size_t kHuge = size_t{2} << 20;
  have = (size + kHuge - 1) / kHuge * kHuge;
  bytes = static_cast<std::byte*>(std::aligned_alloc(kHuge, have));
#if defined(MADV_HUGEPAGE)
  madvise(bytes, have, MADV_HUGEPAGE);
#endif
  std::mt19937_64 random(1);
  for (size_t i = 0; i < have; i += 8) {
    // 0x3f in each odd byte keeps what is read as a float near one; no byte is a NaN of MXFP8 or a
    // scale at either end of its range, where numbers below f32's normal ones take their time.
    const uint64_t word = (random() & 0x0037003700370037u) | 0x3f403f403f403f40u;
    std::memcpy(bytes + i, &word, 8);
  }
  return bytes;
}

struct Case {
  WeightFormat format;
  Activations activations;
  size_t tokens;
};

WeightView view_of(const WeightFormat& format, size_t bytes) {
  const EncodedBytes row = row_bytes(format, kColumns);
  const size_t rows = bytes / row.total() / 16 * 16;
  const std::byte* data = shared_bytes(bytes + 4096);
  return {format,
          rows,
          kColumns,
          data,
          data + rows * row.weight,
          data + rows * (row.weight + row.scales)};
}

void multiply(benchmark::State& state, const MatmulTable& table, Case c) {
  const WeightView w = view_of(c.format, c.tokens == 1 ? wanted_bytes() : size_t{4} << 20);
  const size_t stride = table.prepared_bytes(c.format, c.activations, kColumns);
  auto* prepared = static_cast<std::byte*>(std::aligned_alloc(64, stride * c.tokens));
  const size_t scratch_bytes = table.scratch_bytes(c.format, c.activations, kColumns, c.tokens);
  auto* scratch = static_cast<std::byte*>(std::aligned_alloc(64, scratch_bytes));
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  std::vector<float> x(kColumns), y(w.rows * c.tokens);
  for (size_t t = 0; t < c.tokens; ++t) {
    for (float& v : x) v = normal(random);
    table.prepare(c.format, c.activations, x, prepared + t * stride);
  }
  for (auto _ : state) {
    table.matmul(w, c.activations, prepared, c.tokens, 0, w.rows, y.data(), w.rows, scratch);
    benchmark::DoNotOptimize(y.data());
    benchmark::ClobberMemory();
  }
  const double runs = static_cast<double>(state.iterations());
  const double weights = static_cast<double>(w.rows * kColumns);
  const double bytes = static_cast<double>(w.rows * row_bytes(c.format, kColumns).total());
  state.counters["GB/s"] = {runs * bytes / 1e9, benchmark::Counter::kIsRate};
  state.counters["Gweights/s"] = {runs * weights / 1e9, benchmark::Counter::kIsRate};
  state.counters["GFLOP/s"] = {runs * weights * 2 * static_cast<double>(c.tokens) / 1e9,
                               benchmark::Counter::kIsRate};
  std::free(prepared);
  std::free(scratch);
}

void read_memory(benchmark::State& state) {
  const size_t size = wanted_bytes() / 64 * 64;
  const std::byte* bytes = shared_bytes(size);
  for (auto _ : state) {
    // As vectors, several sums: one word at a time does not keep up with memory.
    typedef uint64_t Vector __attribute__((vector_size(16), may_alias));
    Vector a{}, b{}, c{}, d{};
    for (size_t i = 0; i < size; i += 64) {
      const auto* at = reinterpret_cast<const Vector*>(bytes + i);
      a ^= at[0];
      b ^= at[1];
      c ^= at[2];
      d ^= at[3];
    }
    Vector sums = a ^ b ^ c ^ d;
    benchmark::DoNotOptimize(sums);
  }
  state.counters["GB/s"] = {
      static_cast<double>(state.iterations()) * static_cast<double>(size) / 1e9,
      benchmark::Counter::kIsRate};
}

void prepare(benchmark::State& state, const MatmulTable& table, WeightFormat format,
             Activations activations) {
  const size_t bytes = table.prepared_bytes(format, activations, kColumns);
  auto* out = static_cast<std::byte*>(std::aligned_alloc(64, bytes));
  std::vector<float> x(kColumns, 0.5f);
  for (auto _ : state) {
    table.prepare(format, activations, x, out);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * kColumns));
  std::free(out);
}

std::vector<WeightFormat> formats() {
  std::vector<WeightFormat> all;
  for (const uint8_t bits : kAffineBits)
    all.push_back({{QuantMode::kAffine, bits, 64}, DType::kBF16});
  all.push_back({{QuantMode::kAffine, 4, 32}, DType::kBF16});
  all.push_back({{QuantMode::kAffine, 4, 128}, DType::kBF16});
  for (const QuantFormat& format : kFpFormats) all.push_back({format, DType::kBF16});
  for (const DType dtype :
       {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0, DType::kQ2_K,
        DType::kQ3_K, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS,
        DType::kMXFP4, DType::kBF16, DType::kF16, DType::kF32})
    all.push_back({{}, dtype});
  return all;
}

std::string name_of(const WeightFormat& format) {
  if (format.quant.mode != QuantMode::kFloat) return format_text(format.quant);
  return std::string(dtype_info(format.dtype).name);
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  benchmark::RegisterBenchmark("read", read_memory);
  const char* names[] = {"f32", "i16", "i8"};
  for (const SimdLevel level : offered_simd_levels(detect_cpu())) {
    if (level == SimdLevel::kScalar) continue;
    const MatmulTable& table = kernels::matmul_table(level);
    for (const WeightFormat& format : formats())
      for (const size_t tokens : {1u, 8u, 32u, 128u}) {
        const Activations activations = kernels::auto_activations(format, false);
        const std::string name = std::string(simd_level_name(level)) + " " + name_of(format) +
                                 " x " + names[static_cast<int>(activations)];
        benchmark::RegisterBenchmark((name + "/" + std::to_string(tokens)).c_str(),
                                     [&table, format, activations, tokens](benchmark::State& s) {
                                       multiply(s, table, {format, activations, tokens});
                                     });
        if (tokens == 1 && activations != Activations::kF32)
          benchmark::RegisterBenchmark((name + "/prepare").c_str(),
                                       [&table, format, activations](benchmark::State& s) {
                                         prepare(s, table, format, activations);
                                       });
      }
  }
  benchmark::RunSpecifiedBenchmarks();
}
