// All products of one instruction set: which way each coding, group and number of tokens takes, and
// how activations are prepared. To be included after the primitives and P.
#pragma once

#include "kernels/generic/matmul_blocks.h"
#include "kernels/generic/matmul_floats.h"
#include "kernels/generic/matmul_peak.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

// ---- choice ----

template <class Coding, bool kWide, int... kGroups>
void multiply(const RawMatmul& m) {
  if (m.tokens >= kPanelTokens) return many_tokens<Coding, ByGroups<Coding, kWide>>(m);
  ((m.group == kGroups ? few_tokens<Coding, multiply_rows<Coding, kWide, kGroups>>(m) : void()),
   ...);
}

// Codes beyond 63 only go with wide activations.
template <class Coding, int... kGroups>
void multiply_either(bool wide, const RawMatmul& m) {
  if constexpr (Coding::kCodeMax <= 63)
    if (!wide) return multiply<Coding, false, kGroups...>(m);
  multiply<Coding, true, kGroups...>(m);
}

// K-quants: whole scales go with narrow activations.
template <class Coding>
void multiply_k(bool blocks, const RawMatmul& m) {
  if (!blocks) return multiply<Coding, true, kBlock / Coding::kParts>(m);
  if (m.tokens >= kPanelTokens) return many_tokens<Coding, ByBlocks<Coding>>(m);
  few_tokens<Coding, Blocks<Coding>::multiply>(m);
}

void coded(RawCoding coding, bool wide, bool blocks, const RawMatmul& m) {
  switch (coding) {
    case kAffine2: return multiply_either<Affine<2>, 32, 64, 128>(wide, m);
    case kAffine3: return multiply_either<Affine<3>, 32, 64, 128>(wide, m);
    case kAffine4: return multiply_either<Affine<4>, 32, 64, 128>(wide, m);
    case kAffine5: return multiply_either<Affine<5>, 32, 64, 128>(wide, m);
    case kAffine6: return multiply_either<Affine<6>, 32, 64, 128>(wide, m);
    case kAffine8: return multiply_either<Affine<8>, 32, 64, 128>(wide, m);
    case kMxfp4Codes: return multiply_either<FourBitFloats<false>, 32>(wide, m);
    case kNvfp4Codes: return multiply_either<FourBitFloats<true>, 16>(wide, m);
    case kQ4_0Blocks: return multiply_either<SmallBlocks<18, 4, false>, 32>(wide, m);
    case kQ4_1Blocks: return multiply_either<SmallBlocks<20, 4, true>, 32>(wide, m);
    case kQ5_0Blocks: return multiply_either<SmallBlocks<22, 5, false>, 32>(wide, m);
    case kQ5_1Blocks: return multiply_either<SmallBlocks<24, 5, true>, 32>(wide, m);
    case kQ8_0Blocks: return multiply_either<SmallBlocks<34, 8, false>, 32>(wide, m);
    case kQ2KBlocks: return multiply_k<TwoK>(blocks, m);
    case kQ3KBlocks: return multiply_k<ThreeK>(blocks, m);
    case kQ4KBlocks: return multiply_k<FourFiveK<4>>(blocks, m);
    case kQ5KBlocks: return multiply_k<FourFiveK<5>>(blocks, m);
    case kQ6KBlocks: return multiply_k<SixK>(blocks, m);
    case kIQ4NLBlocks: return multiply_either<IQ4NL, 32>(wide, m);
    case kIQ4XSBlocks: return multiply_either<IQ4XS, 32>(wide, m);
    case kMXFP4Blocks: return multiply_either<MXFP4, 32>(wide, m);
    case kCodings: return;
  }
}

// ---- where values go ----

// Where `codes` puts value i of a chunk; wide values lie by even and odd places.
struct Positions {
  uint8_t at[32];
  constexpr Positions(int apart, bool wide) : at() {
    for (int i = 0; i < 32; ++i) {
      const int place = i / apart + i % apart * (32 / apart);
      at[i] = static_cast<uint8_t>(wide ? place / 2 + place % 2 * 16 : place);
    }
  }
};
constexpr Positions kPositions[3][2] = {
    {{1, false}, {1, true}}, {{2, false}, {2, true}}, {{4, false}, {4, true}}};

const uint8_t* position(RawCoding coding, bool wide) {
  const int apart = coding == kAffine2 ? 2 : coding == kAffine4 || coding == kMxfp4Codes ? 1 : 0;
  return kPositions[apart][wide].at;
}

// ---- activations ----

inline float group_scale(const RawPrepare& p, const float* x) {
  V max = splat_v(0), poison = splat_v(0);
  for (int i = 0; i < p.group; i += 8) {
    const V v = load_v(x + i);
    max = max_v(abs_v(v), max);
    poison = poison + v * splat_v(0);
  }
  float maxima[8], poisons[8];
  store_v(maxima, max);
  store_v(poisons, poison);
  const auto larger = [](float a, float b) { return a > b ? a : b; };
  const float top = larger(larger(larger(maxima[0], maxima[1]), larger(maxima[2], maxima[3])),
                           larger(larger(maxima[4], maxima[5]), larger(maxima[6], maxima[7])));
  // Zeros, or some that are no numbers: the order matters to neither.
  const float sum = ((poisons[0] + poisons[1]) + (poisons[2] + poisons[3])) +
                    ((poisons[4] + poisons[5]) + (poisons[6] + poisons[7]));
  return top / p.top + sum;
}

// To their places, chunk by chunk; a group may be half a chunk.
template <class Value>
inline void store_group(const RawPrepare& p, size_t first, const int32_t* whole) {
  const size_t size = static_cast<size_t>(p.group), run = size < kChunk ? size : kChunk;
  Value narrow[kBlock];
  for (size_t i = 0; i < size; ++i) narrow[i] = static_cast<Value>(whole[i]);
  for (size_t i = 0; i < size; i += run) {
    const uint8_t* places = p.position + (first + i) % kChunk;
    uint8_t* to = p.values + (first + i) / kChunk * kChunk * sizeof(Value);
    for (size_t j = 0; j < run; ++j)
      memcpy(to + places[j] * sizeof(Value), narrow + i + j, sizeof(Value));
  }
}

void prepare(const RawPrepare& p) {
  const size_t size = static_cast<size_t>(p.group);
  for (size_t g = 0; g < p.columns / size; ++g) {
    const float* x = p.x + g * size;
    const float scale = group_scale(p, x);
    p.scales[g] = scale;
    int32_t whole[kBlock], sum = 0;
    if (scale > 0)
      for (size_t i = 0; i < size; i += 8) {
        const V steps = round_v(load_v(x + i) / splat_v(scale));
        store_whole(whole + i, to_whole(max_v(min_v(steps, splat_v(p.top)), splat_v(-p.top))));
      }
    else
      memset(whole, 0, size * sizeof *whole);
    if (p.wide)
      store_group<int16_t>(p, g * size, whole);
    else
      store_group<int8_t>(p, g * size, whole);
    if (p.sums_of > 0) {
      store_block_sums(p, g, whole);
      continue;
    }
    for (size_t i = 0; i < size; ++i) sum += whole[i];
    const int32_t shift = p.offset * sum;
    const float part = scale * static_cast<float>(sum);
    memcpy(p.sums + g * 4, p.whole_sums ? static_cast<const void*>(&shift) : &part, 4);
  }
}

constexpr RawMatmulOps kMatmulOps = {prepare, position, coded, floats, mxfp8, multiply_only};

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
