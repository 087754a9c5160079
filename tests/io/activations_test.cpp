// The folder of recorded activations: what is written comes back, recording goes on where it
// stopped, and another model's or a damaged record is told by name.
#include "io/activations.h"

#include <gmock/gmock.h>

#include "io/fault.h"
#include "numerics/feedback.h"

namespace sluice::io {
namespace {

using ::testing::HasSubstr;

ActivationManifest manifest() {
  ActivationManifest made;
  made.model = digest_of("model");
  made.text = digest_of("text");
  made.tokens = 100;
  made.inputs = {{{"a.weight", "b.weight"}, 32, 1}, {{"c.weight"}, 64, 3}};
  return made;
}

std::vector<Moments> moments_of(const ActivationInput& input, float first) {
  std::vector<Moments> made(input.experts);
  for (Moments& part : made) {
    part.rows = static_cast<uint64_t>(first);
    part.values.resize(numerics::triangle_elements(input.columns));
    for (float& value : part.values) value = first++;
  }
  return made;
}

class ActivationsTest : public ::testing::Test {
 protected:
  ActivationsTest() {
    EXPECT_TRUE(storage_.create_directory("record"));
    EXPECT_TRUE(begin_activations(storage_, "record", manifest_));
  }
  void write(size_t input) {
    const auto moments = moments_of(manifest_.inputs[input], 10.0f * static_cast<float>(input));
    const Status status = write_moments(storage_, "record", manifest_, input, moments);
    ASSERT_TRUE(status) << status.error().message;
  }
  std::string path(size_t input) { return fmt::format("record/input-{:06}.moments", input); }
  void flip(const std::string& path, uint64_t offset) {
    const auto source = storage_.open_source(path);
    std::byte byte[1];
    ASSERT_TRUE((*source)->read_at(offset, byte));
    byte[0] ^= std::byte{1};
    const auto file = storage_.open(path, OpenMode::kCreateOrOpen);
    ASSERT_TRUE((*file)->write_at(offset, byte));
  }

  MemoryStorage storage_;
  const ActivationManifest manifest_ = manifest();
};

TEST_F(ActivationsTest, WhatIsWrittenComesBack) {
  write(0);
  write(1);
  const auto opened = Activations::open(storage_, "record");
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_EQ((*opened)->manifest(), manifest_);
  EXPECT_EQ((*opened)->find("b.weight"), 0u);
  EXPECT_EQ((*opened)->find("c.weight"), 1u);
  EXPECT_EQ((*opened)->find("d.weight"), std::nullopt);
  for (size_t input = 0; input < 2; ++input) {
    const auto expected = moments_of(manifest_.inputs[input], 10.0f * static_cast<float>(input));
    for (size_t expert = 0; expert < expected.size(); ++expert) {
      const auto found = (*opened)->load(input, expert);
      ASSERT_TRUE(found) << found.error().message;
      EXPECT_EQ(found->rows, expected[expert].rows);
      EXPECT_EQ(found->values, expected[expert].values);
    }
  }
}

TEST_F(ActivationsTest, GoesOnWhereItStopped) {
  write(0);
  EXPECT_TRUE(has_moments(storage_, "record", manifest_, 0));
  EXPECT_FALSE(has_moments(storage_, "record", manifest_, 1));
  const auto unfinished = Activations::open(storage_, "record");
  ASSERT_FALSE(unfinished);
  EXPECT_EQ(unfinished.error().code, ErrorCode::kInvalidArgument);
  EXPECT_TRUE(begin_activations(storage_, "record", manifest_));
  write(1);
  EXPECT_TRUE(Activations::open(storage_, "record"));
}

TEST_F(ActivationsTest, AnotherRecordIsToldByWhatDiffers) {
  ActivationManifest other = manifest_;
  other.model = digest_of("another model");
  Status status = begin_activations(storage_, "record", other);
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, HasSubstr("another model"));
  other = manifest_;
  other.text = digest_of("another text");
  status = begin_activations(storage_, "record", other);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(status.error().message, HasSubstr("another text"));
}

TEST_F(ActivationsTest, DigestsDifferWhereContentDoes) {
  write(0);
  write(1);
  const Digest first = (*Activations::open(storage_, "record"))->digest();
  const auto others = moments_of(manifest_.inputs[1], 5);
  ASSERT_TRUE(write_moments(storage_, "record", manifest_, 1, others));
  EXPECT_NE((*Activations::open(storage_, "record"))->digest(), first);
}

TEST_F(ActivationsTest, DamageIsFound) {
  write(0);
  write(1);
  flip(path(1), 20);
  EXPECT_FALSE(has_moments(storage_, "record", manifest_, 1));
  const auto opened = Activations::open(storage_, "record");
  ASSERT_TRUE(opened);
  EXPECT_TRUE((*opened)->load(1, 1));
  const auto damaged = (*opened)->load(1, 0);
  ASSERT_FALSE(damaged);
  EXPECT_EQ(damaged.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(damaged.error().message, HasSubstr("input-000001.moments"));
  flip("record/activations.json", 200);
  const auto broken = Activations::open(storage_, "record");
  ASSERT_FALSE(broken);
  EXPECT_EQ(broken.error().code, ErrorCode::kCorrupt);
}

TEST_F(ActivationsTest, AFileThatWasCutIsFound) {
  write(0);
  write(1);
  ASSERT_TRUE((*storage_.open(path(0), OpenMode::kCreateOrOpen))->truncate(100));
  const auto opened = Activations::open(storage_, "record");
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(opened.error().message, HasSubstr("input-000000.moments: 100 bytes"));
}

TEST_F(ActivationsTest, NumbersThatNoRecordHoldsAreRefused) {
  std::vector<Moments> moments = moments_of(manifest_.inputs[0], 1);
  moments[0].values[0] = -1;
  ASSERT_TRUE(write_moments(storage_, "record", manifest_, 0, moments));
  write(1);
  EXPECT_EQ((*Activations::open(storage_, "record"))->load(0, 0).error().code, ErrorCode::kCorrupt);
  moments[0].values[0] = 1;
  moments[0].values[7] = std::numeric_limits<float>::quiet_NaN();
  ASSERT_TRUE(write_moments(storage_, "record", manifest_, 0, moments));
  EXPECT_EQ((*Activations::open(storage_, "record"))->load(0, 0).error().code, ErrorCode::kCorrupt);
}

TEST_F(ActivationsTest, RemovingTakesOnlyWhatWasRecorded) {
  write(0);
  write(1);
  ASSERT_TRUE(write_file_atomically(storage_, "record/notes.txt", "mine"));
  EXPECT_TRUE(remove_activations(storage_, "record", manifest_));
  EXPECT_FALSE(storage_.exists(path(0)) || storage_.exists("record/activations.json"));
  EXPECT_TRUE(storage_.exists("record/notes.txt"));
}

}  // namespace
}  // namespace sluice::io
