#include "numerics/feedback.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "numerics/affine_weighted.h"
#include "numerics/float_types.h"

namespace sluice::numerics {
namespace {

constexpr size_t kGroupMax = 128;
// Columns that a pass over the rest of the matrix is made for, and elements that are updated in
// registers at a time.
constexpr size_t kPanel = 32, kTile = 16;
// Rows that share what is read of the factor.
constexpr size_t kRowsTogether = 32;

// A lower triangle, row after row.
class Triangle {
 public:
  explicit Triangle(size_t size) : values_(triangle_elements(size)) {}
  double* row(size_t i) { return values_.data() + i * (i + 1) / 2; }

 private:
  std::vector<double> values_;
};

// Columns [first, end) of rows from first on, whose earlier columns have been subtracted already.
// Returns false where a pivot is not positive.
bool factor_panel(Triangle& a, size_t size, size_t first, size_t end) {
  for (size_t i = first; i < size; ++i) {
    double* row = a.row(i);
    for (size_t k = first; k < std::min(end, i + 1); ++k) {
      const double* other = a.row(k);
      double sum = row[k];
      for (size_t m = first; m < k; ++m) sum -= row[m] * other[m];
      if (k == i && !(sum > 0 && std::isfinite(sum))) return false;
      row[k] = k == i ? std::sqrt(sum) : sum / other[k];
    }
  }
  return true;
}

// Subtracts what columns [first, end) account for from all columns after them.
void subtract_panel(Triangle& a, size_t size, size_t first, size_t end,
                    std::vector<double>& transposed) {
  const size_t rest = size - end;
  const size_t stride = (rest + kTile - 1) / kTile * kTile;
  transposed.assign((end - first) * stride, 0.0);
  for (size_t j = end; j < size; ++j)
    for (size_t k = first; k < end; ++k) transposed[(k - first) * stride + (j - end)] = a.row(j)[k];
  for (size_t i = end; i < size; ++i) {
    double* row = a.row(i);
    const size_t count = i - end + 1;
    size_t j = 0;
    for (; j + kTile <= count; j += kTile) {
      double tile[kTile];
      for (size_t t = 0; t < kTile; ++t) tile[t] = row[end + j + t];
      for (size_t k = first; k < end; ++k) {
        const double factor = row[k];
        const double* from = transposed.data() + (k - first) * stride + j;
        for (size_t t = 0; t < kTile; ++t) tile[t] -= factor * from[t];
      }
      for (size_t t = 0; t < kTile; ++t) row[end + j + t] = tile[t];
    }
    for (; j < count; ++j) {
      double sum = row[end + j];
      for (size_t k = first; k < end; ++k) sum -= row[k] * transposed[(k - first) * stride + j];
      row[end + j] = sum;
    }
  }
}

// Cholesky, in place.
bool factor_triangle(Triangle& a, size_t size) {
  std::vector<double> transposed;
  for (size_t first = 0; first < size; first += kPanel) {
    const size_t end = std::min(size, first + kPanel);
    if (!factor_panel(a, size, first, end)) return false;
    subtract_panel(a, size, first, end, transposed);
  }
  return true;
}

// What one row of a group's codes are chosen for, as its turn comes.
struct Target {
  float values[kGroupMax];
};

bool encodable(std::span<const float> values) {
  const auto [low, high] = std::ranges::minmax(values);
  return std::isfinite(high - low) &&
         std::ranges::all_of(values, [](float value) { return std::isfinite(value); });
}

bool finite_in(const StoredGroup& stored) {
  return std::isfinite(stored.scale) && std::isfinite(stored.bias) && stored.scale != 0;
}

void store(std::span<std::byte> out, size_t index, float value, DType dtype) {
  if (dtype == DType::kF32) {
    std::memcpy(out.data() + index * 4, &value, 4);
    return;
  }
  const uint16_t half = dtype == DType::kF16 ? f32_to_f16(value) : f32_to_bf16(value);
  std::memcpy(out.data() + index * 2, &half, 2);
}

// Some rows on their way through the columns.
class Rows {
 public:
  Rows(std::span<const float> rows, const FeedbackFactor& factor, const QuantFormat& format,
       DType dtype, const AffineRow& out)
      : rows_(rows),
        factor_(factor),
        format_(format),
        dtype_(dtype),
        out_(out),
        columns_(factor.columns()),
        count_(rows.size() / columns_),
        corrections_(rows.size()),
        errors_(count_ * format.group_size) {}

  void encode() {
    for (size_t first = 0; first < columns_; first += format_.group_size) {
      for (size_t row = 0; row < count_; ++row) encode_group(row, first);
      correct_rest(first);
    }
  }

