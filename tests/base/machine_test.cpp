// What the system says about memory, and that freed memory goes back to it.
#include "base/machine.h"

#include <gtest/gtest.h>

#include <vector>

namespace sluice {
namespace {

TEST(Machine, ResidentMemoryFollowsWhatIsUsedAndReturned) {
  return_memory_early();
  const uint64_t before = resident_bytes();
  if (before == 0) GTEST_SKIP() << "this system does not say";
  constexpr size_t kBytes = 64 << 20, kPiece = 4 << 10;
  {
    std::vector<std::vector<char>> pieces;
    for (size_t i = 0; i < kBytes / kPiece; ++i) pieces.emplace_back(kPiece, 'x');
    EXPECT_GE(resident_bytes(), before + kBytes / 2);
  }
  return_freed_memory();
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LE(resident_bytes(), before + kBytes / 4);
#endif
}

TEST(Machine, LimitsArePlausible) {
  const MemoryInfo machine = detect_memory();
  EXPECT_LE(machine.available, machine.total);
  EXPECT_TRUE(machine.limit == 0 || machine.usable() <= machine.limit);
}

TEST(Machine, CodeComesAgainWhereItIsNeeded) {
  const uint64_t before = resident_bytes();
  return_code_pages();
  EXPECT_LE(resident_bytes(), before);
  const std::string name = system_name();
  return_code_pages();
  EXPECT_EQ(system_name(), name);
}

}  // namespace
}  // namespace sluice
