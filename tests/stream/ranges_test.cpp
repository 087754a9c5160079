// Joining ranges into reads: the bytes asked for in the order asked for, few reads, nothing read
// that lies far from all of them, and errors that name what was wanted.
#include "stream/ranges.h"

#include <gmock/gmock.h>

#include <random>

#include "io/fault.h"
#include "support/seed.h"

namespace sluice::stream {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

// Bytes that differ from place to place, and a note of every read.
class NotingSource : public io::ByteSource {
 public:
  explicit NotingSource(uint64_t bytes) : bytes_(bytes) {}
  static std::byte at(uint64_t offset) { return static_cast<std::byte>(offset * 31 ^ offset >> 8); }
  Status read_at(uint64_t offset, std::span<std::byte> out) const override {
    reads.emplace_back(offset, out.size());
    if (offset + out.size() > bytes_) return fail(ErrorCode::kCorrupt, "past the end");
    for (size_t i = 0; i < out.size(); ++i) out[i] = at(offset + i);
    return {};
  }
  uint64_t size() const override { return bytes_; }
  const std::string& label() const override { return label_; }
  mutable std::vector<std::pair<uint64_t, uint64_t>> reads;

 private:
  const uint64_t bytes_;
  const std::string label_ = "file";
};

bool is_range(std::span<const std::byte> bytes, const ByteRange& range) {
  if (bytes.size() != range.bytes) return false;
  for (size_t i = 0; i < bytes.size(); ++i)
    if (bytes[i] != NotingSource::at(range.offset + i)) return false;
  return true;
}

TEST(RangeReader, NeighboursAreOneRead) {
  NotingSource file(10 << 20);
  RangeReader reader;
  const ByteRange ranges[] = {
      {&file, 5000, 300, "a"}, {&file, 1000, 4000, "b"}, {&file, 5300, 10, "c"}};
  ASSERT_TRUE(reader.read(ranges));
  EXPECT_THAT(file.reads, ElementsAre(Pair(1000, 4310)));
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(is_range(reader.bytes(i), ranges[i]));
  std::vector<std::byte> buffer;
  EXPECT_EQ(reader.bytes(0, 1, buffer).data(), reader.bytes(0).data());
  EXPECT_THAT(buffer, IsEmpty()) << "a single range needs no copy";
  const auto joined = reader.bytes(0, 3, buffer);
  ASSERT_EQ(joined.size(), 4310u);
  EXPECT_EQ(joined.data(), buffer.data());
  EXPECT_TRUE(is_range(joined.first(300), ranges[0]));
  EXPECT_TRUE(is_range(joined.subspan(300, 4000), ranges[1]));
}

TEST(RangeReader, RunsInFileOrderAreViews) {
  NotingSource file(10 << 20);
  RangeReader reader;
  const ByteRange ranges[] = {{&file, 1000, 4000, "a"}, {&file, 5000, 300, "a"}};
  ASSERT_TRUE(reader.read(ranges));
  std::vector<std::byte> buffer;
  EXPECT_EQ(reader.bytes(0, 2, buffer).size(), 4300u);
  EXPECT_THAT(buffer, IsEmpty());
}

TEST(RangeReader, FarApartAreReadApart) {
  NotingSource file(10 << 20), other(1 << 20);
  RangeReader reader;
  const ByteRange ranges[] = {{&file, 0, 10, "a"},
                              {&file, 10 + kGapBytesMax, 10, "b"},
                              {&file, 21 + 2 * kGapBytesMax, 10, "c"},
                              {&other, 21 + 2 * kGapBytesMax, 10, "d"}};
  ASSERT_TRUE(reader.read(ranges));
  EXPECT_THAT(file.reads, ElementsAre(Pair(0, 20 + kGapBytesMax), Pair(21 + 2 * kGapBytesMax, 10)));
  EXPECT_THAT(other.reads, ElementsAre(Pair(21 + 2 * kGapBytesMax, 10)));
  for (size_t i = 0; i < 4; ++i) EXPECT_TRUE(is_range(reader.bytes(i), ranges[i]));
}

TEST(RangeReader, ReadsAreJoinedOnlySoFar) {
  NotingSource file(64 << 20);
  RangeReader reader;
  std::vector<ByteRange> ranges;
  for (uint64_t i = 0; i < 20; ++i) ranges.push_back({&file, i << 20, 1 << 20, "rows"});
  ranges.push_back({&file, 30 << 20, 2 * kJoinedBytesMax, "long"});
  ASSERT_TRUE(reader.read(ranges));
  EXPECT_EQ(file.reads.size(), 6u);
  for (const auto& [offset, bytes] : file.reads)
    EXPECT_LE(bytes, offset == 30 << 20 ? 2 * kJoinedBytesMax : kJoinedBytesMax);
  for (size_t i = 0; i < ranges.size(); ++i) EXPECT_TRUE(is_range(reader.bytes(i), ranges[i]));
}

// Permuted rows of a head: one read for all of them.
TEST(RangeReader, InterleavedRowsAreOneRead) {
  NotingSource file(1 << 20);
  RangeReader reader;
  std::vector<ByteRange> ranges;
  for (uint64_t row = 0; row < 64; ++row)
    ranges.push_back({&file, 77 + 144 * (row < 32 ? 2 * row : 2 * row - 63), 144, "q"});
  ASSERT_TRUE(reader.read(ranges));
  EXPECT_THAT(file.reads, ElementsAre(Pair(77, 64 * 144)));
  std::vector<std::byte> buffer;
  const auto rows = reader.bytes(0, 64, buffer);
  for (size_t row = 0; row < 64; ++row)
    EXPECT_TRUE(is_range(rows.subspan(row * 144, 144), ranges[row]));
}

// Pieces of columns: what lies between stays unread, and memory is that of the pieces.
TEST(RangeReader, GapsThatAddUpAreLeftOut) {
  NotingSource file(8 << 20);
  RangeReader reader;
  std::vector<ByteRange> ranges;
  for (uint64_t row = 0; row < 100; ++row) ranges.push_back({&file, 50 + row * 40'000, 300, "e"});
  ranges.push_back({&file, 5 << 20, 9000, "large"});
  ASSERT_TRUE(reader.read(ranges, kTransposedGapBytesMax));
  EXPECT_EQ(file.reads.size(), 101u);
  for (size_t i = 0; i < ranges.size(); ++i) EXPECT_TRUE(is_range(reader.bytes(i), ranges[i])) << i;
  EXPECT_EQ(reader.bytes(1).data(), reader.bytes(0).data() + 300);
  file.reads.clear();
  ASSERT_TRUE(reader.read(ranges));
  EXPECT_LE(file.reads.size(), 2u);
  for (size_t i = 0; i < ranges.size(); ++i) EXPECT_TRUE(is_range(reader.bytes(i), ranges[i])) << i;
}

TEST(RangeReader, RandomSets) {
  std::mt19937_64 random(test::seed());
  NotingSource file(8 << 20), other(8 << 20);
  RangeReader reader;
  std::vector<std::byte> buffer;
  for (int round = 0; round < 50; ++round) {
    std::vector<ByteRange> ranges(random() % 40);
    uint64_t wanted = 0;
    for (ByteRange& range : ranges) {
      range = {random() % 3 == 0 ? &other : &file, random() % (7 << 20), random() % 20'000, "r"};
      if (random() % 4 == 0) range.bytes = 0;
      wanted += range.bytes;
    }
    file.reads.clear();
    other.reads.clear();
    ASSERT_TRUE(reader.read(ranges));
    uint64_t read = 0;
    for (const auto& list : {file.reads, other.reads})
      for (const auto& [offset, bytes] : list) read += bytes;
    EXPECT_LE(read, wanted + ranges.size() * kGapBytesMax);
    size_t at = 0;
    const auto joined = reader.bytes(0, ranges.size(), buffer);
    for (size_t i = 0; i < ranges.size(); ++i) {
      EXPECT_TRUE(is_range(reader.bytes(i), ranges[i]));
      EXPECT_TRUE(is_range(joined.subspan(at, ranges[i].bytes), ranges[i]));
      at += ranges[i].bytes;
    }
  }
}

TEST(RangeReader, ErrorsNameWhatWasWanted) {
  NotingSource file(1000);
  RangeReader reader;
  const ByteRange ranges[] = {{&file, 0, 10, "first"}, {&file, 990, 20, "second"}};
  const Status status = reader.read(ranges);
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, HasSubstr("tensor first"));
  EXPECT_THAT(status.error().message, HasSubstr("past the end"));
}

}  // namespace
}  // namespace sluice::stream
