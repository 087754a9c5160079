// How fast a processor multiplies where nothing is in the way: independent sums in registers,
// operands from the inner cache. To be included after generic/matmul_floats.h.
#pragma once

namespace sluice::kernels::SLUICE_ISA {
namespace {

struct FloatStep {
  static constexpr size_t kProducts = kPartLanes;
  using Sum = L;
  using Weights = L;
  static Sum zero() { return no_lanes(); }
  static Weights weights(const uint8_t* p) { return load_lanes(kElementF32, p); }
  static Sum add(Sum sum, Weights w, const uint8_t* p) { return add_product(sum, w, weights(p)); }
};

// Twelve sums hide every processor's latency and leave registers for operands.
template <class Step>
uint64_t add_products(uint64_t count) {
  constexpr size_t kSums = 12, kOperand = 64;
  alignas(kOperand) uint8_t operands[(kSums + 1) * kOperand] = {};
  typename Step::Sum sums[kSums];
#pragma GCC unroll 12
  for (size_t i = 0; i < kSums; ++i) sums[i] = Step::zero();
  const uint64_t rounds = count / (kSums * Step::kProducts) + 1;
  for (uint64_t round = 0; round < rounds; ++round) {
    asm volatile("" : : "r"(operands) : "memory");  // else they are multiplied once
    const typename Step::Weights w = Step::weights(operands);
#pragma GCC unroll 12
    for (size_t i = 0; i < kSums; ++i)
      sums[i] = Step::add(sums[i], w, operands + (i + 1) * kOperand);
  }
  typename Step::Sum kept[kSums];  // else they would lie in memory all the time
#pragma GCC unroll 12
  for (size_t i = 0; i < kSums; ++i) kept[i] = sums[i];
  asm volatile("" : : "r"(kept) : "memory");  // else they are not added
  return rounds * kSums * Step::kProducts;
}

uint64_t multiply_only(RawProducts kind, uint64_t count) {
  switch (kind) {
    case kFloatProducts: return add_products<FloatStep>(count);
    case kWordProducts: return add_products<WordStep>(count);
    case kByteProducts: return add_products<ByteStep>(count);
  }
  return 0;
}

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
