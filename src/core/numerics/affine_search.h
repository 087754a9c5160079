// Constants of the `best` affine encoder that its scalar reference and the fast kernels must agree
// on. Plain data only: kernels compiled per instruction set may include it.
#pragma once

#include <cstdint>

namespace sluice::numerics {

// One starting range of the search, as shrinkage of the group's two ends in 1/256 of their values:
// `edge` for the end of larger magnitude, `inner` for the other. Negative widens.
struct RangeShrink {
  int16_t edge, inner;
};

inline constexpr int kBestStartsMax = 6;
inline constexpr int kBestRefits = 2;

struct BestStarts {
  int count;
  RangeShrink starts[kBestStartsMax];
};

// By width (2, 3, 4, 5, 6, 8) and group (32, 64, 128). Chosen greedily, each start for the largest
// further gain after two refits, over bfloat16 weights drawn from a Gaussian and from Student's t
// with 5 degrees of freedom. Wide codes get fewer: there most of the gain is in re-rounding.
inline constexpr BestStarts kBestStarts[6][3] = {
    {{3, {{64, 64}, {48, 112}, {96, 48}}},
     {3, {{96, 96}, {112, 64}, {64, 112}}},
     {3, {{112, 112}, {112, 80}, {80, 112}}}},
    {{6, {{24, 24}, {0, 48}, {36, 0}, {12, 36}, {24, 12}, {12, 72}}},
     {6, {{36, 36}, {12, 60}, {48, 12}, {24, 48}, {36, 24}, {12, 24}}},
     {6, {{60, 60}, {72, 36}, {36, 72}, {36, 36}, {48, 60}, {36, 84}}}},
    {{6, {{8, 0}, {0, 16}, {16, -8}, {-16, 8}, {0, 8}, {0, 24}}},
     {6, {{8, 8}, {0, 24}, {16, 0}, {8, 16}, {16, -8}, {0, 16}}},
     {6, {{16, 16}, {8, 32}, {24, 8}, {16, 24}, {24, 16}, {8, 24}}}},
    {{4, {{0, 0}, {-10, 5}, {5, -5}, {0, 10}}},
     {4, {{0, 0}, {5, -5}, {0, 10}, {-10, 5}}},
     {4, {{5, 5}, {10, 0}, {0, 10}, {5, 0}}}},
    {{4, {{-6, 0}, {0, 0}, {-6, 3}, {-6, -6}}},
     {4, {{0, 0}, {-6, 0}, {3, 0}, {0, 3}}},
     {4, {{0, 3}, {3, 0}, {-6, 3}, {3, 3}}}},
    {{3, {{0, 0}, {-3, 0}, {-6, 0}}},
     {3, {{0, 0}, {-3, 0}, {0, -3}}},
     {3, {{0, 0}, {0, -3}, {-3, 0}}}},
};

// The searched encoding replaces parity's only when its squared error is below parity's times this,
// so that the order in which somebody else sums the squares cannot turn the comparison round.
inline constexpr double kBestMargin = 1.0 - 0x1p-40;

// Adding and subtracting this rounds a small float to the nearest integer, half to even.
inline constexpr float kRoundMagic = 12582912.0f;  // 1.5 · 2²³

// Elements whose squared errors are summed in f32 before the sum moves to a double (pricing).
inline constexpr int kPriceChunk = 2048;

}  // namespace sluice::numerics
