#include "kernels/matmul_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/error.h"

namespace sluice::kernels {
namespace {

constexpr size_t kLanes = 16;     // of the f32 products
constexpr size_t kStep = 64;      // to which values are padded, and bytes aligned
constexpr size_t kGroupStep = 8;  // to which scales and sums are padded
constexpr size_t kBlockSums = 16;
constexpr size_t kGroupMax = 256;

size_t round_up(size_t value, size_t step) { return (value + step - 1) / step * step; }

constexpr unsigned kNarrowCodeMax = 63;  // products of larger codes do not add up in 16 bits

float fold_lanes(float* lanes) {
  for (size_t half = kLanes / 2; half > 0; half /= 2)
    for (size_t l = 0; l < half; ++l) lanes[l] = lanes[l] + lanes[l + half];
  return lanes[0];
}

float dot_f32(std::span<const float> w, const float* x) {
  float lanes[kLanes] = {};
  for (size_t i = 0; i < w.size(); ++i) lanes[i % kLanes] = std::fma(w[i], x[i], lanes[i % kLanes]);
  return fold_lanes(lanes);
}

// One group's values: their scale, or NaN when one of them is not finite.
float group_scale(std::span<const float> x, float top) {
  float max = 0, poison = 0;
  for (const float value : x) {
    max = std::max(max, std::fabs(value));
    poison = poison + value * 0.0f;
  }
  return max / top + poison;
}

int quantized(float value, float scale, float top) {
  const float steps = scale > 0 ? std::rint(value / scale) : 0;
  return static_cast<int>(std::clamp(steps, -top, top));
}

void store_value(bool wide, std::byte* values, size_t index, int value) {
  if (!wide) {
    values[index] = static_cast<std::byte>(value);
    return;
  }
  const auto narrow = static_cast<int16_t>(value);
  std::memcpy(values + index * 2, &narrow, 2);
}

int load_value(bool wide, const std::byte* values, size_t index) {
  if (!wide) return static_cast<int8_t>(values[index]);
  int16_t narrow;
  std::memcpy(&narrow, values + index * 2, 2);
  return narrow;
}

// S of a block's groups, or offset·S as a whole number, or sx·S.
void store_sums(const PreparedLayout& layout, std::byte* sums, size_t group, float scale,
                std::span<const int> values) {
  if (layout.blocks) {
    for (size_t g = 0; g < values.size() / layout.coded.group; ++g) {
      const auto part = values.subspan(g * layout.coded.group, layout.coded.group);
      const auto sum = static_cast<int16_t>(std::accumulate(part.begin(), part.end(), 0));
      std::memcpy(sums + (group * kBlockSums + sum_place(layout.coded, g)) * 2, &sum, 2);
    }
    return;
  }
  const int sum = std::accumulate(values.begin(), values.end(), 0);
  if (!layout.coded.has_bias) {
    const int shift = layout.coded.offset * sum;
    std::memcpy(sums + group * 4, &shift, 4);
    return;
  }
  const float part = scale * static_cast<float>(sum);
  std::memcpy(sums + group * 4, &part, 4);
}

struct RowParts {
  std::span<uint8_t> codes;
  std::span<float> scales, biases;
  std::span<numerics::BlockScales> blocks;
};

int dot_codes(const RowParts& row, const PreparedLayout& layout, const std::byte* prepared,
              size_t from, size_t to) {
  int sum = 0;
  for (size_t i = from; i < to; ++i)
    sum += int{row.codes[i]} * load_value(layout.wide, prepared, i);
  return sum;
}

float dot_coded(const RowParts& row, const PreparedLayout& layout, const std::byte* prepared) {
  const auto* scales = reinterpret_cast<const float*>(prepared + layout.scales_at);
  const std::byte* sums = prepared + layout.sums_at;
  const size_t size = layout.coded.group;
  float y = 0;
  for (size_t g = 0; g < layout.groups; ++g) {
    const int sum = dot_codes(row, layout, prepared, g * size, (g + 1) * size);
    int shift = 0;
    float part = 0;
    std::memcpy(layout.coded.has_bias ? static_cast<void*>(&part) : &shift, sums + g * 4, 4);
    y = std::fma(row.scales[g] * scales[g], static_cast<float>(sum - shift), y);
    if (layout.coded.has_bias) y = std::fma(row.biases[g], part, y);
  }
  return y;
}

float dot_blocks(const RowParts& row, const PreparedLayout& layout, const std::byte* prepared) {
  const auto* scales = reinterpret_cast<const float*>(prepared + layout.scales_at);
  const std::byte* sums = prepared + layout.sums_at;
  const size_t size = layout.coded.group;
  float y = 0;
  for (size_t b = 0; b < layout.groups; ++b) {
    const numerics::BlockScales& block = row.blocks[b];
    int whole = 0, weighted = 0;
    for (size_t g = 0; g < layout.group / size; ++g) {
      const size_t at = b * layout.group + g * size;
      int16_t sum;
      std::memcpy(&sum, sums + (b * kBlockSums + sum_place(layout.coded, g)) * 2, 2);
      whole += block.scales[g] * dot_codes(row, layout, prepared, at, at + size);
      weighted += (layout.coded.has_bias ? block.mins[g] : block.scales[g]) * sum;
    }
    if (!layout.coded.has_bias) whole -= layout.coded.offset * weighted;
    y = std::fma(block.step * scales[b], static_cast<float>(whole), y);
    if (layout.coded.has_bias)
      y = std::fma(block.min_step * scales[b], static_cast<float>(-weighted), y);
  }
  return y;
}

}  // namespace

PreparedLayout prepared_layout(const numerics::WeightFormat& format, Activations activations,
                               size_t columns) {
  PreparedLayout layout;
  const auto coded = numerics::coded_format(format);
  if (activations == Activations::kF32 || !coded) {
    layout.bytes = round_up(columns * 4, kStep);
    return layout;
  }
  layout.activations = activations;
  layout.coded = *coded;
  layout.blocks = coded->block > 0 && activations == Activations::kI8;
  layout.group = layout.blocks ? coded->block : coded->group;
  SLUICE_CHECK(columns % layout.group == 0 && layout.group <= kGroupMax);
  layout.groups = columns / layout.group;
  layout.wide = activations == Activations::kI16 || coded->code_max > kNarrowCodeMax;
  layout.scales_at = round_up(columns, kStep) * (layout.wide ? 2 : 1);
  layout.sums_at = layout.scales_at + round_up(layout.groups, kGroupStep) * 4;
  const size_t sums =
      layout.blocks ? layout.groups * kBlockSums * 2 : round_up(layout.groups, kGroupStep) * 4;
  layout.bytes = round_up(layout.sums_at + sums, kStep);
  return layout;
}

void prepare_model(const PreparedLayout& layout, std::span<const float> x, std::byte* out) {
  std::memset(out, 0, layout.bytes);
  if (layout.activations == Activations::kF32) {
    std::memcpy(out, x.data(), x.size_bytes());
    return;
  }
  auto* scales = reinterpret_cast<float*>(out + layout.scales_at);
  const float top = layout.activations == Activations::kI8 ? 127.0f : 32767.0f;
  const size_t size = layout.group;
  for (size_t g = 0; g < layout.groups; ++g) {
    const float scale = group_scale(x.subspan(g * size, size), top);
    scales[g] = scale;
    int values[kGroupMax];
    for (size_t i = 0; i < size; ++i) {
      values[i] = quantized(x[g * size + i], scale, top);
      store_value(layout.wide, out, g * size + i, values[i]);
    }
    store_sums(layout, out + layout.sums_at, g, scale, {values, size});
  }
}

size_t scratch_bytes_model(const PreparedLayout& layout, size_t columns) {
  if (layout.activations == Activations::kF32) return round_up(columns * 4, kStep);
  return round_up(columns, kStep) +
         round_up(layout.groups * (layout.blocks ? sizeof(numerics::BlockScales) : 8), kStep);
}

void matmul_model(const numerics::WeightView& w, const PreparedLayout& layout,
                  const std::byte* prepared, size_t tokens, size_t row_begin, size_t row_end,
                  float* y, size_t y_stride, std::byte* scratch) {
  const bool coded = layout.activations != Activations::kF32;
  auto* floats = reinterpret_cast<float*>(scratch + (coded ? round_up(w.columns, kStep) : 0));
  RowParts parts;
  parts.codes = {reinterpret_cast<uint8_t*>(scratch), coded ? w.columns : 0};
  if (layout.blocks) {
    parts.blocks = {reinterpret_cast<numerics::BlockScales*>(floats), layout.groups};
  } else {
    parts.scales = {floats, layout.groups};
    parts.biases = {floats + layout.groups, layout.groups};
  }
  const std::span<float> values(floats, coded ? 0 : w.columns);
  for (size_t r = row_begin; r < row_end; ++r) {
    if (layout.blocks)
      take_blocks_apart(w, r, parts.codes, parts.blocks);
    else if (coded)
      take_row_apart(w, r, parts.codes, parts.scales, parts.biases);
    else
      decode_row(w, r, values);
    for (size_t t = 0; t < tokens; ++t) {
      const std::byte* token = prepared + t * layout.bytes;
      y[t * y_stride + (r - row_begin)] =
          layout.blocks ? dot_blocks(parts, layout, token)
          : coded       ? dot_coded(parts, layout, token)
                        : dot_f32(values, reinterpret_cast<const float*>(token));
    }
  }
}

}  // namespace sluice::kernels