 private:
  // Codes, scale and bias of one group; leaves its errors.
  void encode_group(size_t row, size_t first) {
    const size_t size = format_.group_size;
    const std::span<const float> source = rows_.subspan(row * columns_ + first, size);
    const float* correction = corrections_.data() + row * columns_ + first;
    Target target;
    for (size_t i = 0; i < size; ++i) target.values[i] = source[i] + correction[i];
    const std::span<float> values(target.values, size);
    const std::span<const float> importance = factor_.importance().subspan(first, size);
    StoredGroup stored{};
    if (encodable(values)) stored = weighted_group(values, importance, format_, dtype_);
    if (!finite_in(stored)) {
      // Corrections that left what the type can hold are worth nothing.
      std::ranges::copy(source, values.begin());
      stored = weighted_group(values, importance, format_, dtype_);
    }
    uint8_t codes[kGroupMax];
    float* errors = errors_.data() + row * size;
    for (size_t i = 0; i < size; ++i) {
      codes[i] = nearest_code(values[i], stored, format_.bits);
      const float product = stored.scale * static_cast<float>(codes[i]);
      const float decoded = product + stored.bias;
      errors[i] = source[i] - decoded;
      const std::span<const float> couplings = factor_.couplings(first + i);
      for (size_t k = i + 1; k < size; ++k) {
        const float part = errors[i] * couplings[k - i - 1];
        values[k] = values[k] + part;
      }
    }
    const size_t packed = size / 8 * format_.bits, groups = columns_ / size;
    const size_t index = row * groups + first / size;
    pack_codes({codes, size}, format_.bits, out_.weight.subspan(index * packed, packed));
    store(out_.scales, index, stored.scale, dtype_);
    store(out_.biases, index, stored.bias, dtype_);
  }

  // Adds the group's errors to the corrections of all columns behind it. A column's correction is
  // summed in the order of the columns before it.
  void correct_rest(size_t first) {
    const size_t size = format_.group_size;
    for (size_t column = first + size; column < columns_; column += kTile) {
      for (size_t row = 0; row < count_; ++row) {
        float* corrections = corrections_.data() + row * columns_ + column;
        const float* errors = errors_.data() + row * size;
        float tile[kTile];
        for (size_t t = 0; t < kTile; ++t) tile[t] = corrections[t];
        for (size_t i = 0; i < size; ++i) {
          const float error = errors[i];
          const float* couplings = factor_.couplings(first + i).data() + (column - first - i - 1);
          for (size_t t = 0; t < kTile; ++t) {
            const float part = error * couplings[t];
            tile[t] = tile[t] + part;
          }
        }
        for (size_t t = 0; t < kTile; ++t) corrections[t] = tile[t];
      }
    }
  }

  const std::span<const float> rows_;
  const FeedbackFactor& factor_;
  const QuantFormat& format_;
  const DType dtype_;
  const AffineRow& out_;
  const size_t columns_, count_;
  std::vector<float> corrections_;  // [count][columns]
  std::vector<float> errors_;       // [count][group], of the group at hand
};

}  // namespace

FeedbackFactor::FeedbackFactor(std::span<const float> moments, size_t columns, double damping)
    : importance_(columns), couplings_(triangle_elements(columns) - columns) {
  SLUICE_CHECK(moments.size() == triangle_elements(columns) && columns % 32 == 0);
  double mean = 0;
  for (size_t i = 0, at = 0; i < columns; at += columns - i, ++i)
    mean += static_cast<double>(moments[at]) / static_cast<double>(columns);
  // The last column comes first, so that the factor is lower triangular as Cholesky makes it.
  Triangle reversed(columns);
  const auto damp = [&](double part) {
    for (size_t i = 0, at = 0; i < columns; ++i)
      for (size_t j = i; j < columns; ++j, ++at)
        reversed.row(columns - 1 - i)[columns - 1 - j] =
            static_cast<double>(moments[at]) + (i == j ? part * mean : 0.0);
  };
  constexpr double kDampingMax = 1e6;  // the matrix is its diagonal by then
  bool made = false;
  for (double part = damping; mean > 0 && !made && part < kDampingMax; part *= 10) {
    damp(part);
    made = factor_triangle(reversed, columns);
  }
  if (!made) {
    std::ranges::fill(importance_, 1.0f);
    return;
  }
  for (size_t k = 0; k < columns; ++k) {
    const double pivot = reversed.row(columns - 1 - k)[columns - 1 - k];
    importance_[k] = static_cast<float>(pivot * pivot / mean);
  }
  for (size_t i = 0; i < columns; ++i)
    for (size_t k = i + 1; k < columns; ++k) {
      const size_t p = columns - 1 - i, q = columns - 1 - k;
      couplings_[row_start(i) + k - i - 1] =
          static_cast<float>(reversed.row(p)[q] / reversed.row(q)[q]);
    }
}

void encode_affine_feedback(std::span<const float> rows, const FeedbackFactor& factor,
                            const QuantFormat& format, DType dtype, const AffineRow& out) {
  const size_t columns = factor.columns();
  SLUICE_CHECK(format.mode == QuantMode::kAffine && columns % format.group_size == 0);
  SLUICE_CHECK(rows.size() % columns == 0);
  const size_t count = rows.size() / columns;
  SLUICE_CHECK(out.weight.size() == rows.size() / 8 * format.bits);
  SLUICE_CHECK(out.scales.size() == out.biases.size());
  const size_t weight_bytes = columns / 8 * format.bits;
  const size_t scale_bytes = columns / format.group_size * (dtype == DType::kF32 ? 4 : 2);
  SLUICE_CHECK(out.scales.size() == count * scale_bytes);
  for (size_t row = 0; row < count; row += kRowsTogether) {
    const size_t together = std::min(kRowsTogether, count - row);
    const AffineRow part{out.weight.subspan(row * weight_bytes, together * weight_bytes),
                         out.scales.subspan(row * scale_bytes, together * scale_bytes),
                         out.biases.subspan(row * scale_bytes, together * scale_bytes)};
    Rows(rows.subspan(row * columns, together * columns), factor, format, dtype, part).encode();
  }
}

}  // namespace sluice::numerics
