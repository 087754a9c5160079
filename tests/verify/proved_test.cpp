// Proof while converting, for sources that are too far away to be read a third time: the same
// output, a verification that leaves the source alone and still finds what is wrong on disk, and a
// proof that stops what an encoder got wrong before it is written.
#include <gmock/gmock.h>

#include <atomic>

#include "io/fault.h"
#include "support/seed.h"
#include "verify/block_prover.h"
#include "verify/outputs.h"

namespace sluice::verify {
namespace {

using convert::EncodedBlock;
using test::Files;
using test::Job;
using ::testing::HasSubstr;

// What `fit` hands to conversion.
class Proof {
 public:
  Proof(const Job& job, unsigned workers)
      : prover_(*job.checkpoint, job.map, job.plan, workers, test::widest_simd()) {}

  Status operator()(const stream::RowBlock& block, const EncodedBlock& made, unsigned worker) {
    ++blocks;
    return prover_.prove(block, {made.weight, made.scales, made.biases}, worker);
  }

  std::atomic<uint64_t> blocks{0};

 private:
  BlockProver prover_;
};

convert::ConvertOptions proving(Log& log, Proof& proof, unsigned workers = 2) {
  convert::ConvertOptions options = test::convert_options(log, workers);
  options.prove_block = std::ref(proof);
  return options;
}

Result<VerifyReport> verify_proved(const Job& job, const Files& files, unsigned workers = 2) {
  const test::TemporaryFolder folder;
  test::write_files(folder.path(), files);
  VerifyOptions options;
  options.workers = workers;
  options.source_proved = true;
  return verify(*io::local_storage(), *job.checkpoint, folder.path(), options);
}

Files converted_with_proof(const Job& job, Proof& proof, unsigned workers = 2) {
  io::MemoryStorage storage;
  test::make_work_folder(storage);
  NullLog log;
  const auto summary = test::convert_into(storage, job, proving(log, proof, workers));
  EXPECT_TRUE(summary) << (summary ? "" : summary.error().message);
  return test::files_under(storage, test::kOut);
}

TEST(Proved, GivesTheSameOutput) {
  for (const test::ModelBuilder& model :
       {test::tiny_llama({.layers = 1}), test::tiny_moe({.layers = 1}),
        test::tiny_gguf({.layers = 1}), test::tiny_llama({.vocab = 2500, .layers = 1})}) {
    const Job job = test::job_of(model);
    Proof proof(job, 3);
    const Files files = converted_with_proof(job, proof, 3);
    EXPECT_TRUE(files == test::converted(job));
    EXPECT_GE(proof.blocks, job.map.modules.size());
  }
}

TEST(Proved, VerificationLeavesTheSourceAlone) {
  io::FaultInjector reads;
  const Job job = test::job_of(test::tiny_llama({.vocab = 2500}), "", [&](auto source) {
    return io::faulty_source(std::move(source), reads);
  });
  Proof proof(job, 2);
  const Files files = converted_with_proof(job, proof);
  const uint64_t before = reads.operations();
  Result<VerifyReport> report = verify_proved(job, files, 1);
  for (const unsigned workers : {1u, 5u}) {
    report = verify_proved(job, files, workers);
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_TRUE(report->passed()) << test::findings_text(*report);
    EXPECT_FALSE(report->source_read);
  }
  EXPECT_EQ(reads.operations(), before);
  // It says what reading the source says.
  const auto full = test::verify_files(job, files);
  ASSERT_TRUE(full && full->source_read);
  EXPECT_GT(reads.operations(), before);
  EXPECT_EQ(report->reencoded_modules, full->reencoded_modules);
  ASSERT_EQ(report->roles.size(), full->roles.size());
  for (size_t i = 0; i < full->roles.size(); ++i) {
    EXPECT_EQ(report->roles[i].error, full->roles[i].error);
    EXPECT_EQ(report->roles[i].worst_tensor, full->roles[i].worst_tensor);
  }
}

TEST(Proved, AFlippedBitOnDiskIsFound) {
  const Job job = test::job_of(test::tiny_llama({.layers = 1}));
  Proof proof(job, 2);
  const Files good = converted_with_proof(job, proof);
  test::Random random(test::seed(7));
  for (const families::OutputModule& module : job.map.modules) {
    Files files = good;
    const auto bytes = test::tensor_bytes(files, module.tensor_name());
    bytes[random.below(bytes.size())] ^= static_cast<char>(1 << random.below(8));
    const auto report = verify_proved(job, files);
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_THAT(test::findings_text(*report), HasSubstr(module.tensor_name() + ": its digest is"));
  }
}

// Alters one bit of what was encoded before the proof sees it, as a faulty encoder would.
TEST(Proved, AWrongEncodingIsNeverWritten) {
  const Job job = test::job_of(test::tiny_llama({.layers = 1}));
  for (const families::OutputModule& module : job.map.modules) {
    Proof proof(job, 2);
    io::MemoryStorage storage;
    test::make_work_folder(storage);
    NullLog log;
    convert::ConvertOptions options = test::convert_options(log);
    options.prove_block = [&](const stream::RowBlock& block, const EncodedBlock& made,
                              unsigned worker) {
      if (block.module.tensor_name() != module.tensor_name()) return proof(block, made, worker);
      std::vector<std::byte> weight(made.weight.begin(), made.weight.end());
      // Of parity, casts and moves every bit is proved, of best that no group is worse.
      for (std::byte& byte : std::span(weight).first(weight.size() / 2)) byte ^= std::byte{0xff};
      return proof(block, {weight, made.scales, made.biases}, worker);
    };
    const auto summary = test::convert_into(storage, job, options);
    ASSERT_FALSE(summary) << module.tensor_name();
    EXPECT_EQ(summary.error().code, ErrorCode::kCorrupt);
    EXPECT_THAT(summary.error().message, HasSubstr("tensor " + module.tensor_name() +
                                                   " failed its proof while it was converted"));
    EXPECT_FALSE(storage.exists(test::kOut));
  }
}

TEST(Proved, WhatWasMadeWithoutProofIsMadeAnew) {
  const Job job = test::job_of(test::tiny_llama());
  io::MemoryStorage storage;
  test::make_work_folder(storage);
  NullLog log;
  convert::ConvertOptions unproved = test::convert_options(log);
  unproved.bytes_per_checkpoint = 1;
  unproved.before_publishing = [](const std::string&) -> Status {
    return fail(ErrorCode::kCancelled, "just before the end");
  };
  ASSERT_FALSE(test::convert_into(storage, job, unproved));
  Proof first(job, 2);
  convert::ConvertOptions proved = proving(log, first);
  proved.before_publishing = unproved.before_publishing;
  ASSERT_FALSE(test::convert_into(storage, job, proved));
  EXPECT_GE(first.blocks, job.map.modules.size());
  // And what was made with it is kept.
  Proof second(job, 2);
  const auto summary = test::convert_into(storage, job, proving(log, second));
  ASSERT_TRUE(summary) << summary.error().message;
  EXPECT_EQ(summary->modules_resumed, job.map.modules.size());
  EXPECT_EQ(second.blocks, 0u);
  EXPECT_TRUE(test::files_under(storage, test::kOut) == test::converted(job));
}

}  // namespace
}  // namespace sluice::verify
