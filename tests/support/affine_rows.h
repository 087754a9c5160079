// Rows of weights that try an affine encoder: groups of many characters, ties and extremes among
// them. Header only and free of test libraries, for the ARM build of the kernel check.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <random>
#include <vector>

#include "numerics/dtype.h"
#include "numerics/float_types.h"

namespace sluice::test {

inline float to_type(float value, numerics::DType dtype) {
  if (dtype == numerics::DType::kF16) return numerics::f16_to_f32(numerics::f32_to_f16(value));
  if (dtype == numerics::DType::kBF16) return numerics::bf16_to_f32(numerics::f32_to_bf16(value));
  return value;
}

// Groups of 32: bell-shaped, heavy-tailed, tiny, huge, constant, one-sided, zero, with ties, with
// outliers, subnormal. rounded: to dtype, as an encoder wants them.
inline std::vector<float> make_row(std::mt19937_64& random, size_t columns, numerics::DType dtype,
                                   bool rounded) {
  std::normal_distribution<float> bell(0, 1);
  std::student_t_distribution<float> heavy(2.5f);
  std::vector<float> row(columns);
  for (size_t start = 0; start < columns; start += 32) {
    const unsigned kind = static_cast<unsigned>(random() % 16);
    const float scale = std::exp2(static_cast<float>(static_cast<int>(random() % 12) - 10));
    const float centre = bell(random) * scale;
    for (size_t i = start; i < std::min(start + 32, columns); ++i) {
      float x = bell(random) * scale;
      switch (kind) {
        case 0: x = 0; break;
        case 1: x = centre; break;
        case 2: x = std::fabs(x) + 3 * scale; break;
        case 3: x = -std::fabs(x) - 0.01f * scale; break;
        case 4: x = heavy(random) * scale; break;
        case 5: x = static_cast<float>(static_cast<int>(random() % 9) - 4) * 0.25f; break;
        case 6: x *= 1e-7f; break;
        case 7: x *= dtype == numerics::DType::kF16 ? 3000.0f : 1e12f; break;
        case 8: x = i % 2 ? -0.0f : 0.0f; break;
        case 9: x = i % 32 == 5 ? 40 * scale : x; break;
        case 10: x = i % 2 ? scale : -scale; break;
        case 11: x *= 1e-40f; break;
        case 12: x = x > 0 ? 5e-8f : -5e-8f; break;
        default: break;
      }
      row[i] = rounded ? to_type(x, dtype) : x;
    }
  }
  return row;
}

// Whole and half steps of a range of 2^bits − 1 steps that holds both its ends: (w − β)/s falls on
// ties. group: elements that share the range. sign: of the values.
inline std::vector<float> make_ties(std::mt19937_64& random, size_t columns, size_t group,
                                    unsigned bits, float step, float sign) {
  const unsigned halves = 2 * ((1u << bits) - 1);
  std::vector<float> row(columns);
  for (size_t i = 0; i < columns; ++i) {
    unsigned at = static_cast<unsigned>(random() % (halves + 1));
    if (i % group == 3) at = 0;
    if (i % group == 7) at = halves;
    row[i] = sign * static_cast<float>(at) * 0.5f * step;
  }
  return row;
}

}  // namespace sluice::test
