// Files read past the page cache and through it: the same bytes at every offset, length and
// address, whatever the file system allows; and any number of files with few descriptors.
#include "io/byte_source.h"

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <filesystem>
#include <random>

#include "build_files.h"
#include "io/aligned_buffer.h"
#include "io/descriptor_cache.h"

namespace sluice::io {
namespace {

using testing::TemporaryFolder;

constexpr DirectReads kAlways = {.file_bytes_min = 0, .read_bytes_min = 1};

std::string random_text(size_t bytes) {
  std::mt19937 random(7);
  std::string text(bytes, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void expect_reads(const ByteSource& source, std::string_view text, uint64_t offset, size_t bytes) {
  SCOPED_TRACE(fmt::format("{} bytes at {}", bytes, offset));
  const std::string_view expected = text.substr(offset, bytes);
  AlignedBuffer buffer;
  const auto in_place = buffer.place(bytes, offset);
  ASSERT_TRUE(source.read_at(offset, in_place));
  EXPECT_EQ(text_of(in_place), expected);
  const auto elsewhere = buffer.place(bytes, offset + 13);
  ASSERT_TRUE(source.read_at(offset, elsewhere));
  EXPECT_EQ(text_of(elsewhere), expected);
}

TEST(ByteSource, ReadsInsideOnly) {
  const TemporaryFolder folder;
  folder.write("f", "0123456789");
  for (const auto& source :
       {*open_file_source(folder.file("f")), testing::source_of("0123456789")}) {
    EXPECT_EQ(source->size(), 10u);
    char out[4] = {};
    ASSERT_TRUE(source->read_at(6, std::as_writable_bytes(std::span(out))));
    EXPECT_EQ(std::string_view(out, 4), "6789");
    EXPECT_TRUE(source->read_at(10, {}));
    for (const uint64_t offset : {uint64_t{7}, uint64_t{11}, uint64_t{1} << 63, UINT64_MAX}) {
      const auto status = source->read_at(offset, std::as_writable_bytes(std::span(out)));
      ASSERT_FALSE(status);
      EXPECT_EQ(status.error().code, ErrorCode::kCorrupt);
      EXPECT_THAT(status.error().message, ::testing::HasSubstr(std::to_string(offset)));
    }
    EXPECT_EQ(*read_text(*source, 10), "0123456789");
    EXPECT_FALSE(read_text(*source, 9));
  }
}

TEST(ByteSource, AFileThatShrinksIsCorrupt) {
  const TemporaryFolder folder;
  folder.write("f", "0123456789");
  const auto source = *open_file_source(folder.file("f"));
  folder.write("f", "01");
  char out[4];
  const auto status = source->read_at(0, std::as_writable_bytes(std::span(out)));
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kCorrupt);
}

// On the file system of the tests and, where there is one, on one in memory.
class DirectReadTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (*GetParam() != 0 && !std::filesystem::is_directory(GetParam()))
      GTEST_SKIP() << "no " << GetParam();
  }
};

TEST_P(DirectReadTest, DirectReadsGiveTheSameBytes) {
  const TemporaryFolder folder(GetParam());
  const std::string text = random_text(5 * kDirectAlignment + 123);
  folder.write("f", text);
  const auto source = *open_file_source(folder.file("f"), nullptr, kAlways);
  const uint64_t edges[] = {0, 1, 511, 512, 4095, 4096, 4097, 8191, 8192, 12345, 20480, 20602};
  for (const uint64_t begin : edges)
    for (const uint64_t end : edges)
      if (begin <= end) expect_reads(*source, text, begin, end - begin);
  expect_reads(*source, text, 0, text.size());
  expect_reads(*source, text, 20000, text.size() - 20000);
  const auto past = source->read_at(text.size() - 1, AlignedBuffer().place(2, 0));
  ASSERT_FALSE(past);
  EXPECT_EQ(past.error().code, ErrorCode::kCorrupt);
}

TEST_P(DirectReadTest, LargeReadsIntoAnyMemory) {
  const TemporaryFolder folder(GetParam());
  const std::string text = random_text((1 << 20) + 4321);
  folder.write("f", text);
  const auto source = *open_file_source(folder.file("f"), nullptr, kAlways);
  expect_reads(*source, text, 4000, (1 << 20) - 1000);
}

TEST_P(DirectReadTest, AFileThatShrinksIsAnErrorNotAWait) {
  const TemporaryFolder folder(GetParam());
  folder.write("f", random_text(3 * kDirectAlignment));
  const auto source = *open_file_source(folder.file("f"), nullptr, kAlways);
  AlignedBuffer buffer;
  ASSERT_TRUE(source->read_at(0, buffer.place(100, 0)));
  std::filesystem::resize_file(folder.file("f"), kDirectAlignment + 5);
  const auto status = source->read_at(4000, buffer.place(6000, 4000));
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kCorrupt);
}

