// The seed of a test's random cases. Always the same unless SLUICE_TEST_SEED says another, so that
// a commit that passed passes again; printed, so that a failure can be repeated.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace sluice::test {

inline uint64_t seed(uint64_t otherwise = 1) {
  const char* text = std::getenv("SLUICE_TEST_SEED");
  const uint64_t seed = text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
  std::printf("SLUICE_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

}  // namespace sluice::test
