// Weights per second of every affine kernel and instruction set, one thread, rows in cache.
// items_per_second is weights per second; --benchmark_filter='avx512.*price' picks some.
#include <benchmark/benchmark.h>

#include <random>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "kernels/kernel_table.h"
#include "numerics/float_types.h"

namespace {

using namespace sluice;
using namespace sluice::numerics;
using kernels::KernelTable;

constexpr size_t kColumns = 4096;

std::vector<float> bell_row() {
  std::mt19937_64 random(1);
  std::normal_distribution<float> bell(0, 0.02f);
  std::vector<float> row(kColumns);
  for (float& x : row) x = bf16_to_f32(f32_to_bf16(bell(random)));
  return row;
}

struct Encoded {
  std::vector<std::byte> weight, scales, biases;
  explicit Encoded(const QuantFormat& format)
      : weight(kColumns / 8 * format.bits),
        scales(kColumns / format.group_size * 2),
        biases(scales) {}
  AffineRow view() { return {weight, scales, biases}; }
  ConstAffineRow const_view() const { return {weight, scales, biases}; }
};

template <class Function>
void add(const KernelTable& table, const std::string& name, Function function) {
  const std::string full = std::string(simd_level_name(table.level())) + "/" + name;
  benchmark::RegisterBenchmark(full.c_str(), [function](benchmark::State& state) mutable {
    for (auto _ : state) function();
    state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * kColumns));
  });
}

void add_table(const KernelTable& table) {
  static const std::vector<float> row = bell_row();
  static std::vector<std::byte> halves(kColumns * 2, std::byte{0x3c});
  static std::vector<float> out(kColumns);
  add(table, "price_affine",
      [&] { benchmark::DoNotOptimize(table.price_affine(row, DType::kBF16)); });
  add(table, "price_best/default", [&] {
    BestPrice stats[kAffineCandidates];
    std::vector<QuantFormat> formats;
    for (const QuantFormat& format : kernels::default_best_formats())
      if (!is_fp(format)) formats.push_back(format);
    table.price_best(row, formats, DType::kBF16, std::span(stats).first(formats.size()));
    benchmark::DoNotOptimize(stats);
  });
  add(table, "decode_floats/bf16", [&] { table.decode_floats(DType::kBF16, halves, out); });
  add(table, "decode_floats/f16", [&] { table.decode_floats(DType::kF16, halves, out); });
  add(table, "find_unencodable", [&] { benchmark::DoNotOptimize(table.find_unencodable(row)); });
  for (size_t index = 0; index < kAffineCandidates; ++index) {
    const QuantFormat format = affine_candidate_format(index);
    const std::string text = format_text(format);
    add(table, "price_best/" + text, [&table, format] {
      BestPrice stats;
      table.price_best(row, {&format, 1}, DType::kBF16, {&stats, 1});
      benchmark::DoNotOptimize(stats);
    });
    add(table, "encode_parity/" + text, [&table, format, encoded = Encoded(format)]() mutable {
      table.encode_affine_parity(row, format, DType::kBF16, ParityRule::kCpu, encoded.view());
      benchmark::ClobberMemory();
    });
    add(table, "encode_best/" + text, [&table, format, encoded = Encoded(format)]() mutable {
      table.encode_affine_best(row, format, DType::kBF16, encoded.view());
      benchmark::ClobberMemory();
    });
    add(table, "row_error/" + text, [&table, format, encoded = Encoded(format)] {
      benchmark::DoNotOptimize(
          table.affine_row_error(row, encoded.const_view(), format, DType::kBF16));
    });
    add(table, "decode_affine/" + text, [&table, format, encoded = Encoded(format)] {
      table.decode_affine(encoded.const_view(), format, DType::kBF16, out);
      benchmark::ClobberMemory();
    });
  }
}

}  // namespace

int main(int argc, char** argv) {
  const CpuInfo cpu = detect_cpu();
  for (const SimdLevel level :
       {SimdLevel::kScalar, SimdLevel::kNeon, SimdLevel::kAvx2, SimdLevel::kAvx512})
    if (parse_simd_level(simd_level_name(level), cpu)) add_table(kernels::kernel_table(level));
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
