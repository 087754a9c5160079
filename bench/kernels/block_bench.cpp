// Weights per second of the scalar GGUF block decoders, one thread, a row in cache: what reading a
// GGUF source costs before anything is done with it.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "numerics/block_codec.h"

namespace {

using namespace sluice::numerics;

constexpr size_t kColumns = 4096;

void decode(benchmark::State& state, DType dtype) {
  std::vector<std::byte> row(*tensor_bytes(dtype, Shape{kColumns}));
  for (size_t i = 0; i < row.size(); ++i) row[i] = static_cast<std::byte>(i * 37 % 113);
  std::vector<float> out(kColumns);
  for (auto _ : state) {
    decode_elements(dtype, row, out);
    benchmark::DoNotOptimize(out.data());
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * kColumns));
}

}  // namespace

int main(int argc, char** argv) {
  for (uint32_t type = 0; type < 64; ++type) {
    const auto dtype = dtype_from_ggml(type);
    if (!dtype || dtype_info(*dtype).block_elements == 1) continue;
    const std::string name(dtype_info(*dtype).name);
    benchmark::RegisterBenchmark(name.c_str(),
                                 [dtype](benchmark::State& state) { decode(state, *dtype); });
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
