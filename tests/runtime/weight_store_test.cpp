// Weights arrive where products read them, decoded as the scalar reference decodes the source.
#include "runtime/weight_store.h"

#include <gmock/gmock.h>

#include "numerics/block_codec.h"
#include "support/models.h"

namespace sluice::runtime {
namespace {

using numerics::DType;
using testing::HasSubstr;

struct Loaded {
  std::shared_ptr<const io::Checkpoint> checkpoint;
  std::unique_ptr<WeightStore> store;
};

Loaded load(const test::ModelBuilder& model) {
  Loaded loaded{model.build(), nullptr};
  const auto map = families::map_model(*loaded.checkpoint, "");
  SLUICE_CHECK(map.has_value());
  auto store = WeightStore::plan(loaded.checkpoint, *map);
  SLUICE_CHECK(store.has_value());
  loaded.store = std::move(*store);
  ThreadPool pool(2);
  NullProgress progress;
  const Status status = loaded.store->load(pool, progress);
  SLUICE_CHECK(status.has_value());
  return loaded;
}

std::vector<float> row(const WeightStore& store, std::string_view name, size_t index) {
  const numerics::WeightView view = store.view(*store.find(name));
  std::vector<float> values(view.columns);
  numerics::decode_row(view, index, values);
  return values;
}

std::vector<float> source_row(const io::Checkpoint& checkpoint, std::string_view name,
                              uint64_t index) {
  const io::StoredTensor& tensor = *checkpoint.find(name);
  const uint64_t rows = tensor.info.shape.size() == 1 ? 1 : tensor.info.shape[0];
  std::vector<std::byte> bytes(tensor.bytes / rows);
  SLUICE_CHECK(
      checkpoint.files[0]->read_at(tensor.offset + index * bytes.size(), bytes).has_value());
  std::vector<float> values(tensor.info.shape.back());
  numerics::decode_elements(tensor.info.dtype, bytes, values);
  return values;
}

TEST(WeightStore, MatricesAndVectors) {
  const Loaded l = load(test::tiny_llama());
  for (const char* name : {"model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight"}) {
    EXPECT_EQ(row(*l.store, name, 5), source_row(*l.checkpoint, name, 5));
    EXPECT_EQ(l.store->entries()[*l.store->find(name)].storage, "BF16");
  }
  EXPECT_EQ(row(*l.store, "model.norm.weight", 0),
            source_row(*l.checkpoint, "model.norm.weight", 0));
  EXPECT_FALSE(l.store->find("model.layers.9.mlp.down_proj.weight").has_value());
  EXPECT_TRUE(l.store->notes().empty());
}

TEST(WeightStore, ExpertsAreStacked) {
  const Loaded l = load(test::tiny_moe());
  const uint32_t entry = *l.store->find("model.layers.1.mlp.switch_mlp.up_proj.weight");
  for (uint64_t expert = 0; expert < 4; ++expert) {
    const numerics::WeightView view = l.store->expert(entry, static_cast<uint32_t>(expert));
    ASSERT_EQ(view.rows, 64u);
    std::vector<float> values(128);
    numerics::decode_row(view, 63, values);
    EXPECT_EQ(values,
              source_row(*l.checkpoint,
                         fmt::format("model.layers.1.mlp.experts.{}.up_proj.weight", expert), 63));
  }
}

// Heads of 32 rows: row j < 16 comes from row 2j, row 16 + j from 2j + 1.
TEST(WeightStore, GgufRowsAreUninterleaved) {
  const Loaded l = load(test::tiny_gguf());
  const std::string name = "model.layers.0.self_attn.k_proj.weight";
  EXPECT_EQ(l.store->entries()[*l.store->find(name)].storage, "Q4_0");
  for (const auto& [ours, theirs] : {std::pair<size_t, size_t>{0, 0},
                                     {1, 2},
                                     {15, 30},
                                     {16, 1},
                                     {31, 31},
                                     {32, 32},
                                     {33, 34},
                                     {48, 33}})
    EXPECT_EQ(row(*l.store, name, ours), source_row(*l.checkpoint, "blk.0.attn_k.weight", theirs));
  EXPECT_EQ(row(*l.store, "model.layers.0.self_attn.v_proj.weight", 1),
            source_row(*l.checkpoint, "blk.0.attn_v.weight", 1));
}

// Heads of 32 + 24 rows: row r of a head's embed_q is column r of its first 32.
TEST(WeightStore, KeysOfHeadsAreTransposed) {
  const std::string attention = "model.layers.1.self_attn.",
                    source = attention + "kv_b_proj.weight";
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    const Loaded l = load(test::tiny_latent({.dtype = dtype}));
    EXPECT_EQ(l.store->entries()[*l.store->find(attention + "embed_q.weight")].experts, 1u);
    for (const size_t head : {0, 3})
      for (const size_t r : {0, 17, 63}) {
        const auto found = row(*l.store, attention + "embed_q.weight", head * 64 + r);
        ASSERT_EQ(found.size(), 32u);
        for (size_t c = 0; c < 32; ++c)
          EXPECT_EQ(found[c], source_row(*l.checkpoint, source, head * 56 + c)[r]);
      }
    EXPECT_EQ(row(*l.store, attention + "unembed_out.weight", 3 * 24 + 5),
              source_row(*l.checkpoint, source, 3 * 56 + 32 + 5));
  }
}

// What cannot be transposed stays as it is, once.
TEST(WeightStore, BlocksOfHeadsStayWhole) {
  const Loaded l = load(test::with_blocks(test::tiny_latent(), "self_attn.kv_b_proj.weight"));
  const std::string attention = "model.layers.1.self_attn.";
  const uint32_t entry = *l.store->find(attention + "kv_b_proj.weight");
  EXPECT_EQ(l.store->entries()[entry].storage, "Q4_0");
  EXPECT_EQ(l.store->entries()[entry].rows, 4u * 56);
  EXPECT_EQ(row(*l.store, attention + "kv_b_proj.weight", 100),
            source_row(*l.checkpoint, attention + "kv_b_proj.weight", 100));
  EXPECT_FALSE(l.store->find(attention + "embed_q.weight").has_value());
  EXPECT_FALSE(l.store->find(attention + "unembed_out.weight").has_value());
}

TEST(WeightStore, TypesWithoutProductsAreDecoded) {
  test::ModelBuilder model = test::tiny_gguf();
  const numerics::Shape shape = {128, 128};
  std::vector<std::byte> blocks(*numerics::tensor_bytes(DType::kQ2_0, shape));
  for (size_t i = 0; i < blocks.size(); ++i)  // scales of 2⁻⁷ or so
    blocks[i] = i % 18 == 1 ? std::byte{0x20} : static_cast<std::byte>(i * 37);
  model.add_bytes("blk.0.attn_output.weight", DType::kQ2_0, shape, blocks);
  const Loaded l = load(model);
  ASSERT_EQ(l.store->notes().size(), 1u);
  EXPECT_THAT(l.store->notes()[0], HasSubstr("1 tensor of type Q2_0"));
  const auto found = row(*l.store, "model.layers.0.self_attn.o_proj.weight", 77);
  const auto expected = source_row(*l.checkpoint, "blk.0.attn_output.weight", 77);
  for (size_t i = 0; i < found.size(); ++i)
    EXPECT_NEAR(found[i], expected[i], 1e-3 * std::abs(expected[i]));
}

TEST(WeightStore, ReadErrorsArriveWhole) {
  const test::ModelBuilder model = test::tiny_llama();
  class Broken : public io::ByteSource {
   public:
    explicit Broken(std::shared_ptr<io::ByteSource> inner) : inner_(std::move(inner)) {}
    Status read_at(uint64_t offset, std::span<std::byte> out) const override {
      if (offset > inner_->size() / 2) return fail(ErrorCode::kIo, "the cable was pulled");
      return inner_->read_at(offset, out);
    }
    uint64_t size() const override { return inner_->size(); }
    const std::string& label() const override { return inner_->label(); }

   private:
    std::shared_ptr<io::ByteSource> inner_;
  };
  const auto checkpoint = model.build(
      [](std::shared_ptr<io::ByteSource> inner) { return std::make_shared<Broken>(inner); });
  const auto map = families::map_model(*checkpoint, "");
  auto store = WeightStore::plan(checkpoint, *map);
  ASSERT_TRUE(store.has_value());
  ThreadPool pool(3);
  NullProgress progress;
  const Status status = (*store)->load(pool, progress);
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::kIo);
  EXPECT_EQ(status.error().message, "the cable was pulled");
}

}  // namespace
}  // namespace sluice::runtime
