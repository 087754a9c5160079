#include "analyze/matrix_features.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "analyze/dense.h"
#include "base/error.h"

namespace sluice::analyze {
namespace {

constexpr uint64_t kPanel = 8;  // columns of the sketch that are worked on together
constexpr uint64_t kRows = 4;   // rows, or columns, that share what is loaded for a panel
// Sums of f32 products are moved to f64 after this many.
constexpr uint64_t kRun = 64;

// Eight lanes; the compiler makes two or four vectors of them where registers are narrower. Lanes
// do not mix, so that every width gives the same bits.
typedef float Lanes __attribute__((vector_size(kPanel * sizeof(float))));
typedef double WideLanes __attribute__((vector_size(kPanel * sizeof(double))));

template <class Vector, class Element>
Vector load(const Element* from) {
  Vector lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

// ±1 for a place of Ω, the same on every machine: the top bit of a mixed counter (splitmix64).
float sign_at(uint64_t column, uint64_t place) {
  uint64_t x = (column * kSketchRankMax + place + 1) * 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return ((x ^ (x >> 31)) >> 63) != 0 ? -1.0f : 1.0f;
}

// out[i][0..8) = Σ_k rows[i][k] · panel[k][0..8), for count rows.
template <uint64_t count>
void dot_rows(const float* rows, uint64_t columns, const float* panel, float* out) {
  Lanes total[count] = {};
  for (uint64_t start = 0; start < columns; start += kRun) {
    Lanes part[count] = {};
    for (uint64_t k = start; k < std::min(start + kRun, columns); ++k) {
      const Lanes right = load<Lanes>(panel + k * kPanel);
      for (uint64_t i = 0; i < count; ++i) part[i] += right * rows[i * columns + k];
    }
    for (uint64_t i = 0; i < count; ++i) total[i] += part[i];
  }
  std::memcpy(out, total, sizeof total);
}

// z[j][0..8) += Σ_n rows[n][j] · right[n][0..8), for count columns j.
template <uint64_t count>
void add_columns(const float* rows, uint64_t columns, uint64_t row_count, const float* right,
                 uint64_t right_stride, double* z) {
  for (uint64_t start = 0; start < row_count; start += kRun) {
    Lanes part[count] = {};
    for (uint64_t n = start; n < std::min(start + kRun, row_count); ++n) {
      const Lanes lanes = load<Lanes>(right + n * right_stride);
      for (uint64_t j = 0; j < count; ++j) part[j] += lanes * rows[n * columns + j];
    }
    for (uint64_t j = 0; j < count; ++j)
      for (uint64_t lane = 0; lane < kPanel; ++lane) z[j * kPanel + lane] += part[j][lane];
  }
}

uint64_t panels_of(uint64_t width) { return (width + kPanel - 1) / kPanel; }

}  // namespace

uint64_t sketch_rank(uint64_t columns) {
  const uint64_t affordable =
      kSketchBytesMax / (columns * (sizeof(float) + sizeof(double))) / kPanel * kPanel;
  return std::min({kSketchRankMax, columns, std::max(affordable, kPanel)});
}

uint64_t sketch_bytes(uint64_t columns) {
  // AᵀA and Eigen's copies of it; or Ω and Z, and a few square matrices of the rank.
  if (columns <= kExactColumnsMax) return 3 * columns * (columns + kPanel) * sizeof(double);
  const uint64_t rank = sketch_rank(columns);
  return columns * rank * (sizeof(float) + sizeof(double)) + 10 * rank * rank * sizeof(double);
}

void SpectrumSketch::reset(uint64_t columns) {
  columns_ = columns;
  rank_ = sketch_rank(columns);
  const bool exact = columns <= kExactColumnsMax;
  width_ = exact ? columns : rank_;
  rows_seen_ = 0;
  squared_norm_ = 0;
  z_.assign(panels_of(width_) * columns * kPanel, 0);
  if (exact) {
    omega_.clear();
  } else if (omega_.size() != z_.size()) {
    omega_.resize(z_.size());
    for (uint64_t panel = 0; panel < panels_of(width_); ++panel)
      for (uint64_t column = 0; column < columns; ++column)
        for (uint64_t lane = 0; lane < kPanel; ++lane)
          omega_[(panel * columns + column) * kPanel + lane] =
              sign_at(column, panel * kPanel + lane);
  }
}

void SpectrumSketch::multiply_by_omega(std::span<const float> rows, uint64_t count) {
  product_.resize(count * panels_of(width_) * kPanel);
  for (uint64_t panel = 0; panel < panels_of(width_); ++panel) {
    const float* right = omega_.data() + panel * columns_ * kPanel;
    float* out = product_.data() + panel * count * kPanel;
    uint64_t row = 0;
    for (; row + kRows <= count; row += kRows)
      dot_rows<kRows>(rows.data() + row * columns_, columns_, right, out + row * kPanel);
    for (; row < count; ++row)
      dot_rows<1>(rows.data() + row * columns_, columns_, right, out + row * kPanel);
  }
}

void SpectrumSketch::accumulate(std::span<const float> rows, uint64_t count,
                                std::span<const float> right, uint64_t panel,
                                uint64_t right_stride) {
  double* z = z_.data() + panel * columns_ * kPanel;
  uint64_t column = 0;
  for (; column + kRows <= columns_; column += kRows)
    add_columns<kRows>(rows.data() + column, columns_, count, right.data(), right_stride,
                       z + column * kPanel);
  for (; column < columns_; ++column)
    add_columns<1>(rows.data() + column, columns_, count, right.data(), right_stride,
                   z + column * kPanel);
}

void SpectrumSketch::add_rows(std::span<const float> rows) {
  const uint64_t count = rows.size() / columns_;
  rows_seen_ += count;
  for (const float value : rows) squared_norm_ += double{value} * double{value};
  if (!omega_.empty()) {
    multiply_by_omega(rows, count);
    for (uint64_t panel = 0; panel < panels_of(width_); ++panel)
      accumulate(rows, count, std::span(product_).subspan(panel * count * kPanel), panel, kPanel);
    return;
  }
  // The rows themselves, padded to whole panels, take the place of A·Ω.
  const uint64_t stride = panels_of(width_) * kPanel;
  product_.assign(count * stride, 0);
  for (uint64_t row = 0; row < count; ++row)
    std::ranges::copy(rows.subspan(row * columns_, columns_),
                      product_.begin() + static_cast<ptrdiff_t>(row * stride));
  for (uint64_t panel = 0; panel < panels_of(width_); ++panel)
    accumulate(rows, count, std::span(product_).subspan(panel * kPanel), panel, stride);
}

// Zᵀ·Z, or Ωᵀ·Z: [width × width].
std::vector<double> SpectrumSketch::square(bool with_omega) const {
  std::vector<double> result(width_ * width_);
  for (uint64_t i = 0; i < width_; ++i) {
    const uint64_t left = i / kPanel * columns_ * kPanel + i % kPanel;
    for (uint64_t panel = 0; panel < panels_of(width_); ++panel) {
      const double* right = z_.data() + panel * columns_ * kPanel;
      WideLanes sum = {};
      for (uint64_t k = 0; k < columns_; ++k) {
        const uint64_t place = left + k * kPanel;
        sum +=
            load<WideLanes>(right + k * kPanel) * (with_omega ? double{omega_[place]} : z_[place]);
      }
      for (uint64_t lane = 0; lane < std::min(kPanel, width_ - panel * kPanel); ++lane)
        result[i * width_ + panel * kPanel + lane] = sum[lane];
    }
  }
  return result;
}

Spectrum SpectrumSketch::finish() {
  std::vector<double> values;
  if (omega_.empty()) {
    std::vector<double> gram(columns_ * columns_);
    for (uint64_t i = 0; i < columns_; ++i)
      for (uint64_t j = 0; j < columns_; ++j)
        gram[i * columns_ + j] = z_[(j / kPanel * columns_ + i) * kPanel + j % kPanel];
    values = symmetric_eigenvalues(gram, columns_);
  } else {
    values = nystrom_eigenvalues(square(true), square(false), width_);
  }
  Spectrum spectrum;
  spectrum.exact = omega_.empty();
  spectrum.rank = std::min({rank_, rows_seen_, kSketchRankMax});
  // A sketch may find fewer above the noise of its f32 products.
  if (!spectrum.exact) spectrum.rank = std::min<uint64_t>(spectrum.rank, values.size());
  spectrum.squared_norm = squared_norm_;
  if (squared_norm_ == 0 || values.empty() || spectrum.rank == 0) return spectrum;
  values.resize(spectrum.rank, 0);
  // Values this far below the first are rounding errors of f32.
  constexpr double kNoise = 1e-12;
  double leading = 0;
  for (double& value : values) {
    if (value < kNoise * values[0]) value = 0;
    leading += value;
  }
  spectrum.stable_rank = squared_norm_ / values[0];
  spectrum.tail_mass = std::clamp(1 - leading / squared_norm_, 0.0, 1.0);
  spectrum.spectral_spread = values.back() > 0 ? std::sqrt(values[0] / values.back())
                                               : std::numeric_limits<double>::infinity();
  return spectrum;
}

namespace {

constexpr double kStepsPerUnit = 256;
constexpr double kKurtosisMin = -2;   // of two equal halves
constexpr double kKurtosisEnd = 126;  // one element out of 128 gives 124.0

}  // namespace

void KurtosisHistogram::reset() {
  counts_.assign(static_cast<size_t>((kKurtosisEnd - kKurtosisMin) * kStepsPerUnit), 0);
  groups_ = beyond_ = 0;
  max_ = kKurtosisMin;
}

void KurtosisHistogram::add_row(std::span<const float> row) {
  for (; row.size() >= kGroup; row = row.subspan(kGroup)) add_group(row.first(kGroup));
}

void KurtosisHistogram::add_group(std::span<const float> group) {
  constexpr double kCount = kGroup;
  double mean = 0;
  for (const float value : group) mean += value;
  mean /= kCount;
  double second = 0, fourth = 0, farthest = 0;
  for (const float value : group) {
    const double square = (value - mean) * (value - mean);
    second += square;
    fourth += square * square;
    farthest = std::max(farthest, square);
  }
  const double variance = second / kCount;
  if (!(variance > 0) || !(variance * variance > 0)) return;
  const double excess = fourth / kCount / (variance * variance) - 3;
  ++groups_;
  beyond_ += farthest > 9 * variance;
  max_ = std::max(max_, excess);
  const double step = std::floor((excess - kKurtosisMin) * kStepsPerUnit);
  ++counts_[static_cast<size_t>(std::clamp(step, 0.0, static_cast<double>(counts_.size() - 1)))];
}

// By nearest rank: the least value that so many groups do not exceed.
double KurtosisHistogram::quantile(double part) const {
  const auto rank = static_cast<uint64_t>(std::ceil(part * static_cast<double>(groups_)));
  uint64_t seen = 0;
  for (size_t step = 0; step < counts_.size(); ++step) {
    seen += counts_[step];
    if (seen >= rank) return kKurtosisMin + (static_cast<double>(step) + 0.5) / kStepsPerUnit;
  }
  return max_;
}

std::optional<GroupKurtosis> KurtosisHistogram::finish() const {
  if (groups_ == 0) return std::nullopt;
  const double median = quantile(0.5);
  return GroupKurtosis{groups_, quantile(0.9), quantile(0.99) - median, max_ - median,
                       static_cast<double>(beyond_) / static_cast<double>(groups_)};
}

}  // namespace sluice::analyze
