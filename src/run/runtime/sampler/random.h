// Random numbers by count: the n-th of a seed is a function of both, with no state between, so that
// a token drawn again at the same place comes out the same, whatever was drawn or thrown away
// since. Header only.
#pragma once

#include <cstdint>

namespace sluice::runtime {

// SplitMix64 (Steele, Lea and Flood 2014): the finalizer over seed + (count + 1) · 2⁶⁴/φ. The seed
// goes through it first, because neighbouring seeds would otherwise share their sequences.
inline uint64_t mix_bits(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}
inline uint64_t random_bits(uint64_t seed, uint64_t count) {
  constexpr uint64_t kStep = 0x9e3779b97f4a7c15u;
  return mix_bits(mix_bits(seed + kStep) + (count + 1) * kStep);
}

// Uniform in [0, 1), multiples of 2⁻⁵³.
inline double random_unit(uint64_t seed, uint64_t count) {
  return static_cast<double>(random_bits(seed, count) >> 11) * 0x1p-53;
}

}  // namespace sluice::runtime
