// Outputs with error feedback: converted by a record of activations, proved with that record byte
// for byte and without it by their errors; other records are refused.
#include <gmock/gmock.h>

#include "io/activations.h"
#include "stream/feedback_factors.h"
#include "verify/outputs.h"

namespace sluice::verify {
namespace {

using numerics::Encoder;
using test::Files;
using test::Job;
using ::testing::HasSubstr;

// Made-up moments for all quantized modules but routers and embeddings: experts' own for down_proj.
std::shared_ptr<const io::Activations> made_up_record(const Job& job, uint64_t seed) {
  io::MemoryStorage storage;
  io::ActivationManifest manifest;
  manifest.model = job.checkpoint->identity_digest();
  std::vector<std::vector<io::Moments>> moments;
  test::Random random(seed);
  for (const families::OutputModule& module : job.map.modules) {
    if (!module.quantizable || module.role == families::Role::kRouter ||
        module.role == families::Role::kEmbedding)
      continue;
    const uint64_t columns = module.columns();
    const uint64_t experts = module.role == families::Role::kExpertDown ? module.experts() : 1;
    manifest.inputs.push_back({{module.tensor_name()}, columns, experts});
    auto& parts = moments.emplace_back(experts);
    for (io::Moments& part : parts) {
      part.rows = 50;
      part.values.resize(numerics::triangle_elements(columns));
      for (uint64_t row = 0; row < part.rows; ++row) {
        auto x = random.normals(columns, 1);
        for (uint64_t i = 1; i < columns; ++i) x[i] += x[i - 1];
        for (uint64_t i = 0, at = 0; i < columns; ++i)
          for (uint64_t j = i; j < columns; ++j, ++at) part.values[at] += x[i] * x[j];
      }
    }
  }
  SLUICE_CHECK(io::begin_activations(storage, "record", manifest).has_value());
  for (size_t i = 0; i < moments.size(); ++i)
    SLUICE_CHECK(io::write_moments(storage, "record", manifest, i, moments[i]).has_value());
  return *io::Activations::open(storage, "record");
}

Job with_feedback(Job job, const io::Activations& record) {
  auto plan = allocate::with_feedback(job.plan, record.digest(), [&](const std::string& tensor) {
    return record.find(tensor).has_value();
  });
  SLUICE_CHECK(plan.has_value());
  job.plan = std::move(*plan);
  return job;
}

Files converted_with(const Job& job, std::shared_ptr<const io::Activations> record,
                     unsigned workers = 2) {
  io::MemoryStorage storage;
  test::make_work_folder(storage);
  NullLog log;
  stream::FeedbackFactors feedback(std::move(record));
  convert::ConvertOptions options = test::convert_options(log, workers);
  options.feedback = &feedback;
  const auto summary = test::convert_into(storage, job, options);
  EXPECT_TRUE(summary) << (summary ? "" : summary.error().message);
  return test::files_under(storage, test::kOut);
}

Result<VerifyReport> verify_with(const Job& job, const Files& files,
                                 std::shared_ptr<const io::Activations> record) {
  const test::TemporaryFolder folder;
  test::write_files(folder.path(), files);
  VerifyOptions options;
  options.workers = 2;
  options.activations = std::move(record);
  return verify(*io::local_storage(), *job.checkpoint, folder.path(), options);
}

size_t feedback_modules(const Job& job) {
  return std::ranges::count(job.plan.data().tensors, Encoder::kFeedback,
                            &allocate::PlannedTensor::encoder);
}

TEST(FeedbackOutput, PassesWithItsRecordAndWithout) {
  for (const test::ModelBuilder& model :
       {test::tiny_llama({.layers = 1}), test::tiny_moe({.layers = 1}),
        test::tiny_llama({.dtype = numerics::DType::kF32, .layers = 1})}) {
    const Job plain = test::job_of(model);
    const auto record = made_up_record(plain, 1);
    const Job job = with_feedback(plain, *record);
    ASSERT_GT(feedback_modules(job), 0u);
    const Files files = converted_with(job, record);
    EXPECT_THAT(files.at("sluice.json"), HasSubstr("\"encoder\": \"feedback\""));
    const auto alone = test::verify_files(job, files);
    ASSERT_TRUE(alone) << alone.error().message;
    EXPECT_TRUE(alone->passed()) << test::findings_text(*alone);
    const auto proved = verify_with(job, files, record);
    ASSERT_TRUE(proved) << proved.error().message;
    EXPECT_TRUE(proved->passed()) << test::findings_text(*proved);
    EXPECT_EQ(proved->reencoded_modules, alone->reencoded_modules + feedback_modules(job));
  }
}

TEST(FeedbackOutput, DoesNotDependOnThreads) {
  const Job plain = test::job_of(test::tiny_moe({.layers = 1}));
  const auto record = made_up_record(plain, 2);
  const Job job = with_feedback(plain, *record);
  EXPECT_TRUE(converted_with(job, record, 1) == converted_with(job, record, 5));
}

// Even where the digests of what lies there have been forged.
TEST(FeedbackOutput, OtherCodesAreFoundWithTheRecord) {
  const Job plain = test::job_of(test::tiny_llama({.layers = 1}));
  const auto record = made_up_record(plain, 3);
  const Job job = with_feedback(plain, *record);
  const Files good = converted_with(job, record);
  for (const allocate::PlannedTensor& tensor : job.plan.data().tensors) {
    if (tensor.encoder != Encoder::kFeedback) continue;
    Files files = good;
    test::tensor_bytes(files, tensor.tensor_name())[5] ^= 1;
    test::forge_digests(files, tensor.tensor_name());
    const auto report = verify_with(job, files, record);
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_THAT(test::findings_text(*report), HasSubstr("differs from the source encoded anew"));
    // Without it, the error that was recorded is no longer what is found.
    const auto alone = test::verify_files(job, files);
    ASSERT_TRUE(alone);
    EXPECT_THAT(test::findings_text(*alone), HasSubstr("its squared error is"));
  }
}

TEST(FeedbackOutput, AnotherRecordIsRefused) {
  const Job plain = test::job_of(test::tiny_llama({.layers = 1}));
  const auto record = made_up_record(plain, 4), other = made_up_record(plain, 5);
  const Job job = with_feedback(plain, *record);
  const Files files = converted_with(job, record);
  const auto report = verify_with(job, files, other);
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(report.error().message, HasSubstr("was not made with the activations"));
  io::MemoryStorage storage;
  test::make_work_folder(storage);
  NullLog log;
  convert::ConvertOptions options = test::convert_options(log);
  const auto without = test::convert_into(storage, job, options);
  ASSERT_FALSE(without);
  EXPECT_THAT(without.error().message, HasSubstr("name their folder"));
  stream::FeedbackFactors feedback(other);
  options.feedback = &feedback;
  const auto wrong = test::convert_into(storage, job, options);
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(wrong.error().message, HasSubstr("holds other activations"));
}

}  // namespace
}  // namespace sluice::verify
