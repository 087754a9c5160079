// Conversion in parts: published by merge, it is the folder that one process writes.
#include "convert/parts.h"

#include <gmock/gmock.h>

#include "convert/conversions.h"

namespace sluice::convert {
namespace {

using test::Files;
using test::Job;
using test::kOut;
using ::testing::HasSubstr;

constexpr uint32_t kParts = 3;

class Parts : public ::testing::Test {
 protected:
  Parts() { test::make_work_folder(storage_); }

  Status convert_part(io::Storage& storage, uint32_t index, uint32_t count = kParts) {
    ConvertOptions options = test::convert_options(log_);
    options.part = {index, count};
    options.bytes_per_checkpoint = 1;
    SLUICE_TRY(test::convert_into(storage, job_, options));
    return {};
  }
  Result<ConvertSummary> merge_all(io::Storage& storage) {
    SLUICE_ASSIGN(const PartsJob job, read_parts_job(storage, kOut));
    return merge(storage, *job_.checkpoint, job_.map, job.plan, job.parts, kOut,
                 test::convert_options(log_));
  }

  test::CollectingLog log_;
  io::MemoryStorage storage_;
  const Job job_ = test::job_of(test::tiny_llama());
  const Files expected_ = test::converted(job_);
};

TEST_F(Parts, EqualOneProcessByteForByte) {
  for (const uint32_t index : {2u, 0u, 1u, 0u}) ASSERT_TRUE(convert_part(storage_, index));
  const auto summary = merge_all(storage_);
  ASSERT_TRUE(summary.has_value()) << summary.error().message;
  EXPECT_EQ(test::files_under(storage_, kOut), expected_);
  EXPECT_EQ(storage_.files().size(), expected_.size()) << "nothing is left beside the output";
}

TEST_F(Parts, MissingAndDamagedOnesAreNamed) {
  ASSERT_TRUE(convert_part(storage_, 0));
  ASSERT_TRUE(convert_part(storage_, 2));
  const auto missing = merge_all(storage_);
  ASSERT_FALSE(missing.has_value());
  EXPECT_THAT(missing.error().message, HasSubstr("--part 2/3"));
  ASSERT_TRUE(convert_part(storage_, 1));

  // The last tensor's last byte is part 3's.
  const std::string shard = partial_path(kOut) + "/model.safetensors";
  const uint64_t size = (*storage_.open_source(shard))->size();
  const std::byte wrong[] = {std::byte{0xa5}};
  ASSERT_TRUE((*storage_.open(shard, io::OpenMode::kCreateOrOpen))->write_at(size - 1, wrong));
  const auto damaged = merge_all(storage_);
  ASSERT_FALSE(damaged.has_value());
  EXPECT_THAT(damaged.error().message, HasSubstr("--part 3/3"));
  EXPECT_FALSE(storage_.exists(kOut));
}

TEST_F(Parts, OneProcessAndPartsDoNotMix) {
  ASSERT_TRUE(convert_part(storage_, 0));
  const auto whole = test::convert_into(storage_, job_, test::convert_options(log_));
  ASSERT_FALSE(whole.has_value());
  EXPECT_THAT(whole.error().message, HasSubstr("begun in parts"));
  const auto other_count = convert_part(storage_, 0, 2);
  ASSERT_FALSE(other_count.has_value());
  EXPECT_THAT(other_count.error().message, HasSubstr("begun in 3 parts, not in 2"));
  const Job other = [&] {
    Job job = job_;
    allocate::PlanData data = job.plan.data();
    data.budget_bytes += 1;
    job.plan = *allocate::Plan::create(std::move(data));
    return job;
  }();
  ConvertOptions options = test::convert_options(log_);
  options.part = {1, kParts};
  const auto other_plan = test::convert_into(storage_, other, options);
  ASSERT_FALSE(other_plan.has_value());
  EXPECT_THAT(other_plan.error().message, HasSubstr("another plan"));
}

// Every operation of one part and of the merge fails, once or for good; what is run again ends with
// the same bytes.
TEST_F(Parts, SurviveAFailureOfEveryOperation) {
  for (const bool persistent : {false, true}) {
    for (uint64_t at = 1;; ++at) {
      io::MemoryStorage storage;
      test::make_work_folder(storage);
      ASSERT_TRUE(convert_part(storage, 0));
      ASSERT_TRUE(convert_part(storage, 1));
      io::FaultInjector injector({.at = at, .persistent = persistent, .torn = true});
      {
        const auto faulty = io::faulty_storage(storage, injector);
        if (convert_part(*faulty, 2)) (void)merge_all(*faulty);
      }
      if (!storage.exists(kOut)) {
        const auto repeated = convert_part(storage, 2);
        // A merge that began has its own journal and needs no part any more.
        ASSERT_TRUE(repeated.has_value() || storage.exists(journal_path(kOut)))
            << "operation " << at << ": " << repeated.error().message;
      }
      if (storage.exists(parts_path(kOut))) {
        const auto merged = merge_all(storage);
        ASSERT_TRUE(merged.has_value()) << "operation " << at << ": " << merged.error().message;
      }
      ASSERT_EQ(test::files_under(storage, kOut), expected_) << "operation " << at;
      ASSERT_EQ(storage.files().size(), expected_.size()) << "operation " << at;
      if (!injector.triggered()) break;
    }
  }
}

}  // namespace
}  // namespace sluice::convert
