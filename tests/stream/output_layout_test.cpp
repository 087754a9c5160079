// The layout of an output, held against the strict reader: what the header says, where the engine
// writes and what a budget counts must be one and the same.
#include "stream/output_layout.h"

#include <gmock/gmock.h>

#include <cstring>
#include <set>

#include "support/models.h"

namespace sluice::stream {
namespace {

using numerics::DType;
using numerics::QuantFormat;
using numerics::QuantMode;
using numerics::Shape;
using ::testing::HasSubstr;

constexpr QuantFormat kPlain{};
constexpr QuantFormat affine(uint8_t bits, uint16_t group) {
  return {QuantMode::kAffine, bits, group};
}

LayoutModule linear(const std::string& path, Shape shape, bool quantizable = true) {
  return {path, "weight", std::move(shape), DType::kBF16, quantizable};
}

// A shard as far as a reader of headers looks: the header, and a file of the promised length.
class HeaderOnly : public io::ByteSource {
 public:
  explicit HeaderOnly(const OutputShard& shard) : shard_(shard) {}
  Status read_at(uint64_t offset, std::span<std::byte> out) const override {
    if (offset + out.size() > shard_.header.size())
      return fail(ErrorCode::kCorrupt, "{}: read past the header", shard_.name);
    std::memcpy(out.data(), shard_.header.data() + offset, out.size());
    return {};
  }
  uint64_t size() const override { return shard_.file_bytes; }
  const std::string& label() const override { return shard_.name; }

