// Digests of pages: whatever is read of the same bytes passes, whatever else does not.
#include "io/page_digests.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "io/fault.h"

namespace sluice::io {
namespace {

using testing::HasSubstr;

std::vector<std::byte> some_bytes(size_t count) {
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>(i * 2654435761u >> 13);
  return bytes;
}

// Sizes around pages and around the pieces that reads are cut into.
const std::vector<size_t> kSizes = {0, 1, 4095, 4096, 4097, 300'000, (1u << 20) + 17};

std::vector<std::shared_ptr<ByteSource>> sources() {
  std::vector<std::shared_ptr<ByteSource>> files;
  for (const size_t size : kSizes)
    files.push_back(memory_source(fmt::format("file {}", size), some_bytes(size)));
  return files;
}

std::shared_ptr<PageDigests> digests_of(PageDigests::Sources files) {
  ThreadPool pool(2);
  NullProgress progress;
  auto taken = PageDigests::take(files, pool, progress);
  SLUICE_CHECK(taken.has_value());
  return std::make_shared<PageDigests>(std::move(*taken));
}

TEST(PageDigests, EveryReadOfTheSameBytesPasses) {
  const auto files = sources();
  const auto digests = digests_of(files);
  for (size_t i = 0; i < files.size(); ++i) {
    const auto verified = verified_source(files[i], digests, i);
    const auto whole = some_bytes(kSizes[i]);
    EXPECT_TRUE(verified->check(0, whole).has_value());
    for (const size_t offset : {size_t{0}, size_t{1}, size_t{4000}, size_t{4096}, size_t{250'001}})
      for (const size_t count : {size_t{0}, size_t{1}, size_t{5000}, size_t{300'000}}) {
        std::vector<std::byte> out(count);
        const Status read = verified->read_at(offset, out);
        ASSERT_EQ(read.has_value(), offset + count <= kSizes[i]) << offset << " " << count;
        if (read) {
          EXPECT_TRUE(
              std::equal(out.begin(), out.end(), whole.begin() + static_cast<ptrdiff_t>(offset)));
        }
      }
  }
}

TEST(PageDigests, EveryFlippedBitIsFound) {
  const auto files = sources();
  const auto digests = digests_of(files);
  for (size_t i = 0; i < files.size(); ++i)
    for (size_t at = 0; at < kSizes[i]; at += 1 + kSizes[i] / 37) {
      auto bytes = some_bytes(kSizes[i]);
      bytes[at] ^= static_cast<std::byte>(1 << at % 8);
      EXPECT_FALSE(digests->check(i, 0, bytes, "x").has_value());
      const auto verified = verified_source(memory_source("weights", bytes), digests, i);
      std::byte one{};
      const Status read = verified->read_at(at, {&one, 1});
      ASSERT_FALSE(read.has_value());
      EXPECT_EQ(read.error().code, ErrorCode::kCorrupt);
      EXPECT_THAT(
          read.error().message,
          HasSubstr(fmt::format("weights: the bytes read at offset {} ", at / 4096 * 4096)));
    }
}

// A read that ends within a page cannot be checked, and does not pass.
TEST(PageDigests, HalfAPageDoesNotPass) {
  const auto files = sources();
  const auto digests = digests_of(files);
  const auto whole = some_bytes(300'000);
  EXPECT_TRUE(digests->check(5, 4096, std::span(whole).subspan(4096, 8192), "x").has_value());
  EXPECT_FALSE(digests->check(5, 4096, std::span(whole).subspan(4096, 8000), "x").has_value());
}

TEST(PageDigests, KeptFilesAreTheSame) {
  const auto files = sources();
  const auto digests = digests_of(files);
  const Digest model = digest_of("a model"), other = digest_of("another");
  MemoryStorage storage;
  ASSERT_TRUE(storage.create_directory("/m").has_value());
  ASSERT_TRUE(digests->save(storage, "/m/pages", files, model).has_value());
  EXPECT_EQ(storage.files(), std::vector<std::string>{"/m/pages"});
  const auto kept = storage.open_source("/m/pages");
  ASSERT_TRUE(kept.has_value());
  EXPECT_EQ((*kept)->size() / 1000, PageDigests::bytes(files) / 1000);
  const auto loaded = PageDigests::load(**kept, files, model);
  ASSERT_TRUE(loaded.has_value()) << loaded.error().message;
  EXPECT_TRUE(loaded->check(5, 0, some_bytes(300'000), "x").has_value());
  const Status failed = loaded->check(5, 0, some_bytes(299'999), "x");
  ASSERT_FALSE(failed.has_value());
  EXPECT_THAT(failed.error().message, HasSubstr("kept in /m/pages"));
  EXPECT_EQ(PageDigests::load(**kept, files, other).error().code, ErrorCode::kNotFound);
  auto fewer = files;
  fewer.pop_back();
  EXPECT_EQ(PageDigests::load(**kept, fewer, model).error().code, ErrorCode::kNotFound);

  std::vector<std::byte> bytes(static_cast<size_t>((*kept)->size()));
  ASSERT_TRUE((*kept)->read_at(0, bytes).has_value());
  for (size_t at = 0; at < bytes.size(); at += 1 + bytes.size() / 97) {
    auto damaged = bytes;
    damaged[at] ^= std::byte{0x10};
    EXPECT_FALSE(PageDigests::load(*memory_source("p", damaged), files, model).has_value()) << at;
  }
  for (const size_t size : {size_t{0}, size_t{15}, size_t{16}, bytes.size() - 1}) {
    const auto part = std::vector(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size));
    EXPECT_FALSE(PageDigests::load(*memory_source("p", part), files, model).has_value()) << size;
  }
}

TEST(PageDigests, ErrorsOfReadingAndWritingArePassedOn) {
  auto files = sources();
  FaultInjector reads({.at = 3});
  for (auto& file : files) file = faulty_source(file, reads);
  ThreadPool pool(2);
  NullProgress progress;
  const auto failed = PageDigests::take(files, pool, progress);
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().code, ErrorCode::kIo);
  const auto good = sources();
  const auto digests = digests_of(good);
  for (uint64_t at = 1;; ++at) {
    MemoryStorage memory;
    ASSERT_TRUE(memory.create_directory("/m").has_value());
    FaultInjector writes({.at = at});
    const auto storage = faulty_storage(memory, writes);
    const Status saved = digests->save(*storage, "/m/pages", good, {});
    if (!writes.triggered()) break;
    if (memory.exists("/m/pages")) continue;  // what failed came after that
    EXPECT_FALSE(saved.has_value()) << at;
  }
}

}  // namespace
}  // namespace sluice::io
