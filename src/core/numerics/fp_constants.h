// Constants of the fp modes that the scalar reference and the fast kernels must agree on. Plain
// data only: kernels compiled per instruction set may include it.
#pragma once

namespace sluice::numerics {

// Values of the sixteen E2M1 codes: a sign, two bits of exponent, one of mantissa.
inline constexpr float kE2M1[16] = {0,     0.5f,  1,  1.5f,  2,  3,  4,  6,
                                    -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
inline constexpr float kE2M1Max = 6;
inline constexpr float kE4M3Max = 448;
inline constexpr int kE4M3MaxCode = 0x7e;
inline constexpr float kE4M3NormalMin = 0x1p-6f;

// Scale bytes that the `best` encoder tries, as offsets from parity's byte: from first to last.
// They hold the optimum. Parity's E8M0 scale lets the group's maximum just fit. The next larger one
// has only a coarser grid; the next smaller one clips the maximum, which finer steps for the others
// can be worth; the one after that clips by too much to be worth anything. E4M3 scales come eight
// to an octave: from where the maximum lies at about 8.5 to about 3.5.
struct ScaleSearch {
  int first, last, max;  // max: the largest finite scale byte
};
inline constexpr ScaleSearch kSearchE8m0 = {-1, 0, 254};
inline constexpr ScaleSearch kSearchE4m3 = {-4, 6, kE4M3MaxCode};

}  // namespace sluice::numerics
