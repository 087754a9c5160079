#include "numerics/affine_weighted.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "numerics/affine_group.h"
#include "numerics/affine_search.h"
#include "numerics/float_types.h"

namespace sluice::numerics {
namespace {

constexpr size_t kGroupMax = 128;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

bool usable_scale(float scale) {
  const float magnitude = std::fabs(scale);
  return magnitude >= std::numeric_limits<float>::min() &&
         magnitude <= std::numeric_limits<float>::max();
}

// A scale and a bias with the sums that a least-squares refit needs.
struct Contender {
  StoredGroup stored{};
  double error = kInfinity;
  double sum_q = 0, sum_qq = 0, sum_qd = 0, sum_d = 0;  // weighted, q: codes, d: w − bias
};

class Search {
 public:
  Search(std::span<const float> group, std::span<const float> importance, const QuantFormat& format,
         DType dtype)
      : group_(group), importance_(importance), format_(format), dtype_(dtype) {
    for (const float value : importance) total_ += static_cast<double>(value);
  }

  StoredGroup run() {
    const AffineGroup parity = parity_group(group_, format_.bits, ParityRule::kCpu);
    best_.stored = {round_to_dtype(parity.scale, dtype_), round_to_dtype(parity.bias, dtype_)};
    contend(best_.stored.scale, best_.stored.bias);
    const size_t bits = std::ranges::find(kAffineBits, format_.bits) - kAffineBits;
    const size_t size = std::ranges::find(kAffineGroups, format_.group_size) - kAffineGroups;
    const BestStarts& table = kBestStarts[bits][size];
    const float steps = static_cast<float>((1u << format_.bits) - 1);
    for (int k = 0; k < table.count; ++k) {
      const float inner_part = static_cast<float>(256 - table.starts[k].inner) / 256.0f;
      const float edge_part = static_cast<float>(256 - table.starts[k].edge) / 256.0f;
      const float bias = round_to_dtype(parity.inner * inner_part, dtype_);
      contend(round_to_dtype((parity.edge * edge_part - bias) / steps, dtype_), bias);
    }
    for (int k = 0; k < kBestRefits; ++k) refit();
    return best_.stored;
  }

 private:
  void contend(float scale, float bias) {
    if (!usable_scale(scale) || !std::isfinite(bias)) return;
    Contender c{.stored = {scale, bias}, .error = 0};
    for (size_t i = 0; i < group_.size(); ++i) {
      const auto weight = static_cast<double>(importance_[i]);
      const auto code = static_cast<float>(nearest_code(group_[i], c.stored, format_.bits));
      const float product = scale * code;
      const float decoded = product + bias;
      const double error = static_cast<double>(decoded) - static_cast<double>(group_[i]);
      const double d = static_cast<double>(group_[i]) - static_cast<double>(bias);
      const auto q = static_cast<double>(code);
      c.error += weight * error * error;
      c.sum_q += weight * q;
      c.sum_qq += weight * q * q;
      c.sum_qd += weight * q * d;
      c.sum_d += weight * d;
    }
    if (c.error < best_.error) best_ = c;
  }

  // Weighted least squares of w on the leader's codes; the bias fitted to the rounded scale.
  void refit() {
    const double spread = total_ * best_.sum_qq - best_.sum_q * best_.sum_q;
    if (!(spread > 0)) return;
    const double slope = (total_ * best_.sum_qd - best_.sum_q * best_.sum_d) / spread;
    const float scale = round_to_dtype(static_cast<float>(slope), dtype_);
    const double shift = (best_.sum_d - static_cast<double>(scale) * best_.sum_q) / total_;
    const double bias = static_cast<double>(best_.stored.bias) + shift;
    contend(scale, round_to_dtype(static_cast<float>(bias), dtype_));
  }

  const std::span<const float> group_, importance_;
  const QuantFormat& format_;
  const DType dtype_;
  double total_ = 0;  // of all importance
  Contender best_;
};

double weighted_error(std::span<const float> group, std::span<const float> importance,
                      std::span<const float> decoded) {
  double sum = 0;
  for (size_t i = 0; i < group.size(); ++i) {
    const double error = static_cast<double>(decoded[i]) - static_cast<double>(group[i]);
    sum += static_cast<double>(importance[i]) * error * error;
  }
  return sum;
}

void store(std::span<std::byte> out, float value, DType dtype) {
  if (dtype == DType::kF32) {
    std::memcpy(out.data(), &value, 4);
    return;
  }
  const uint16_t half = dtype == DType::kF16 ? f32_to_f16(value) : f32_to_bf16(value);
  std::memcpy(out.data(), &half, 2);
}

}  // namespace

uint8_t nearest_code(float w, const StoredGroup& stored, unsigned bits) {
  const float code = std::rint((w - stored.bias) / stored.scale);
  const float top = static_cast<float>((1u << bits) - 1);
  // Also where the quotient is no number.
  return code > 0 ? static_cast<uint8_t>(std::min(code, top)) : uint8_t{0};
}

StoredGroup weighted_group(std::span<const float> group, std::span<const float> importance,
                           const QuantFormat& format, DType dtype) {
  SLUICE_DCHECK(importance.size() == group.size());
  return Search(group, importance, format, dtype).run();
}

void encode_affine_weighted(std::span<const float> row, std::span<const float> importance,
                            const QuantFormat& format, DType dtype, const AffineRow& out) {
  SLUICE_CHECK(importance.size() == row.size());
  encode_affine_parity(row, format, dtype, ParityRule::kCpu, out);
  const size_t size = format.group_size, packed = size / 8 * format.bits;
  const size_t stored_bytes = dtype == DType::kF32 ? 4 : 2;
  float decoded[kGroupMax];
  uint8_t codes[kGroupMax];
  for (size_t g = 0; g < row.size() / size; ++g) {
    const std::span<const float> group = row.subspan(g * size, size);
    const std::span<const float> weights = importance.subspan(g * size, size);
    const AffineRow part{out.weight.subspan(g * packed, packed),
                         out.scales.subspan(g * stored_bytes, stored_bytes),
                         out.biases.subspan(g * stored_bytes, stored_bytes)};
    decode_affine({part.weight, part.scales, part.biases}, format, dtype, {decoded, size});
    const double parity_error = weighted_error(group, weights, {decoded, size});
    const StoredGroup found = weighted_group(group, weights, format, dtype);
    if (!usable_scale(found.scale) || !std::isfinite(found.bias)) continue;
    for (size_t i = 0; i < size; ++i) {
      codes[i] = nearest_code(group[i], found, format.bits);
      const float product = found.scale * static_cast<float>(codes[i]);
      decoded[i] = product + found.bias;
    }
    const double found_error = weighted_error(group, weights, {decoded, size});
    if (std::isfinite(parity_error) && !(found_error < parity_error * kBestMargin)) continue;
    pack_codes({codes, size}, format.bits, part.weight);
    store(part.scales, found.scale, dtype);
    store(part.biases, found.bias, dtype);
  }
}

}  // namespace sluice::numerics
