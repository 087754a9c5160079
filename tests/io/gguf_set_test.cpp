// Split models: every way of naming them opens the same tensors, and every way in which parts do
// not belong together is an error that names the file.
#include "io/gguf_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "build_files.h"

namespace sluice::io {
namespace {

using testing::GgufBuilder;
using ::testing::HasSubstr;
using testing::little_endian;
using testing::TemporaryFolder;

std::string part_file(uint64_t number, uint64_t count) {
  return fmt::format("m-{:05}-of-{:05}.gguf", number, count);
}

// Part `index` of three: one tensor each, metadata in the first.
GgufBuilder part(uint32_t index) {
  GgufBuilder file;
  file.raw("split.no", 2, little_endian(static_cast<uint16_t>(index)))
      .raw("split.count", 2, little_endian(uint16_t{3}))
      .raw("split.tensors.count", 5, little_endian(int32_t{3}))
      .text("general.architecture", "llama");
  if (index == 0) file.u32("llama.block_count", 2);
  file.tensor("t" + std::to_string(index), {64, 2}, 2, 0);
  file.data = std::string(72, static_cast<char>('a' + index));
  return file;
}

void write_parts(const TemporaryFolder& folder) {
  for (uint32_t i = 0; i < 3; ++i) folder.write(part_file(i + 1, 3), part(i).build());
}

TEST(GgufSetTest, AnyPartOpensTheWholeModel) {
  const TemporaryFolder folder;
  write_parts(folder);
  for (uint64_t opened = 1; opened <= 3; ++opened) {
    const auto set = open_gguf_set(folder.file(part_file(opened, 3)));
    ASSERT_TRUE(set) << set.error().message;
    ASSERT_EQ(set->files.size(), 3u);
    EXPECT_EQ(set->names[2], part_file(3, 3));
    EXPECT_NE(set->digests[0], set->digests[1]);
    EXPECT_NE(set->header.find("llama.block_count"), nullptr);
    ASSERT_EQ(set->header.tensors.size(), 3u);
    for (uint32_t i = 0; i < 3; ++i) {
      const StoredTensor& tensor = set->header.tensors[i];
      EXPECT_EQ(tensor.info.name, "t" + std::to_string(i));
      ASSERT_EQ(tensor.file, i);
      std::byte first;
      ASSERT_TRUE(set->files[i]->read_at(tensor.offset, {&first, 1}));
      EXPECT_EQ(std::to_integer<char>(first), static_cast<char>('a' + i));
    }
  }
}

struct Damage {
  const char* what;
  uint32_t index;  // which part is replaced
  std::function<GgufBuilder()> file;
  const char* expected;
};

TEST(GgufSetTest, PartsThatDoNotBelongTogether) {
  const auto with_split = [](uint16_t no, uint16_t count) {
    GgufBuilder file;
    file.raw("split.no", 2, little_endian(no)).raw("split.count", 2, little_endian(count));
    return file.tensor("t", {1}, 0, 0), file.data = "1234", file;
  };
  const Damage cases[] = {
      {"another count", 1, [&] { return with_split(1, 4); }, "its header says part 2 of 4"},
      {"another number", 1, [&] { return with_split(2, 3); }, "its header says part 3 of 3"},
      {"a first part twice", 2, [] { return part(0); }, "its header says part 1 of 3"},
      {"a file of its own", 1, [&] { return with_split(0, 1); }, "its header says part 1 of 1"},
      {"another architecture", 1,
       [] {
         GgufBuilder file;
         file.u32("split.no", 1).u32("split.count", 3).text("general.architecture", "qwen2");
         return file.tensor("t1", {1}, 0, 0), file.data = "1234", file;
       },
       "general.architecture\" has another value"},
      {"another number of tensors", 1,
       [] {
         GgufBuilder file;
         file.u32("split.no", 1).u32("split.count", 3).u32("split.tensors.count", 4);
         return file.tensor("t1", {1}, 0, 0), file.data = "1234", file;
       },
       "says that the model has 4 tensors"},
      {"not GGUF", 1,
       [] {
         GgufBuilder file;
         return file.magic = 1, file;
       },
       "does not begin with"},
  };
  for (const Damage& damage : cases) {
    SCOPED_TRACE(damage.what);
    const TemporaryFolder folder;
    write_parts(folder);
    const std::string name = part_file(damage.index + 1, 3);
    folder.write(name, damage.file().build());
    const auto set = open_gguf_set(folder.file(part_file(1, 3)));
    ASSERT_FALSE(set);
    EXPECT_EQ(set.error().code, ErrorCode::kCorrupt);
    EXPECT_THAT(set.error().message, HasSubstr(name));
    EXPECT_THAT(set.error().message, HasSubstr(damage.expected));
  }
}

TEST(GgufSetTest, MissingPartIsNamed) {
  for (uint64_t missing = 1; missing <= 3; ++missing) {
    const TemporaryFolder folder;
    write_parts(folder);
    std::filesystem::remove(folder.file(part_file(missing, 3)));
    const auto set = open_gguf_set(folder.file(part_file(missing == 1 ? 2 : 1, 3)));
    ASSERT_FALSE(set);
    EXPECT_EQ(set.error().code, ErrorCode::kNotFound);
    EXPECT_THAT(set.error().message, HasSubstr(part_file(missing, 3)));
  }
}

TEST(GgufSetTest, NameMustAgreeWithTheHeader) {
  for (const char* name : {"renamed.gguf", "m-00002-of-00003.gguf", "m-00001-of-00004.gguf",
                           "m-1-of-3.gguf", "-00001-of-00003.gguf"}) {
    const TemporaryFolder folder;
    folder.write(name, part(0).build());
    const auto set = open_gguf_set(folder.file(name));
    ASSERT_FALSE(set) << name;
    EXPECT_EQ(set.error().code, ErrorCode::kCorrupt) << name;
    EXPECT_THAT(set.error().message, HasSubstr("-00001-of-00003.gguf")) << name;
  }
}

TEST(GgufSetTest, TensorsMustAddUp) {
  const TemporaryFolder folder;
  write_parts(folder);
  GgufBuilder two = part(2);
  folder.write(part_file(3, 3), two.tensor("extra", {0}, 0, 0).build());
  const auto set = open_gguf_set(folder.file(part_file(1, 3)));
  ASSERT_FALSE(set);
  EXPECT_EQ(set.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(set.error().message, HasSubstr("4 tensors, split.tensors.count says 3"));
}

TEST(GgufSetTest, FindsTheOneModelOfAFolder) {
  using Names = std::vector<std::string>;
  const auto find = [](const Names& names) { return find_gguf_model("folder", names); };
  EXPECT_EQ(find({"README.md"}).value(), std::nullopt);
  EXPECT_EQ(find({"a.gguf", "b.txt"}).value(), "a.gguf");
  EXPECT_EQ(find({part_file(1, 2), part_file(2, 2)}).value(), part_file(1, 2));
  for (const Names& several : {Names{"a.gguf", "b.gguf"}, Names{part_file(1, 2), "mmproj.gguf"},
                               Names{part_file(1, 2), part_file(1, 3)},
                               Names{"a-00001-of-00002.gguf", "b-00002-of-00002.gguf"}}) {
    const auto found = find(several);
    ASSERT_FALSE(found);
    EXPECT_EQ(found.error().code, ErrorCode::kUnsupported);
    EXPECT_THAT(found.error().message, HasSubstr(several[1]));
  }
}

}  // namespace
}  // namespace sluice::io
