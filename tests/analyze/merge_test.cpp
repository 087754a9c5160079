// Analysis in parts: joined, it is the file that one process writes.
#include <gmock/gmock.h>

#include "analyze/analyses.h"

namespace sluice::analyze {
namespace {

using test::kFile;
using ::testing::HasSubstr;

Status analyze_some(io::Storage& storage, const test::Subject& subject,
                    std::initializer_list<uint32_t> indices, uint32_t count) {
  for (const uint32_t index : indices) {
    AnalyzeOptions options = test::analyze_options();
    options.part = {index, count};
    SLUICE_TRY(analyze_part(storage, *subject.checkpoint, subject.map, kFile, options));
  }
  return {};
}

class Merge : public ::testing::Test {
 protected:
  Merge() { test::make_work_folder(storage_); }

  io::MemoryStorage storage_;
  const test::Subject subject_ = test::subject_of(test::tiny_moe());
};

TEST_F(Merge, EqualsOneProcessByteForByte) {
  const std::string expected = test::analyzed_text(subject_);
  ASSERT_TRUE(analyze_some(storage_, subject_, {3, 0, 2, 1, 2}, 4));
  const auto merged = merge_analysis(storage_, kFile);
  ASSERT_TRUE(merged.has_value()) << merged.error().message;
  EXPECT_EQ(test::get(storage_, kFile), expected);
  EXPECT_EQ(storage_.files().size(), 1u);
  EXPECT_TRUE(merge_analysis(storage_, kFile).has_value()) << "again";
}

TEST_F(Merge, MorePartsThanModules) {
  const std::string expected = test::analyzed_text(subject_);
  for (uint32_t index = 0; index < 50; ++index)
    ASSERT_TRUE(analyze_some(storage_, subject_, {index}, 50));
  ASSERT_TRUE(merge_analysis(storage_, kFile).has_value());
  EXPECT_EQ(test::get(storage_, kFile), expected);
}

TEST_F(Merge, NamesThePartsThatAreMissing) {
  ASSERT_TRUE(analyze_some(storage_, subject_, {0, 2}, 4));
  const auto merged = merge_analysis(storage_, kFile);
  ASSERT_FALSE(merged.has_value());
  EXPECT_THAT(merged.error().message, HasSubstr("--part 2/4, 4/4"));
  EXPECT_FALSE(storage_.exists(kFile));
}

TEST_F(Merge, APartThatLostItsEndIsUnfinished) {
  ASSERT_TRUE(analyze_some(storage_, subject_, {0, 1}, 2));
  const std::string path = stream::part_path(kFile, {1, 2});
  const std::string text = test::get(storage_, path);
  test::put(storage_, path, text.substr(0, text.size() - 20));
  const auto merged = merge_analysis(storage_, kFile);
  ASSERT_FALSE(merged.has_value());
  EXPECT_THAT(merged.error().message, HasSubstr("--part 2/2"));
  ASSERT_TRUE(analyze_some(storage_, subject_, {1}, 2));
  ASSERT_TRUE(merge_analysis(storage_, kFile).has_value());
  EXPECT_EQ(test::get(storage_, kFile), test::analyzed_text(subject_));
}

TEST_F(Merge, PartsOfDifferentJobsAreNotJoined) {
  test::TinyOptions other;
  other.seed = 2;
  ASSERT_TRUE(analyze_some(storage_, subject_, {0}, 2));
  ASSERT_TRUE(analyze_some(storage_, test::subject_of(test::tiny_llama(other)), {1}, 2));
  const auto merged = merge_analysis(storage_, kFile);
  ASSERT_FALSE(merged.has_value());
  EXPECT_THAT(merged.error().message, HasSubstr("part-2-of-2"));
}

TEST_F(Merge, APartAloneIsNoAnalysis) {
  ASSERT_TRUE(analyze_some(storage_, subject_, {0}, 2));
  const auto source = storage_.open_source(stream::part_path(kFile, {0, 2}));
  const auto loaded = load_analysis(**source);
  ASSERT_FALSE(loaded.has_value());
  EXPECT_THAT(loaded.error().message, HasSubstr("part 1/2"));
  EXPECT_FALSE(merge_analysis(storage_, "work/nothing").has_value());
}

// Whatever operation fails, once or for good, a repeated merge ends with the same file.
TEST_F(Merge, SurvivesAFailureOfEveryOperation) {
  test::TinyOptions tiny;
  tiny.layers = 1;
  const test::Subject subject = test::subject_of(test::tiny_llama(tiny));
  const std::string expected = test::analyzed_text(subject);
  for (const bool persistent : {false, true}) {
    for (uint64_t at = 1;; ++at) {
      io::MemoryStorage storage;
      test::make_work_folder(storage);
      ASSERT_TRUE(analyze_some(storage, subject, {0, 1, 2}, 3));
      io::FaultInjector injector({.at = at, .persistent = persistent, .torn = true});
      const auto faulty = io::faulty_storage(storage, injector);
      const bool merged = merge_analysis(*faulty, kFile).has_value();
      if (!injector.triggered()) {
        EXPECT_TRUE(merged);
        break;
      }
      const auto again = merge_analysis(storage, kFile);
      ASSERT_TRUE(again.has_value()) << "operation " << at << ": " << again.error().message;
      ASSERT_EQ(test::get(storage, kFile), expected) << "operation " << at;
    }
  }
}

}  // namespace
}  // namespace sluice::analyze
