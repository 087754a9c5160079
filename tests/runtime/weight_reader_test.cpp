// Reads ahead through a ring that answers in any order, too little, or not at all.
#include "runtime/weight_reader.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>

#include "io/aligned_buffer.h"
#include "support/models.h"

namespace sluice::runtime {
namespace {

constexpr uint64_t kFileBytes = 300'000;

// Reads at once, tells in any order; some come short or fail, and some are not taken.
class MoodyRing : public io::ReadRing {
 public:
  struct Moods {
    uint64_t refused = 0, shortened = 0, failed = 0;  // one of so many; 0: none
  };
  MoodyRing(const Moods& moods, uint64_t seed) : moods_(moods), random_(seed) {}

  bool add(const io::ByteSource& source, uint64_t offset, std::byte* to, size_t bytes,
           uint64_t tag) override {
    EXPECT_EQ(offset % io::kDirectAlignment, 0u);
    EXPECT_EQ(bytes % io::kDirectAlignment, 0u);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(to) % io::kDirectAlignment, 0u);
    if (one_of(moods_.refused)) return false;
    if (one_of(moods_.failed)) {
      ended_.push_back({tag, -EIO});
      return true;
    }
    auto got = static_cast<size_t>(std::min<uint64_t>(bytes, source.size() - offset));
    if (one_of(moods_.shortened)) got /= 2;
    EXPECT_TRUE(source.read_at(offset, {to, got}).has_value());
    ended_.push_back({tag, static_cast<int64_t>(got)});
    return true;
  }
  void start() override { started_ = ended_.size(); }
  std::optional<Ended> next(bool wait) override {
    if (started_ == 0 || (!wait && one_of(2))) return std::nullopt;
    const auto index = static_cast<size_t>(random_.below(started_));
    const Ended found = ended_[index];
    ended_.erase(ended_.begin() + static_cast<ptrdiff_t>(index));
    --started_;
    return found;
  }
  size_t under_way() const override { return ended_.size(); }

 private:
  bool one_of(uint64_t many) { return many > 0 && random_.below(many) == 0; }
  const Moods moods_;
  test::Random random_;
  std::vector<Ended> ended_;
  size_t started_ = 0;
};

std::vector<std::byte> random_bytes(size_t count, uint64_t seed) {
  test::Random random(seed);
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.bits());
  return bytes;
}

struct Fixture {
  std::vector<std::byte> bytes = random_bytes(kFileBytes, 1);
  std::shared_ptr<io::Checkpoint> checkpoint = std::make_shared<io::Checkpoint>();
  Fixture() { checkpoint->files.push_back(io::memory_source("weights", bytes)); }
};

// A buffer for one transfer of any part of the file, placed for whole pages or not.
struct Piece {
  io::AlignedBuffer memory;
  WeightTransfer transfer;
  ReadTicket ticket;
  Piece(uint64_t offset, uint64_t bytes, bool whole_pages) {
    const auto place = memory.place(static_cast<size_t>(bytes), whole_pages ? offset : offset + 1);
    std::ranges::fill(place, std::byte{0});
    transfer.offset = offset;
    transfer.row_bytes = transfer.to_row_bytes = bytes;
    transfer.rows = 1;
    transfer.to = place.data();
    transfer.from = transfer.into = numerics::DType::kU8;
    transfer.whole_pages = whole_pages;
  }
};

void expect_whole(const Fixture& file, const Piece& piece) {
  EXPECT_EQ(std::memcmp(piece.transfer.to, file.bytes.data() + piece.transfer.offset,
                        piece.transfer.bytes()),
            0);
}

TEST(WeightReader, EveryMood) {
  const Fixture file;
  for (const MoodyRing::Moods& moods :
       {MoodyRing::Moods{}, MoodyRing::Moods{3, 0, 0}, MoodyRing::Moods{0, 3, 0},
        MoodyRing::Moods{0, 0, 3}, MoodyRing::Moods{5, 5, 5}})
    for (uint64_t seed = 1; seed <= 20; ++seed) {
      test::Random random(seed);
      WeightReader reader(file.checkpoint, 2, std::make_unique<MoodyRing>(moods, seed));
      std::vector<std::unique_ptr<Piece>> pieces;
      uint64_t total = 0;
      for (int i = 0; i < 40; ++i) {
        const uint64_t offset = random.below(kFileBytes - 1);
        const uint64_t bytes = 1 + random.below(std::min<uint64_t>(40'000, kFileBytes - offset));
        pieces.push_back(std::make_unique<Piece>(offset, bytes, random.below(4) > 0));
        reader.submit({&pieces.back()->transfer, 1}, pieces.back()->ticket);
        total += bytes;
      }
      std::vector<Piece*> left;
      for (const auto& piece : pieces) left.push_back(piece.get());
      while (!left.empty()) {
        std::vector<ReadTicket*> tickets;
        for (Piece* piece : left) tickets.push_back(&piece->ticket);
        reader.wait_any(tickets);
        const size_t before = left.size();
        std::erase_if(left, [&](Piece* piece) {
          if (!reader.ended(piece->ticket)) return false;
          EXPECT_TRUE(reader.wait(piece->ticket).has_value());
          expect_whole(file, *piece);
          return true;
        });
        ASSERT_LT(left.size(), before);
      }
      EXPECT_EQ(reader.bytes_read(), total);
      EXPECT_GT(reader.bytes_fetched(), total);
    }
}

TEST(WeightReader, TellsWhatIsWrong) {
  const Fixture file;
  WeightReader reader(file.checkpoint, 1, std::make_unique<MoodyRing>(MoodyRing::Moods{}, 1));
  Piece good(0, 5000, true), bad(kFileBytes - 100, 5000, true);
  reader.submit({&good.transfer, 1}, good.ticket);
  reader.submit({&bad.transfer, 1}, bad.ticket);
  const Status failed = reader.wait(bad.ticket);
  ASSERT_FALSE(failed.has_value());
  EXPECT_NE(failed.error().message.find("past the end"), std::string::npos);
  EXPECT_TRUE(reader.wait(good.ticket).has_value());
  expect_whole(file, good);
}

TEST(WeightReader, RepeatsWhatWasRecorded) {
  const Fixture file;
  WeightReader reader(file.checkpoint, 2,
                      std::make_unique<MoodyRing>(MoodyRing::Moods{4, 4, 4}, 7));
  Piece first(100, 9000, true), second(20'000, 30'000, true), third(5, 3000, false);
  ReadTrace trace;
  reader.record(&trace);
  reader.submit({&first.transfer, 1}, first.ticket);
  reader.submit({&second.transfer, 1}, second.ticket);
  EXPECT_TRUE(reader.wait(first.ticket).has_value());
  reader.submit({&third.transfer, 1}, third.ticket);
  EXPECT_TRUE(reader.wait(second.ticket).has_value());
  reader.record(nullptr);  // the third is under way
  EXPECT_EQ(trace.events.size(), 5u);
  EXPECT_EQ(trace.bytes, 42'000u);
  for (Piece* piece : {&first, &second, &third}) {
    std::memset(piece->transfer.to, 0, piece->transfer.bytes());
  }
  ASSERT_TRUE(reader.replay(trace).has_value());
  for (Piece* piece : {&first, &second, &third}) expect_whole(file, *piece);
}

}  // namespace
}  // namespace sluice::runtime