 private:
  const OutputShard& shard_;
};

// Everything that must hold for any layout.
void check_layout(std::span<const LayoutModule> modules, std::span<const QuantFormat> formats,
                  const OutputLayout& layout) {
  std::map<std::string, std::pair<uint32_t, io::StoredTensor>> stored;
  uint64_t file_bytes = 0, tensor_bytes = 0;
  for (uint32_t s = 0; s < layout.shards.size(); ++s) {
    const OutputShard& shard = layout.shards[s];
    const auto header = io::read_safetensors_header(HeaderOnly(shard), s);
    ASSERT_TRUE(header) << header.error().message;
    EXPECT_EQ(header->metadata, (std::map<std::string, std::string>{{"format", "mlx"}}));
    EXPECT_EQ(header->data_start, shard.header.size());
    EXPECT_EQ(header->data_start % io::kDataAlignment, 0u);
    ASSERT_EQ(header->tensors.size(), shard.tensors.size());
    uint64_t next = header->data_start;
    for (size_t i = 0; i < shard.tensors.size(); ++i) {
      // Tensors without elements share an offset with a neighbour, in either order.
      if (header->tensors[i].bytes > 0) {
        EXPECT_EQ(header->tensors[i].info, shard.tensors[i]);
      }
      EXPECT_EQ(header->tensors[i].offset, next) << "a hole or an overlap";
      next += header->tensors[i].bytes;
      tensor_bytes += header->tensors[i].bytes;
      EXPECT_TRUE(stored.emplace(shard.tensors[i].name, std::pair(s, header->tensors[i])).second);
    }
    EXPECT_EQ(next, shard.file_bytes);
    file_bytes += shard.file_bytes;
  }
  EXPECT_EQ(layout.file_bytes, file_bytes);
  EXPECT_EQ(layout.tensor_bytes, tensor_bytes);

  ASSERT_EQ(layout.places.size(), modules.size());
  uint64_t parameters = 0;
  for (size_t i = 0; i < modules.size(); ++i) {
    const ModulePlace& place = layout.places[i];
    const auto& [shard, weight] = stored.at(modules[i].tensor_name());
    EXPECT_EQ(place.shard, shard);
    EXPECT_EQ(place.weight, weight.offset);
    parameters += *numerics::element_count(modules[i].shape);
    if (formats[i].mode == QuantMode::kFloat) continue;
    EXPECT_EQ(stored.at(modules[i].path + ".scales").first, shard) << "a module in two shards";
    EXPECT_EQ(stored.at(modules[i].path + ".biases").first, shard);
    EXPECT_EQ(place.scales, stored.at(modules[i].path + ".scales").second.offset);
    EXPECT_EQ(place.biases, stored.at(modules[i].path + ".biases").second.offset);
  }
  EXPECT_EQ(layout.parameters, parameters);
}

OutputLayout checked_layout(const std::vector<LayoutModule>& modules,
                            const std::vector<QuantFormat>& formats, DType dtype = DType::kBF16) {
  auto layout = layout_output(modules, dtype, formats);
  EXPECT_TRUE(layout) << layout.error().message;
  check_layout(modules, formats, *layout);
  return std::move(*layout);
}

std::vector<std::string> shard_names(const OutputLayout& layout) {
  std::vector<std::string> names;
  for (const OutputShard& shard : layout.shards) names.push_back(shard.name);
  return names;
}

TEST(OutputLayout, TensorsOfAnAffineModule) {
  const auto tensors = output_tensors(linear("m", {4, 96, 256}), affine(3, 64), DType::kF16);
  ASSERT_EQ(tensors.size(), 3u);
  EXPECT_EQ(tensors[0], (io::TensorInfo{"m.weight", DType::kU32, {4, 96, 24}}));
  EXPECT_EQ(tensors[1], (io::TensorInfo{"m.scales", DType::kF16, {4, 96, 4}}));
  EXPECT_EQ(tensors[2], (io::TensorInfo{"m.biases", DType::kF16, {4, 96, 4}}));
}

TEST(OutputLayout, TensorsOfAnFpModule) {
  const auto tensors =
      output_tensors(linear("m", {2, 3, 64}), {QuantMode::kNvfp4, 4, 16}, DType::kBF16);
  ASSERT_EQ(tensors.size(), 2u);
  EXPECT_EQ(tensors[0], (io::TensorInfo{"m.weight", DType::kU32, {2, 3, 8}}));
  EXPECT_EQ(tensors[1], (io::TensorInfo{"m.scales", DType::kU8, {2, 3, 4}}));
}

TEST(OutputLayout, EveryFormatTakesWhatNumericsSays) {
  const LayoutModule module = linear("m", {33, 384});
  for (const uint8_t bits : numerics::kAffineBits)
    for (const uint16_t group : numerics::kAffineGroups)
      for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
        const OutputLayout layout = checked_layout({module}, {affine(bits, group)}, dtype);
        EXPECT_EQ(layout.tensor_bytes,
                  numerics::encoded_bytes(affine(bits, group), module.shape, dtype).total());
      }
}

TEST(OutputLayout, SmallModelIsOneFileInModuleOrder) {
  const std::vector<LayoutModule> modules = {linear("z.embed", {100, 128}),
                                             linear("a.norm", {128}, false),
                                             {"raw.parameter", "", {3}, DType::kF32, false},
                                             linear("m.up", {64, 128}),
                                             {"counts", "bias", {5}, DType::kI64, false}};
  const OutputLayout layout =
      checked_layout(modules, {affine(4, 64), kPlain, kPlain, affine(8, 32), kPlain});
  EXPECT_THAT(shard_names(layout), ::testing::ElementsAre("model.safetensors"));
  std::vector<std::string> names;
  for (const io::TensorInfo& tensor : layout.shards[0].tensors) names.push_back(tensor.name);
  EXPECT_THAT(names, ::testing::ElementsAre("z.embed.weight", "z.embed.scales", "z.embed.biases",
                                            "a.norm.weight", "raw.parameter", "m.up.weight",
                                            "m.up.scales", "m.up.biases", "counts.bias"));
}

TEST(OutputLayout, TensorsWithoutElements) {
  checked_layout({linear("a", {0, 64}), linear("b", {4}, false), linear("c", {0}, false)},
                 {affine(4, 64), kPlain, kPlain});
  checked_layout({linear("a", {0}, false)}, {kPlain});
}

TEST(OutputLayout, NoModulesIsAnEmptyFile) {
  const OutputLayout layout = checked_layout({}, {});
  EXPECT_EQ(layout.shards.size(), 1u);
  EXPECT_EQ(layout.tensor_bytes, 0u);
}

TEST(OutputLayout, SplitsGreedilyAtTheLimit) {
  // 2 GiB each in bfloat16: two fit into 5 GiB.
  std::vector<LayoutModule> modules;
  for (int i = 0; i < 5; ++i) modules.push_back(linear(fmt::format("m{}", i), {1 << 20, 1024}));
  const OutputLayout layout = checked_layout(modules, std::vector<QuantFormat>(5, kPlain));
  EXPECT_THAT(shard_names(layout), ::testing::ElementsAre("model-00001-of-00003.safetensors",
                                                          "model-00002-of-00003.safetensors",
                                                          "model-00003-of-00003.safetensors"));
  EXPECT_EQ(layout.places[1].shard, 0u);
  EXPECT_EQ(layout.places[2].shard, 1u);
  EXPECT_EQ(layout.places[4].shard, 2u);
}

TEST(OutputLayout, ExactlyTheLimitFits) {
  const std::vector<LayoutModule> modules = {
      linear("a", {5, 1 << 20, 256}), linear("b", {5, 1 << 20, 256}), linear("c", {1}, false)};
  EXPECT_EQ(checked_layout(modules, {kPlain, kPlain, kPlain}).shards.size(), 2u);
}

TEST(OutputLayout, LargerThanTheLimitHasAShardOfItsOwn) {
  const std::vector<LayoutModule> modules = {
      linear("a", {64}, false), linear("huge", {128, 1 << 16, 1024}), linear("c", {64}, false)};
  const OutputLayout layout = checked_layout(modules, {kPlain, affine(8, 32), kPlain});
  ASSERT_EQ(layout.shards.size(), 3u);
  EXPECT_GT(layout.shards[1].file_bytes, kShardBytesMax);
  EXPECT_EQ(layout.shards[1].tensors.size(), 3u) << "scales and biases stay with their weight";
}

TEST(OutputLayout, AModuleMovesToTheNextShardAsAWhole) {
  // Its weight alone would still fit.
  const std::vector<LayoutModule> modules = {linear("a", {9, 1 << 18, 1024}),
                                             linear("b", {2, 1 << 18, 1024})};
  const OutputLayout layout = checked_layout(modules, {kPlain, affine(8, 32)});
  EXPECT_EQ(layout.shards.size(), 2u);
}

TEST(OutputLayout, ThousandsOfModulesInManyShards) {
  test::Random random(7);
  std::vector<LayoutModule> modules;
  std::vector<QuantFormat> formats;
  for (int i = 0; i < 3000; ++i) {
    const uint64_t columns = 128 * (1 + random.below(64));
    const bool vector = i % 5 == 0;
    modules.push_back(linear(fmt::format("model.layers.{}.p{}", i / 7, i),
                             vector ? Shape{columns} : Shape{1 + random.below(20000), columns},
                             !vector));
    const uint64_t pick = random.below(std::size(numerics::kAffineBits));
    formats.push_back(
        vector ? kPlain
               : affine(numerics::kAffineBits[pick], numerics::kAffineGroups[random.below(3)]));
  }
  const OutputLayout layout = checked_layout(modules, formats);
  EXPECT_GT(layout.shards.size(), 5u);
  std::set<std::string> names;
  for (const OutputShard& shard : layout.shards) {
    names.insert(shard.name);
    EXPECT_FALSE(shard.tensors.empty());
    if (&shard != &layout.shards.back()) {
      EXPECT_LE(shard.file_bytes - shard.header.size(), kShardBytesMax);
    }
  }
  EXPECT_EQ(names.size(), layout.shards.size());

  const auto again = layout_output(modules, DType::kBF16, formats);
  ASSERT_TRUE(again);
  for (size_t s = 0; s < layout.shards.size(); ++s)
    EXPECT_EQ(layout.shards[s].header, again->shards[s].header) << "layouts must be repeatable";
}

TEST(OutputLayout, RefusesFormatsThatDoNotFit) {
  const auto refuse = [](const LayoutModule& module, const QuantFormat& format) {
    const auto layout = layout_output(std::span(&module, 1), DType::kBF16, std::span(&format, 1));
    ASSERT_FALSE(layout);
    EXPECT_EQ(layout.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(layout.error().message, HasSubstr("m.weight"));
  };
  refuse(linear("m", {8, 96}), affine(4, 64));
  refuse(linear("m", {128}), affine(4, 64));
  refuse(linear("m", {8, 128}, false), affine(4, 64));
}

TEST(OutputLayout, PlainTypeFollowsTheSource) {
  test::ModelBuilder builder(Json::object());
  builder.add("f32", DType::kF32, {4}, std::vector<float>(4));
  builder.add_bytes("i64", DType::kI64, {4}, std::vector<std::byte>(32));
  builder.add_bytes("q4", DType::kQ4_0, {1, 32}, std::vector<std::byte>(18));
  const auto checkpoint = builder.build();
  families::ModelMap map = test::plain_map(*checkpoint, DType::kF16);
  const auto dtype_of = [&](size_t i) { return plain_dtype(*checkpoint, map, map.modules[i]); };
  EXPECT_EQ(dtype_of(0), DType::kF16);
  EXPECT_EQ(dtype_of(1), DType::kI64) << "integers are copied";
  EXPECT_EQ(dtype_of(2), DType::kF16) << "blocks become plain floats";
  for (families::OutputModule& module : map.modules) module.keep_dtype = true;
  EXPECT_EQ(dtype_of(0), DType::kF32);
  EXPECT_EQ(dtype_of(2), DType::kF16) << "there are no blocks in safetensors";
}

}  // namespace
}  // namespace sluice::stream
