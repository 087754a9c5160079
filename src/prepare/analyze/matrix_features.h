// What the published method reports of a matrix beside its quantization errors: its spectrum, from
// a sketch, and how heavy the tails of its groups are. Both are gathered row by row, so that memory
// does not depend on the number of rows. docs/formats.md#features
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace sluice::analyze {

inline constexpr uint64_t kSketchRankMax = 256;
// A sketch takes 12 bytes a column and rank; wider matrices than 21,845 get a smaller rank.
inline constexpr uint64_t kSketchBytesMax = 64ull << 20;
// Up to here AᵀA itself is kept, and singular values are exact to f32's precision.
inline constexpr uint64_t kExactColumnsMax = 1024;

// Singular values that a matrix of so many columns gets at most: a multiple of eight from eight on.
uint64_t sketch_rank(uint64_t columns);
// Memory of its SpectrumSketch while it is being filled and finished.
uint64_t sketch_bytes(uint64_t columns);

struct Spectrum {
  uint64_t rank = 0;           // leading singular values that the figures speak of
  bool exact = false;          // otherwise each is at most the true one (Nyström)
  double squared_norm = 0;     // ‖A‖F²
  double stable_rank = 0;      // ‖A‖F² / σ₁²; 0 for an all-zero matrix
  double tail_mass = 0;        // part of ‖A‖F² outside the rank leading values
  double spectral_spread = 0;  // σ₁ / σ_rank; infinite when the matrix has a smaller rank
};

// Accumulates AᵀA, or Z = Aᵀ(A·Ω) with a fixed Ω of ±1, while rows of A pass by. The result depends
// on the rows and on how they are cut into calls, on nothing else. One thread.
class SpectrumSketch {
 public:
  // Forgets what it has seen.
  void reset(uint64_t columns);
  // rows: [count × columns], finite.
  void add_rows(std::span<const float> rows);
  // Needs reset() before the next rows.
  Spectrum finish();

 private:
  void multiply_by_omega(std::span<const float> rows, uint64_t count);
  void accumulate(std::span<const float> rows, uint64_t count, std::span<const float> right,
                  uint64_t panel, uint64_t right_stride);
  std::vector<double> square(bool with_omega) const;

  uint64_t columns_ = 0, rank_ = 0, width_ = 0, rows_seen_ = 0;
  double squared_norm_ = 0;
  // In panels of eight columns of the sketch, [panel][column][8], so that the inner loops read them
  // in order. omega_ is empty where AᵀA is kept.
  std::vector<float> omega_, product_;
  std::vector<double> z_;
};

struct GroupKurtosis {
  uint64_t groups = 0;  // of 128, those that are not constant
  double p90 = 0;       // excess kurtosis over these groups
  double p99_minus_p50 = 0;
  double max_minus_median = 0;
  double share_beyond_3_sigma = 0;  // groups with an element beyond three standard deviations
};

// Excess kurtosis of every whole group of 128 along the rows. Quantiles are read off a histogram
// with steps of 1/256, exact to half a step. One thread.
class KurtosisHistogram {
 public:
  static constexpr uint64_t kGroup = 128;
  void reset();
  void add_row(std::span<const float> row);
  // Nothing without groups.
  std::optional<GroupKurtosis> finish() const;

 private:
  void add_group(std::span<const float> group);
  double quantile(double part) const;

  std::vector<uint64_t> counts_;
  uint64_t groups_ = 0, beyond_ = 0;
  double max_ = 0;
};

}  // namespace sluice::analyze