// Kernels without direct reads in memory file systems fall back; both ways end in these tests.
INSTANTIATE_TEST_SUITE_P(FileSystems, DirectReadTest, ::testing::Values("", "/dev/shm"),
                         [](const auto& test) { return test.index == 0 ? "Disk" : "Memory"; });

// sysfs refuses direct reads when the file is opened.
TEST(DirectRead, FallsBackWhereTheFileSystemRefuses) {
  const std::string path = "/sys/kernel/btf/vmlinux";
  const auto plain = open_file_source(path);
  if (!plain) GTEST_SKIP() << plain.error().message;
  std::vector<std::byte> expected((*plain)->size());
  ASSERT_TRUE((*plain)->read_at(0, expected));
  const auto source = *open_file_source(path, nullptr, kAlways);
  AlignedBuffer buffer;
  for (int round = 0; round < 2; ++round) {
    const auto found = buffer.place(100'000, 5000);
    ASSERT_TRUE(source->read_at(5000, found));
    EXPECT_TRUE(std::ranges::equal(found, std::span(expected).subspan(5000, 100'000)));
  }
}

TEST(DirectRead, KeptPagesGiveTheSameBytes) {
  const TemporaryFolder folder;
  const std::string text = random_text(3 * kDirectAlignment + 5);
  folder.write("f", text);
  const auto cache = std::make_shared<DescriptorCache>();
  const auto source = *open_file_source(folder.file("f"), cache, kAlways);
  expect_reads(*source, text, 100, 8000);
  cache->set_pages(DescriptorCache::Pages::kKept);
  expect_reads(*source, text, 100, 8000);
  expect_reads(*source, text, 0, text.size());
}

TEST(AlignedBuffer, AddressFollowsTheOffset) {
  AlignedBuffer buffer;
  for (const uint64_t offset : {0ull, 1ull, 4095ull, 4096ull, 123456789ull})
    for (const size_t bytes : {1u, 4096u, 100'000u}) {
      const auto span = buffer.place(bytes, offset);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(span.data()) % kDirectAlignment,
                offset % kDirectAlignment);
      std::ranges::fill(span, std::byte{1});
    }
}

TEST(DescriptorCache, AThousandFilesWithFewDescriptors) {
  const TemporaryFolder folder;
  const auto cache = std::make_shared<DescriptorCache>(8);
  rlimit old;
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &old), 0);
  const rlimit small = {32, old.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &small), 0);
  std::vector<std::shared_ptr<ByteSource>> sources;
  for (int i = 0; i < 1000; ++i) {
    const std::string path = folder.file(fmt::format("f{}", i));
    folder.write(fmt::format("f{}", i), fmt::format("{:04}", i));
    auto source = open_file_source(path, cache, kAlways);
    if (!source) break;
    sources.push_back(std::move(*source));
  }
  std::string wrong;
  for (int round = 0; round < 2; ++round)
    for (size_t i = 0; i < sources.size(); ++i)
      if (const auto text = read_text(*sources[i], 4); !text || *text != fmt::format("{:04}", i))
        wrong = text ? *text : text.error().message;
  ::setrlimit(RLIMIT_NOFILE, &old);
  EXPECT_EQ(sources.size(), 1000u);
  EXPECT_EQ(wrong, "");
}

TEST(DescriptorCache, AFileThatWasReplacedIsNoticedWhenItIsOpenedAgain) {
  const TemporaryFolder folder;
  const auto cache = std::make_shared<DescriptorCache>(1);
  folder.write("a", "first");
  folder.write("b", "other");
  const auto a = *open_file_source(folder.file("a"), cache);
  const auto b = *open_file_source(folder.file("b"), cache);
  EXPECT_EQ(*read_text(*a, 5), "first");
  EXPECT_EQ(*read_text(*b, 5), "other");  // a is closed now
  std::filesystem::rename(folder.file("b"), folder.file("a"));
  const auto text = read_text(*a, 5);
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(text.error().message, ::testing::HasSubstr("replaced"));
}

TEST(DescriptorCache, AtMostItsCapacityStaysOpen) {
  const TemporaryFolder folder;
  folder.write("f", "x");
  DescriptorCache cache(2);
  std::vector<std::weak_ptr<const FileDescriptor>> opened;
  for (uint64_t key = 0; key < 3; ++key)
    opened.push_back(*cache.get(key, [&] { return open_descriptor(folder.file("f"), 0); }));
  EXPECT_TRUE(opened[0].expired());
  EXPECT_FALSE(opened[1].expired());
  int calls = 0;
  const auto count = [&] {
    ++calls;
    return open_descriptor(folder.file("f"), 0);
  };
  ASSERT_TRUE(cache.get(1, count));  // now the latest
  EXPECT_EQ(calls, 0);
  ASSERT_TRUE(cache.get(4, count));
  EXPECT_TRUE(opened[2].expired());
  cache.forget(1);
  EXPECT_TRUE(opened[1].expired());
  EXPECT_FALSE(cache.get(5, [] { return open_descriptor("/nowhere/at/all", 0); }));
}

}  // namespace
}  // namespace sluice::io
