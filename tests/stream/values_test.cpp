// Weights that no format can hold are refused by tensor, row and column.
#include "stream/values.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "numerics/affine.h"
#include "numerics/block_codec.h"
#include "support/models.h"

namespace sluice::stream {
namespace {

using numerics::DType;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Rows 4 … 6 of a module of 64 columns, stored as source.
class ValuesTest : public ::testing::Test {
 protected:
  void use(DType source) {
    source_.dtype = source;
    test::ModelBuilder builder(Json::object());
    builder.add("model.up", source, {8, 64}, std::vector<float>(8 * 64, 0.5f));
    checkpoint_ = builder.build();
    map_ = test::plain_map(*checkpoint_, DType::kBF16);
    values_.assign(3 * 64, 0.25f);
  }
  RowBlock block() const {
    return {map_.modules[0], grid_, Block{0, 0, 4, 3}, source_, {}, values_};
  }
  Status check(DType output) const {
    return check_values(*checkpoint_, block(), output, numerics::find_unencodable);
  }
  float& at(uint64_t row, uint64_t column) { return values_[row * 64 + column]; }

  ModuleSource source_;
  std::shared_ptr<const io::Checkpoint> checkpoint_;
  families::ModelMap map_;
  BlockGrid grid_{8, 8, 1, 1};
  std::vector<float> values_;
};

TEST_F(ValuesTest, FiniteValuesPass) {
  for (const DType source : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ4_0}) {
    if (source == DType::kQ4_0) {
      source_.dtype = source;
    } else {
      use(source);
    }
    for (const DType output : {DType::kF32, DType::kF16, DType::kBF16}) EXPECT_TRUE(check(output));
  }
}

TEST_F(ValuesTest, NamesThePlaceOfEveryNonFiniteValue) {
  for (const DType source : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const float bad : {kNan, kInf, -kInf}) {
      for (const auto& [row, column] : {std::pair{0, 0}, {0, 63}, {1, 31}, {2, 0}, {2, 63}}) {
        use(source);
        at(static_cast<uint64_t>(row), static_cast<uint64_t>(column)) = bad;
        for (const DType output : {DType::kF32, DType::kF16, DType::kBF16}) {
          const Status status = check(output);
          ASSERT_FALSE(status);
          EXPECT_EQ(status.error().code, ErrorCode::kCorrupt);
          EXPECT_THAT(status.error().message, AllOf(HasSubstr("model.up.weight"),
                                                    HasSubstr(fmt::format("row {},", row + 4)),
                                                    HasSubstr(fmt::format("column {}:", column)),
                                                    HasSubstr(fmt::format("{}", bad))));
        }
      }
    }
  }
}

TEST_F(ValuesTest, TooLargeForTheOutputNamesItsType) {
  use(DType::kF32);
  at(1, 7) = 65520.0f;  // the smallest that rounds to infinity
  const Status status = check(DType::kF16);
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message,
              AllOf(HasSubstr("row 5"), HasSubstr("column 7"), HasSubstr("65520"),
                    HasSubstr("too large for F16"), HasSubstr("--dtype")));
  at(1, 7) = std::nextafter(-65520.0f, 0.0f);
  EXPECT_TRUE(check(DType::kF16));
  EXPECT_TRUE(check(DType::kBF16));
}

TEST_F(ValuesTest, LargestBFloat16) {
  use(DType::kF32);
  // Alone in its group of 128, so that only its own size is at issue.
  std::fill(values_.begin(), values_.end(), 0.0f);
  at(0, 0) = 0x1.fep127f;
  EXPECT_TRUE(check(DType::kBF16));
  at(0, 0) = std::nextafter(0x1.ffp127f, 0.0f);
  EXPECT_TRUE(check(DType::kBF16));
  at(0, 0) = 0x1.ffp127f;  // halfway, and even is infinity
  EXPECT_FALSE(check(DType::kBF16));
}

// The ends of a group are finite but their distance is not: no scale can be formed.
TEST_F(ValuesTest, RangeThatOverflowsIsRefused) {
  use(DType::kBF16);
  at(2, 3) = 0x1p127f;
  at(2, 9) = -0x1p127f;
  const Status status = check(DType::kBF16);
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, AllOf(HasSubstr("row 6"), HasSubstr("range")));
}

TEST_F(ValuesTest, RoundedToTheModelsType) {
  std::vector<float> buffer;
  use(DType::kBF16);
  EXPECT_EQ(values_in_dtype(block(), DType::kBF16, buffer).data(), values_.data());
  EXPECT_EQ(values_in_dtype(block(), DType::kF32, buffer).data(), values_.data());
  use(DType::kF32);
  EXPECT_EQ(values_in_dtype(block(), DType::kF32, buffer).data(), values_.data());
  at(0, 5) = 0.1f;
  const auto rounded = values_in_dtype(block(), DType::kBF16, buffer);
  ASSERT_EQ(rounded.size(), values_.size());
  EXPECT_EQ(rounded[5], 0.10009765625f);
  EXPECT_EQ(rounded[4], 0.25f);
  EXPECT_EQ(values_[5], 0.1f) << "the block itself was changed";
}

}  // namespace
}  // namespace sluice::stream
