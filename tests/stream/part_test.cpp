// Shares of a job: every module in exactly one, whatever their number.
#include "stream/part.h"

#include <gmock/gmock.h>

#include "stream/stream.h"
#include "support/models.h"

namespace sluice::stream {
namespace {

using ::testing::HasSubstr;

TEST(Part, TextIsCountedFromOne) {
  EXPECT_EQ(part_text({0, 1}), "1/1");
  EXPECT_EQ(part_text({1, 4}), "2/4");
  EXPECT_EQ(*parse_part("2/4"), (Part{1, 4}));
  EXPECT_EQ(*parse_part("4096/4096"), (Part{4095, 4096}));
  for (const char* text : {"", "2", "/", "0/4", "5/4", "1/0", "-1/4", "1/4 ", " 1/4", "1/4097",
                           "1/99999999999", "1/2/3", "a/b", "1.0/4"})
    EXPECT_FALSE(parse_part(text).has_value()) << text;
}

TEST(Part, RecordsOfAWholeJobSayNothing) {
  Json record = Json::object();
  part_to_json({}, record);
  EXPECT_TRUE(record.empty());
  EXPECT_EQ(*part_from_json(record, "file"), Part{});
  part_to_json({2, 3}, record);
  EXPECT_EQ(*part_from_json(record, "file"), (Part{2, 3}));
  record["part"] = "4/3";
  EXPECT_FALSE(part_from_json(record, "file").has_value());
}

TEST(Part, FilesAreCountedByTheirNames) {
  io::MemoryStorage storage;
  test::make_work_folder(storage);
  const auto touch = [&](const std::string& path) {
    ASSERT_TRUE(storage.open(path, io::OpenMode::kCreateNew).has_value());
  };
  EXPECT_EQ(*count_parts(storage, "work/a"), 0u);
  touch("work/a");
  touch("work/ab.part-1-of-2");
  touch("work/a.part-x-of-2");
  touch("work/a.part-1-of-3.tmp");
  EXPECT_EQ(*count_parts(storage, "work/a"), 0u);
  touch(part_path("work/a", {4, 7}));
  EXPECT_EQ(*count_parts(storage, "work/a"), 7u);
  touch(part_path("work/a", {0, 2}));
  const auto mixed = count_parts(storage, "work/a");
  ASSERT_FALSE(mixed.has_value());
  EXPECT_THAT(mixed.error().message, HasSubstr("2 parts"));
}

TEST(Part, EveryModuleIsInExactlyOnePart) {
  test::TinyOptions tiny;
  tiny.layers = 5;
  const auto checkpoint = test::tiny_moe(tiny).build();
  const auto map = test::map_of(*checkpoint);
  std::vector<uint32_t> all(map.modules.size());
  for (uint32_t i = 0; i < all.size(); ++i) all[i] = i;
  for (const uint32_t count : {1u, 2u, 3u, 4u, 7u, 16u, 100u, 4096u}) {
    std::vector<uint32_t> joined;
    uint64_t largest_part = 0, largest_module = 0;
    for (uint32_t index = 0; index < count; ++index) {
      const auto part = modules_of_part(*checkpoint, map, all, {index, count});
      joined.insert(joined.end(), part.begin(), part.end());
      largest_part = std::max(largest_part, source_bytes(*checkpoint, map, part));
    }
    EXPECT_EQ(joined, all) << count;
    for (const uint32_t module : all)
      largest_module = std::max(largest_module, source_bytes(*checkpoint, map, {&module, 1}));
    EXPECT_LE(largest_part, source_bytes(*checkpoint, map, all) / count + largest_module + 1);
  }
}

TEST(Part, ModulesWithoutBytesAreSomebodys) {
  const auto checkpoint = test::ModelBuilder(Json::object())
                              .add("a", numerics::DType::kF32, {0, 4}, {})
                              .add("b", numerics::DType::kF32, {0, 4}, {})
                              .build();
  const auto map = test::plain_map(*checkpoint, numerics::DType::kF32);
  const uint32_t all[] = {0, 1};
  EXPECT_EQ(modules_of_part(*checkpoint, map, all, {0, 3}).size(), 2u);
  EXPECT_TRUE(modules_of_part(*checkpoint, map, all, {2, 3}).empty());
}

TEST(Part, IncompleteOnesAreListed) {
  EXPECT_TRUE(all_complete("x", {}).has_value());
  const Part parts[] = {{1, 4}, {3, 4}};
  const auto status = all_complete("x", parts);
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().message,
            "x: not all parts are complete; run again with --part 2/4, 4/4");
}

}  // namespace
}  // namespace sluice::stream
