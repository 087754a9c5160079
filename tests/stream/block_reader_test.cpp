// Packed and transposed sources, read block by block, against the same values computed directly.
#include "stream/block_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstring>

#include "io/packed_tensors.h"
#include "numerics/block_codec.h"
#include "support/models.h"

namespace sluice::stream {
namespace {

using families::OutputModule;
using families::RowOrder;
using numerics::DType;
using numerics::Shape;
using testing::HasSubstr;

std::vector<float> decoded(DType dtype, std::span<const std::byte> bytes) {
  std::vector<float> values(bytes.size() / dtype_info(dtype).block_bytes);
  numerics::decode_elements(dtype, bytes, values);
  return values;
}

std::vector<std::byte> random_bytes(uint64_t seed, uint64_t count) {
  test::Random random(seed);
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.below(0x7f));  // no NaN
  return bytes;
}

// A block's bytes as the engine gets them, when those rows are read together.
std::vector<std::byte> read_block(const io::Checkpoint& checkpoint, const OutputModule& module,
                                  const ModuleSource& source, const Block& whole,
                                  const Block& block) {
  std::vector<families::RowRun> runs;
  std::vector<ByteRange> ranges;
  append_block_ranges(checkpoint, module, source, whole, runs, ranges);
  std::vector<std::vector<std::byte>> read;
  std::vector<std::byte> together, arranged;
  for (const ByteRange& range : ranges) {
    read.emplace_back(range.bytes);
    EXPECT_TRUE(range.file->read_at(range.offset, read.back()).has_value());
    together.insert(together.end(), read.back().begin(), read.back().end());
  }
  if (!needs_arranging(source)) return together;
  const std::vector<std::span<const std::byte>> pieces(read.begin(), read.end());
  arrange_block(checkpoint, module, source, whole, block, pieces, runs, arranged);
  return arranged;
}

std::vector<std::byte> read_block(const io::Checkpoint& checkpoint, const OutputModule& module,
                                  const ModuleSource& source, const Block& block) {
  return read_block(checkpoint, module, source, block, block);
}

// The rows of its expert.
Block expert_of(const ModuleSource& source, const Block& block) {
  Block whole = block;
  whole.first_row -= whole.first_row % source.grid.expert_rows;
  whole.rows = source.grid.expert_rows;
  return whole;
}

// Every block's values, read and decoded, in output order.
std::vector<float> read_all(const io::Checkpoint& checkpoint, const OutputModule& module) {
  const auto source = describe_source(checkpoint, module);
  EXPECT_TRUE(source.has_value()) << source.error().message;
  std::vector<float> all;
  for (uint32_t b = 0; b < source->grid.block_count(); ++b) {
    const Block block = source->grid.block(0, b);
    const std::vector<std::byte> bytes = read_block(checkpoint, module, *source, block);
    EXPECT_EQ(bytes.size(), block.rows * source->row_bytes());
    if (source->is_scattered()) {
      EXPECT_TRUE(bytes ==
                  read_block(checkpoint, module, *source, expert_of(*source, block), block));
    }
    std::vector<float> values(block.rows * module.columns());
    decode_block(*source, bytes, block.rows, {numerics::decode_elements}, values);
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

// Heads of `keys` rows to be transposed and `values` rows to be kept, over `columns` columns.
struct Heads {
  uint64_t heads, keys, values, columns;

  uint64_t rows() const { return heads * (keys + values); }
  OutputModule transposed() const {
    OutputModule module{
        .path = "embed_q", .parameter = "weight", .shape = {heads, columns, keys}, .recipe = {}};
    for (uint64_t h = 0; h < heads; ++h)
      module.recipe.sources.push_back({.tensor = 0,
                                       .first_row = h * (keys + values),
                                       .rows = columns,
                                       .order = RowOrder::kTransposed});
    return module;
  }
  OutputModule kept() const {
    OutputModule module{
        .path = "unembed", .parameter = "weight", .shape = {heads, values, columns}, .recipe = {}};
    for (uint64_t h = 0; h < heads; ++h)
      module.recipe.sources.push_back(
          {.tensor = 0, .first_row = h * (keys + values) + keys, .rows = values});
    return module;
  }
  void expect(const io::Checkpoint& checkpoint, std::span<const float> stored) const {
    const std::vector<float> turned = read_all(checkpoint, transposed());
    const std::vector<float> straight = read_all(checkpoint, kept());
    ASSERT_EQ(turned.size(), heads * columns * keys);
    ASSERT_EQ(straight.size(), heads * values * columns);
    size_t wrong = 0;
    for (uint64_t h = 0; h < heads; ++h) {
      const float* head = stored.data() + h * (keys + values) * columns;
      for (uint64_t c = 0; c < columns; ++c)
        for (uint64_t k = 0; k < keys; ++k)
          wrong += turned[(h * columns + c) * keys + k] != head[k * columns + c];
      for (uint64_t i = 0; i < values * columns; ++i)
        wrong += straight[h * values * columns + i] != head[keys * columns + i];
    }
    EXPECT_EQ(wrong, 0);
  }
};

// The second has several blocks per head, so that a block is some columns of the source.
const Heads kHeads[] = {{3, 24, 40, 70}, {2, 96, 8, 6000}};

TEST(BlockReader, PlainTypesAreTransposedByElement) {
  for (const Heads& heads : kHeads)
    for (const DType dtype : {DType::kBF16, DType::kF32, DType::kF64, DType::kF8E4M3}) {
      const uint64_t bytes = *numerics::tensor_bytes(dtype, Shape{heads.rows(), heads.columns});
      std::vector<std::byte> stored = random_bytes(bytes, bytes);
      test::ModelBuilder model(Json::object());
      model.add_bytes("kv_b", dtype, {heads.rows(), heads.columns}, stored);
      heads.expect(*model.build(), decoded(dtype, stored));
    }
}

TEST(BlockReader, ScalesOfBlocksFollowTheirWeights) {
  for (const Heads& heads : kHeads)
    for (const DType scale_type : {DType::kF32, DType::kBF16}) {
      const uint64_t side = 32;  // divides neither heads nor columns
      const Shape scale_shape{(heads.rows() + side - 1) / side, (heads.columns + side - 1) / side};
      std::vector<std::byte> stored = random_bytes(7, heads.rows() * heads.columns);
      const auto scales = test::Random(8).normals(*numerics::element_count(scale_shape), 1);
      test::ModelBuilder model(Json(
          {{"quantization_config", {{"quant_method", "fp8"}, {"weight_block_size", {32, 32}}}}}));
      model.add_bytes("kv_b.weight", DType::kF8E4M3, {heads.rows(), heads.columns}, stored);
      model.add("kv_b.weight_scale_inv", scale_type, scale_shape, scales);
      const auto rounded = decoded(scale_type, model.bytes("kv_b.weight_scale_inv"));
      std::vector<float> expected = decoded(DType::kF8E4M3, stored);
      for (uint64_t r = 0; r < heads.rows(); ++r)
        for (uint64_t c = 0; c < heads.columns; ++c)
          expected[r * heads.columns + c] *= rounded[r / side * scale_shape[1] + c / side];
      heads.expect(*model.build(), expected);
    }
}

// A stack of [in, out] matrices and the modules that its columns are, or every other row of it.
TEST(BlockReader, ColumnsOfStacksBecomeRows) {
  constexpr uint64_t kExperts = 3, kIn = 70, kOut = 9000;  // an expert's half is several blocks
  test::ModelBuilder model(Json::object());
  const std::vector<std::byte> stored = random_bytes(11, kExperts * kIn * 2 * kOut * 2);
  model.add_bytes("gate_up", DType::kBF16, {kExperts, kIn, 2 * kOut}, stored);
  const std::vector<float> values = decoded(DType::kBF16, stored);
  const auto checkpoint = model.build();
  for (const uint64_t stride : {1, 2})
    for (const uint64_t half : {0, 1}) {
      OutputModule module{
          .path = "up", .parameter = "weight", .shape = {kExperts, kOut, kIn}, .recipe = {}};
      const uint64_t first = stride == 2 ? half : half * kOut;
      for (uint64_t e = 0; e < kExperts; ++e)
        module.recipe.sources.push_back({.tensor = 0,
                                         .first_row = e * kIn,
                                         .rows = kOut,
                                         .order = RowOrder::kTransposed,
                                         .stride = stride,
                                         .first_column = first});
      const std::vector<float> found = read_all(*checkpoint, module);
      size_t wrong = 0;
      for (uint64_t e = 0; e < kExperts; ++e)
        for (uint64_t out = 0; out < kOut; ++out)
          for (uint64_t in = 0; in < kIn; ++in)
            wrong += found[(e * kOut + out) * kIn + in] !=
                     values[(e * kIn + in) * 2 * kOut + first + out * stride];
      EXPECT_EQ(wrong, 0u) << stride << " " << half;
    }
}

TEST(BlockReader, RowsByTurnsAreTakenApart) {
  constexpr uint64_t kExperts = 2, kRows = 3000, kColumns = 96;
  test::ModelBuilder model(Json({{"quantization_config", {{"quant_method", "mxfp4"}}}}));
  const uint64_t blocks = kExperts * 2 * kRows * kColumns / 32;
  model.add_bytes("a_blocks", DType::kU8, {kExperts, 2 * kRows, kColumns / 32, 16},
                  random_bytes(3, blocks * 16));
  model.add_bytes("a_scales", DType::kU8, {kExperts, 2 * kRows, kColumns / 32},
                  random_bytes(4, blocks));
  model.add_bytes("b", DType::kF32, {kExperts, 2 * kRows}, random_bytes(5, kExperts * 8 * kRows));
  const std::vector<float> biases = decoded(DType::kF32, model.bytes("b"));
  const auto checkpoint = model.build();
  OutputModule both{.path = "both",
                    .parameter = "weight",
                    .shape = {kExperts, 2 * kRows, kColumns},
                    .recipe = {}};
  both.recipe.sources = {{.tensor = 0, .rows = kExperts * 2 * kRows}};
  const std::vector<float> all = read_all(*checkpoint, both);
  for (const uint64_t odd : {0, 1}) {
    OutputModule half{
        .path = "half", .parameter = "weight", .shape = {kExperts, kRows, kColumns}, .recipe = {}};
    half.recipe.sources = {{.tensor = 0, .first_row = odd, .rows = kExperts * kRows, .stride = 2}};
    const std::vector<float> found = read_all(*checkpoint, half);
    ASSERT_EQ(found.size(), all.size() / 2);
    size_t wrong = 0;
    for (uint64_t i = 0; i < found.size(); ++i)
      wrong += found[i] != all[(2 * (i / kColumns) + odd) * kColumns + i % kColumns];
    EXPECT_EQ(wrong, 0u);

    OutputModule bias{.path = "half",
                      .parameter = "bias",
                      .shape = {kExperts, kRows},
                      .by_element = true,
                      .recipe = {}};
    bias.recipe.sources = {{.tensor = 1, .first_row = odd, .rows = kExperts * kRows, .stride = 2}};
    const std::vector<float> vector = read_all(*checkpoint, bias);
    ASSERT_EQ(vector.size(), kExperts * kRows);
    for (uint64_t i = 0; i < vector.size(); ++i) wrong += vector[i] != biases[2 * i + odd];
    EXPECT_EQ(wrong, 0u);
  }
}

// Two experts of [kRows, kColumns], packed along their input (GPTQ) or their output (AWQ), of which
// an expert is several blocks.
struct ColumnPacked {
  static constexpr uint64_t kRows = 80, kColumns = 8192, kGroup = 512, kExperts = 2;
  static constexpr uint64_t kGroups = kColumns / kGroup;
  bool awq;
  unsigned zero_added;  // to what is stored
  test::ModelBuilder model;
  std::vector<float> expected;

  ColumnPacked(bool is_awq, const char* format)
      : awq(is_awq),
        zero_added(std::string_view(format) == "gptq" && !awq),
        model(Json({{"quantization_config",
                     {{"quant_method", awq ? "awq" : "gptq"},
                      {"checkpoint_format", format},
                      {"desc_act", false},
                      {"bits", 4},
                      {"group_size", kGroup}}}})) {
    for (uint64_t expert = 0; expert < kExperts; ++expert) add(expert);
  }

  static unsigned nibble(std::span<const std::byte> bytes, uint64_t index) {
    return std::to_integer<unsigned>(bytes[index / 2]) >> (index % 2 * 4) & 15;
  }
  // Of [rows, columns] packed along the columns.
  unsigned field(std::span<const std::byte> bytes, uint64_t columns, uint64_t row,
                 uint64_t column) const {
    constexpr uint64_t kPlaces[] = {0, 4, 1, 5, 2, 6, 3, 7};
    const uint64_t place = awq ? kPlaces[column % 8] : column % 8;
    return nibble(bytes, row * columns + column / 8 * 8 + place);
  }
  void add(uint64_t expert) {
    const std::string stem = "e" + std::to_string(expert);
    const auto codes = random_bytes(20 + expert, kRows * kColumns / 2);
    const auto zeros = random_bytes(30 + expert, kGroups * kRows / 2);
    model.add_bytes(stem + ".qweight", DType::kI32,
                    awq ? Shape{kColumns, kRows / 8} : Shape{kColumns / 8, kRows}, codes);
    model.add_bytes(stem + ".qzeros", DType::kI32, {kGroups, kRows / 8}, zeros);
    model.add(stem + ".scales", DType::kF16, {kGroups, kRows},
              test::Random(40 + expert).normals(kGroups * kRows, 1));
    const std::vector<float> scales = decoded(DType::kF16, model.bytes(stem + ".scales"));
    for (uint64_t n = 0; n < kRows; ++n)
      for (uint64_t k = 0; k < kColumns; ++k) {
        const unsigned code =
            awq ? field(codes, kRows, k, n) : nibble(codes, (k / 8 * kRows + n) * 8 + k % 8);
        const unsigned zero = (field(zeros, kRows, k / kGroup, n) + zero_added) & 15;
        expected.push_back((static_cast<float>(code) - static_cast<float>(zero)) *
                           scales[k / kGroup * kRows + n]);
      }
  }
};

TEST(BlockReader, WordsOfColumnsBecomeRows) {
  for (const auto& [awq, format] :
       {std::pair{true, "gptq"}, std::pair{false, "gptq"}, std::pair{false, "gptq_v2"}}) {
    ColumnPacked packed(awq, format);
    const auto checkpoint = packed.model.build();
    OutputModule module{
        .path = "e",
        .parameter = "weight",
        .shape = {ColumnPacked::kExperts, ColumnPacked::kRows, ColumnPacked::kColumns},
        .recipe = {}};
    for (uint32_t e = 0; e < ColumnPacked::kExperts; ++e)
      module.recipe.sources.push_back({.tensor = e, .rows = ColumnPacked::kRows});
    ASSERT_GT(describe_source(*checkpoint, module)->grid.blocks_per_expert, 1u);
    EXPECT_TRUE(reads_columns(*checkpoint, module));
    const std::vector<float> found = read_all(*checkpoint, module);
    EXPECT_TRUE(found == packed.expected) << awq << " " << format;
  }
}

TEST(BlockReader, DigestsCoverEveryPart) {
  test::ModelBuilder model(
      Json({{"quantization_config", {{"quant_method", "fp8"}, {"weight_block_size", {4, 4}}}}}));
  model.add_bytes("w.weight", DType::kF8E4M3, {8, 8}, random_bytes(3, 64));
  model.add("w.weight_scale_inv", DType::kF32, {2, 2}, test::Random(4).normals(4, 1));
  OutputModule module{.path = "w", .parameter = "weight", .shape = {8, 8}, .recipe = {}};
  module.recipe.sources.push_back({.tensor = 0, .rows = 8});
  const auto bytes_of = [&] {
    const auto checkpoint = model.build();
    const auto source = describe_source(*checkpoint, module);
    EXPECT_TRUE(source.has_value());
    return read_block(*checkpoint, module, *source, source->grid.block(0, 0));
  };
  const std::vector<std::byte> before = bytes_of();
  EXPECT_EQ(before.size(), 8 * (8 + 2 * 4));
  for (const char* name : {"w.weight", "w.weight_scale_inv"}) {
    model.bytes(name).back() ^= std::byte{1};
    EXPECT_NE(bytes_of(), before) << name;
    model.bytes(name).back() ^= std::byte{1};
  }
}

TEST(BlockReader, SourcesStoredDifferentlyAreRefused) {
  test::ModelBuilder model(
      Json({{"quantization",
             {{"group_size", 32}, {"bits", 4}, {"b", {{"group_size", 64}, {"bits", 4}}}}}}));
  for (const auto& [name, group] : {std::pair{"a", 32}, std::pair{"b", 64}}) {
    const std::string path = name;
    model.add_bytes(path + ".weight", DType::kU32, {4, 8}, random_bytes(5, 4 * 8 * 4));
    const Shape scales{4, static_cast<uint64_t>(64 / group)};
    for (const char* part : {".scales", ".biases"})
      model.add(path + part, DType::kBF16, scales,
                std::vector<float>(*numerics::element_count(scales)));
  }
  const auto checkpoint = model.build();
  OutputModule stack{.path = "e", .parameter = "weight", .shape = {2, 4, 64}, .recipe = {}};
  stack.recipe.sources = {{.tensor = 0, .rows = 4}, {.tensor = 1, .rows = 4}};
  const auto refused = describe_source(*checkpoint, stack);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(refused.error().message, HasSubstr("b.weight is MLX 4/64 but a.weight is MLX 4/32"));
  OutputModule turned{.path = "t", .parameter = "weight", .shape = {64, 4}, .recipe = {}};
  turned.recipe.sources = {{.tensor = 0, .rows = 64, .order = RowOrder::kTransposed}};
  const auto codes = describe_source(*checkpoint, turned);
  ASSERT_FALSE(codes.has_value());
  EXPECT_THAT(codes.error().message, HasSubstr("a.weight is MLX 4/32, which cannot be transposed"));
}

}  // namespace
}  // namespace sluice::stream
