// Conversion: the bytes of every encoder against the scalar reference, the same on any number of
// threads and any instruction set, and what it refuses.
#include "convert/convert.h"

#include <gmock/gmock.h>

#include "base/digest.h"
#include "convert/conversions.h"
#include "io/safetensors.h"
#include "numerics/block_codec.h"
#include "stream/output_layout.h"

namespace sluice::convert {
namespace {

using numerics::DType;
using numerics::Encoder;
using numerics::QuantMode;
using test::Files;
using test::Job;
using test::kOut;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

// Rows of a module straight from the checkpoint, in output order.
std::vector<std::byte> stored_rows(const Job& job, const families::OutputModule& module) {
  std::vector<families::RowRun> runs;
  append_row_runs(module.recipe, 0, module.rows(), runs);
  std::vector<std::byte> rows;
  for (const families::RowRun& run : runs) {
    const io::StoredTensor& tensor = job.checkpoint->tensors[run.tensor];
    const uint64_t columns[] = {module.columns()};
    const uint64_t row_bytes = *numerics::tensor_bytes(tensor.info.dtype, columns);
    std::vector<std::byte> part(run.rows * row_bytes);
    EXPECT_TRUE(
        job.checkpoint->files[0]->read_at(tensor.offset + run.source_row * row_bytes, part));
    rows.insert(rows.end(), part.begin(), part.end());
  }
  return rows;
}

struct Encoded {
  std::vector<std::byte> weight, scales, biases;
};

// The reference: one row after another with the scalar encoders of numerics.
Encoded expected_encoding(const Job& job, const families::OutputModule& module) {
  const allocate::PlannedTensor& planned = *job.plan.find(module.tensor_name());
  const DType source = job.checkpoint->tensors[module.recipe.sources[0].tensor].info.dtype;
  const std::vector<std::byte> stored = stored_rows(job, module);
  std::vector<float> values(module.elements());
  numerics::decode_elements(source, stored, values);
  Encoded out;
  if (planned.format.mode == QuantMode::kFloat) {
    const DType plain = stream::plain_dtype(*job.checkpoint, job.map, module);
    out.weight.resize(values.size() * dtype_info(plain).block_bytes);
    numerics::encode_elements(plain, values, out.weight);
    return out;
  }
  if (planned.encoder != Encoder::kLossless) {
    std::vector<std::byte> rounded(values.size() * dtype_info(job.map.dtype).block_bytes);
    numerics::encode_elements(job.map.dtype, values, rounded);
    numerics::decode_elements(job.map.dtype, rounded, values);
  }
  const auto all = numerics::encoded_bytes(planned.format, module.shape, job.map.dtype);
  out.weight.resize(all.weight);
  out.scales.resize(all.scales);
  out.biases.resize(all.biases);
  const uint64_t rows = module.rows(), columns = module.columns();
  const auto row_of = [&](auto& bytes, uint64_t r) {
    return std::span(bytes).subspan(r * (bytes.size() / rows), bytes.size() / rows);
  };
  for (uint64_t r = 0; r < rows; ++r) {
    const numerics::AffineRow row{row_of(out.weight, r), row_of(out.scales, r),
                                  row_of(out.biases, r)};
    const auto source_row = std::span<const float>(values).subspan(r * columns, columns);
    if (planned.encoder == Encoder::kLossless)
      EXPECT_TRUE(numerics::move_lossless(source, row_of(stored, r), row));
    else if (planned.encoder == Encoder::kBest)
      numerics::encode_affine_best(source_row, planned.format, job.map.dtype, row);
    else
      numerics::encode_affine_parity(
          source_row, planned.format, job.map.dtype,
          job.plan.data().parity == "gpu" ? numerics::ParityRule::kGpu : numerics::ParityRule::kCpu,
          row);
  }
  return out;
}

// Every tensor of the output holds what the reference gives.
void check_against_reference(const Job& job, const Files& files) {
  const auto source = io::memory_source("m", bytes_of(files.at("model.safetensors")));
  const auto header = io::read_safetensors_header(*source, 0);
  ASSERT_TRUE(header) << header.error().message;
  std::map<std::string, std::vector<std::byte>> tensors;
  for (const io::StoredTensor& tensor : header->tensors) {
    std::vector<std::byte> bytes(tensor.bytes);
    ASSERT_TRUE(source->read_at(tensor.offset, bytes));
    tensors[tensor.info.name] = std::move(bytes);
  }
  size_t expected_tensors = 0;
  for (const families::OutputModule& module : job.map.modules) {
    SCOPED_TRACE(module.tensor_name());
    const Encoded expected = expected_encoding(job, module);
    EXPECT_TRUE(tensors.at(module.tensor_name()) == expected.weight);
    ++expected_tensors;
    if (expected.scales.empty()) continue;
    EXPECT_TRUE(tensors.at(module.path + ".scales") == expected.scales);
    EXPECT_TRUE(tensors.at(module.path + ".biases") == expected.biases);
    expected_tensors += 2;
  }
  EXPECT_EQ(tensors.size(), expected_tensors);
}

TEST(Convert, EveryEncoderGivesTheReferencesBytes) {
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    SCOPED_TRACE(dtype_info(dtype).name);
    const Job job = test::job_of(test::tiny_llama({.dtype = dtype, .vocab = 100, .layers = 1}));
    check_against_reference(job, test::converted(job));
  }
}

TEST(Convert, AnotherTypeThanTheSources) {
  const Job job = test::job_of(test::tiny_llama({.dtype = DType::kF32, .layers = 1}), "bfloat16");
  check_against_reference(job, test::converted(job));
}

TEST(Convert, StackedExperts) {
  const Job job = test::job_of(test::tiny_moe({.layers = 1}));
  check_against_reference(job, test::converted(job));
}

TEST(Convert, BlocksOfGgufMovedAndPermuted) {
  const Job job = test::job_of(test::tiny_gguf({.layers = 1}));
  ASSERT_EQ(job.map.dtype, DType::kF16);
  const auto shares = allocate::format_shares(job.plan);
  EXPECT_TRUE(std::ranges::any_of(
      shares, [](const auto& share) { return share.encoder == Encoder::kLossless; }));
  check_against_reference(job, test::converted(job));
}

TEST(Convert, GpuRule) {
  auto checkpoint = test::tiny_llama({.layers = 1}).build();
  const auto map = test::map_of(*checkpoint);
  const auto plan = test::plan_of(
      *checkpoint, map,
      [](const auto&, size_t) { return test::Planned{test::affine(4, 32), Encoder::kParity}; },
      "gpu");
  const Job job{checkpoint, map, plan};
  check_against_reference(job, test::converted(job));
}

// Two blocks in the embedding, so that threads really meet in one module.
TEST(Convert, ThreadsAndInstructionSetsDoNotShow) {
  const Job job = test::job_of(test::tiny_llama({.vocab = 2500, .layers = 1}));
  const Files reference = test::converted(job);
  EXPECT_THAT(reference, ::testing::AllOf(::testing::Contains(::testing::Key("model.safetensors")),
                                          ::testing::Contains(::testing::Key("config.json")),
                                          ::testing::Contains(::testing::Key("tokenizer.json")),
                                          ::testing::Contains(::testing::Key("sluice.json"))));
  for (const SimdLevel simd : test::simd_levels()) {
    for (const unsigned workers : {1u, 2u, 5u}) {
      SCOPED_TRACE(fmt::format("{} workers, {}", workers, simd_level_name(simd)));
      io::MemoryStorage storage;
      test::make_work_folder(storage);
      NullLog log;
      ConvertOptions options = test::convert_options(log, workers);
      options.simd = simd;
      options.bytes_per_checkpoint = workers == 2 ? 1 : 100'000;
      ASSERT_TRUE(test::convert_into(storage, job, options));
      EXPECT_TRUE(test::files_under(storage, kOut) == reference);
      EXPECT_EQ(storage.files().size(), reference.size()) << "something was left behind";
    }
  }
}

TEST(Convert, SidecarsAreCopiedUnchanged) {
  const Job job = test::job_of(test::tiny_llama({.layers = 1}));
  const Files files = test::converted(job);
  EXPECT_EQ(files.at("tokenizer.json"), "{\"model\": {\"vocab\": {}}}\n");
  EXPECT_EQ(files.at("tokenizer_config.json"), "{\"chat_template\": \"{{ messages }}\"}\n");
}

TEST(Convert, NothingUnderTheFinalNameUntilApproved) {
  const Job job = test::job_of(test::tiny_llama({.layers = 1}));
  const Files reference = test::converted(job);
  io::MemoryStorage storage;
  test::make_work_folder(storage);
  NullLog log;
  ConvertOptions options = test::convert_options(log);
  bool asked = false;
  options.before_publishing = [&](const std::string& partial) -> Status {
    asked = true;
    EXPECT_EQ(partial, partial_path(kOut));
    EXPECT_FALSE(storage.exists(kOut));
    EXPECT_TRUE(test::files_under(storage, partial) == reference) << "not complete";
    return fail(ErrorCode::kCorrupt, "not good enough");
  };
  const auto refused = test::convert_into(storage, job, options);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "not good enough");
  EXPECT_TRUE(asked);
  EXPECT_FALSE(storage.exists(kOut));

  options.before_publishing = {};
  const auto summary = test::convert_into(storage, job, options);
  ASSERT_TRUE(summary);
  EXPECT_EQ(summary->modules_resumed, job.map.modules.size());
  EXPECT_TRUE(test::files_under(storage, kOut) == reference);
}

TEST(Convert, ATrailingSlashIsTheSameFolder) {
  const Job job = test::job_of(test::tiny_llama({.layers = 1}));
  io::MemoryStorage storage;
  test::make_work_folder(storage);
  NullLog log;
  const auto summary =
      convert(storage, *job.checkpoint, job.map, job.plan, kOut + "//", test::convert_options(log));
  ASSERT_TRUE(summary) << summary.error().message;
  EXPECT_FALSE(test::files_under(storage, kOut).empty());
  EXPECT_EQ(partial_path("a/b/"), "a/b.partial");
  EXPECT_EQ(journal_path("/"), "/.journal");
}

// Cancels once so many source bytes have been worked through.
class CancelAfter : public NullProgress {
 public:
  CancelAfter(CancelToken& cancel, uint64_t bytes) : cancel_(cancel), left_(bytes) {}
  void advance(uint64_t bytes) override {
    if (left_.fetch_sub(static_cast<int64_t>(bytes)) <= static_cast<int64_t>(bytes))
      cancel_.cancel();
  }

 private:
  CancelToken& cancel_;
  std::atomic<int64_t> left_;
};

TEST(Convert, CancelledRunsGoOnToTheSameBytes) {
  const Job job = test::job_of(test::tiny_llama({.vocab = 2500, .layers = 3}));
  const Files reference = test::converted(job);
  uint64_t resumed_most = 0;
  for (const unsigned workers : {1u, 3u}) {
    for (uint64_t bytes = 1; bytes < 2'000'000; bytes += 230'000) {
      SCOPED_TRACE(fmt::format("{} workers, {} bytes", workers, bytes));
      io::MemoryStorage storage;
      test::make_work_folder(storage);
      CancelToken cancel;
      CancelAfter progress(cancel, bytes);
      NullLog log;
      ConvertOptions options = test::convert_options(log, workers);
      options.cancel = &cancel;
      options.progress = &progress;
      const auto stopped = test::convert_into(storage, job, options);
      if (!stopped) {
        EXPECT_EQ(stopped.error().code, ErrorCode::kCancelled);
        EXPECT_FALSE(storage.exists(kOut));
      }
      if (!stopped) {
        test::CollectingLog collecting;
        const auto resumed =
            test::convert_into(storage, job, test::convert_options(collecting, workers));
        ASSERT_TRUE(resumed) << resumed.error().message;
        resumed_most = std::max(resumed_most, resumed->modules_resumed);
        EXPECT_THAT(collecting.warnings, ::testing::IsEmpty());
      }
      EXPECT_TRUE(test::files_under(storage, kOut) == reference);
    }
  }
  EXPECT_GT(resumed_most, 5u) << "a cancelled run should keep what it finished";
}

class Unfinished : public ::testing::Test {
 protected:
  void SetUp() override {
    test::make_work_folder(storage_);
    ConvertOptions options = test::convert_options(log_);
    options.before_publishing = [](const std::string&) -> Status {
      return fail(ErrorCode::kIo, "stopped");
    };
    ASSERT_FALSE(test::convert_into(storage_, job_, options));
  }
  Result<ConvertSummary> go_on(const Job& job) {
    return test::convert_into(storage_, job, test::convert_options(log_));
  }

  const test::ModelBuilder model_ = test::tiny_llama({.layers = 1});
  const Job job_ = test::job_of(model_);
  test::CollectingLog log_;
  io::MemoryStorage storage_;
};

TEST_F(Unfinished, IsNotMixedWithAnotherPlan) {
  const Job other{job_.checkpoint, job_.map,
                  test::plan_of(*job_.checkpoint, job_.map, [](const auto&, size_t) {
                    return test::Planned{test::affine(8, 32), Encoder::kParity};
                  })};
  const auto refused = go_on(other);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(refused.error().message, AllOf(HasSubstr("plan"), HasSubstr("OUT.partial")));
  ASSERT_TRUE(go_on(job_)) << "the refused run did no damage";
  EXPECT_TRUE(test::files_under(storage_, kOut) == test::converted(job_));
}

TEST_F(Unfinished, IsNotMixedWithAnotherSource) {
  test::ModelBuilder changed = model_;
  changed.add("model.layers.0.mlp.extra.bias", DType::kF32, {3}, std::vector<float>(3));
  const auto checkpoint = changed.build();
  // Its own plan, and the first one's.
  allocate::PlanData data = job_.plan.data();
  data.source = checkpoint->identity_digest();
  const Job other{checkpoint, job_.map, *allocate::Plan::create(data)};
  const auto refused = go_on(other);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("source"));
  const auto mixed = go_on({checkpoint, job_.map, job_.plan});
  ASSERT_FALSE(mixed);
  EXPECT_THAT(mixed.error().message, HasSubstr("another source"));
}

TEST_F(Unfinished, DamageIsRedone) {
  const Files reference = test::converted(job_);
  const std::string path = partial_path(kOut) + "/model.safetensors";
  auto file = storage_.open(path, io::OpenMode::kCreateOrOpen);
  ASSERT_TRUE(file);
  const std::byte noise[1] = {std::byte{0x5a}};
  ASSERT_TRUE((*file)->write_at(io::kDataAlignment + 10, noise));
  ASSERT_TRUE((*file)->write_at(reference.at("model.safetensors").size() - 3, noise));
  ASSERT_TRUE((*file)->write_at(4, noise)) << "the header";
  const auto summary = go_on(job_);
  ASSERT_TRUE(summary) << summary.error().message;
  EXPECT_EQ(summary->modules_resumed, job_.map.modules.size() - 2);
  EXPECT_EQ(log_.warnings.size(), 2u);
  EXPECT_TRUE(test::files_under(storage_, kOut) == reference);
}

TEST_F(Unfinished, AMissingShardIsRedone) {
  ASSERT_TRUE(storage_.remove(partial_path(kOut) + "/model.safetensors"));
  ASSERT_TRUE(go_on(job_));
  EXPECT_TRUE(test::files_under(storage_, kOut) == test::converted(job_));
}

TEST_F(Unfinished, AJournalOfAnotherProgramIsRefused) {
  const std::string text = "{\"somebody\": \"else\"}\n";
  auto file = storage_.open(journal_path(kOut), io::OpenMode::kCreateOrOpen);
  ASSERT_TRUE((*file)->truncate(0));
  ASSERT_TRUE((*file)->append(std::as_bytes(std::span(text))));
  EXPECT_FALSE(go_on(job_));
}

TEST(Convert, RefusesAnExistingOutput) {
  const Job job = test::job_of(test::tiny_llama({.layers = 1}));
  io::MemoryStorage storage;
  test::make_work_folder(storage);
  ASSERT_TRUE(storage.create_directory(kOut));
  NullLog log;
  const auto refused = test::convert_into(storage, job, test::convert_options(log));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(refused.error().message, HasSubstr("exists already"));
  EXPECT_FALSE(storage.exists(partial_path(kOut)));
}

TEST(Convert, OneWriterAtATime) {
  const Job job = test::job_of(test::tiny_llama({.layers = 1}));
  io::MemoryStorage storage;
  test::make_work_folder(storage);
  NullLog log;
  ConvertOptions options = test::convert_options(log);
  options.before_publishing = [&](const std::string&) -> Status {
    const auto second = test::convert_into(storage, job, test::convert_options(log));
    EXPECT_FALSE(second);
    EXPECT_EQ(second.error().code, ErrorCode::kIo);
    EXPECT_THAT(second.error().message, HasSubstr("another process"));
    return {};
  };
  ASSERT_TRUE(test::convert_into(storage, job, options));
  EXPECT_TRUE(test::files_under(storage, kOut) == test::converted(job));
}

TEST(Convert, DiskSpaceIsCheckedFirst) {
  const Job job = test::job_of(test::tiny_llama({.layers = 1}));
  io::MemoryStorage storage;
  test::make_work_folder(storage);
  storage.set_capacity(200'000);
  NullLog log;
  const auto refused = test::convert_into(storage, job, test::convert_options(log));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kExhausted);
  EXPECT_THAT(refused.error().message, AllOf(HasSubstr("needed"), HasSubstr("200.0 kB")));
  EXPECT_THAT(storage.files(), ::testing::IsEmpty()) << "nothing is written before the check";
  storage.set_capacity(UINT64_MAX);
  EXPECT_TRUE(test::convert_into(storage, job, test::convert_options(log)));
}

TEST(Convert, APlanForAnotherModelIsRefused) {
  const Job job = test::job_of(test::tiny_llama({.layers = 1}));
  NullLog log;
  const auto refuse = [&](allocate::PlanData data, std::string_view because) {
    io::MemoryStorage storage;
    test::make_work_folder(storage);
    auto plan = allocate::Plan::create(std::move(data));
    ASSERT_TRUE(plan) << plan.error().message;
    const auto refused =
        test::convert_into(storage, {job.checkpoint, job.map, *plan}, test::convert_options(log));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(refused.error().message, HasSubstr(std::string(because)));
    EXPECT_THAT(storage.files(), ::testing::IsEmpty());
  };
  const auto without_last = [](allocate::PlanData data) {
    data.tensor_bytes -= data.tensors.back().bytes;
    data.elements -= data.tensors.back().elements;
    data.tensors.pop_back();
    return data;
  };
  refuse(without_last(job.plan.data()), job.plan.data().tensors.back().tensor_name());
  allocate::PlanData extra = job.plan.data();
  extra.tensors.push_back(extra.tensors.back());
  extra.tensors.back().path += "2";
  extra.tensor_bytes += extra.tensors.back().bytes;
  extra.elements += extra.tensors.back().elements;
  extra.exact_bytes = extra.budget_bytes = extra.exact_bytes + extra.tensors.back().bytes;
  refuse(extra, "holds");
  allocate::PlanData small = job.plan.data();
  small.exact_bytes = small.budget_bytes = small.tensor_bytes;  // forgets the headers
  refuse(small, "budget");
}

TEST(Convert, ASourceChangedSinceAnalysisIsNamed) {
  test::ModelBuilder model = test::tiny_llama({.layers = 1});
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  const Job job = test::job_of(model);
  allocate::PlanData data = job.plan.data();
  for (allocate::PlannedTensor& tensor : data.tensors)
    if (tensor.tensor_name() == name) {
      Hasher hasher;
      hasher.update(digest_of(model.bytes(name)));
      tensor.source = hasher.finish();
    }
  const auto plan = allocate::Plan::create(data);
  ASSERT_TRUE(plan);
  EXPECT_FALSE(test::converted({job.checkpoint, job.map, *plan}).empty());

  model.bytes(name)[77] ^= std::byte{1};
  io::MemoryStorage storage;
  test::make_work_folder(storage);
  NullLog log;
  const auto refused =
      test::convert_into(storage, {model.build(), job.map, *plan}, test::convert_options(log));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(refused.error().message, AllOf(HasSubstr(name), HasSubstr("changed")));
  EXPECT_FALSE(storage.exists(kOut));
}

TEST(Convert, NonFiniteWeightsAreNamed) {
  test::ModelBuilder model = test::tiny_llama({.dtype = DType::kF32, .layers = 1});
  const std::string name = "model.layers.0.self_attn.v_proj.weight";
  const uint32_t nan = 0x7fc00000;
  std::memcpy(&model.bytes(name)[(3 * 128 + 5) * 4], &nan, 4);
  io::MemoryStorage storage;
  test::make_work_folder(storage);
  NullLog log;
  const auto refused = test::convert_into(storage, test::job_of(model), test::convert_options(log));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(refused.error().message,
              AllOf(HasSubstr(name), HasSubstr("row 3, column 5"), HasSubstr("nan")));
}

TEST(Convert, AnImpossibleLosslessMoveIsNamed) {
  test::ModelBuilder model = test::tiny_gguf({.layers = 1});
  const std::string name = "blk.0.ffn_up.weight";
  const uint16_t large = 0x7bff;  // 65504: −8 of them do not fit into f16
  std::memcpy(&model.bytes(name)[2 * 4 * 18], &large, 2);
  const auto checkpoint = model.build();
  const auto map = test::map_of(*checkpoint);
  const auto plan = test::plan_of(*checkpoint, map, [](const auto&, size_t) {
    return test::Planned{test::affine(4, 32), Encoder::kLossless};
  });
  io::MemoryStorage storage;
  test::make_work_folder(storage);
  NullLog log;
  const auto refused =
      test::convert_into(storage, {checkpoint, map, plan}, test::convert_options(log));
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, AllOf(HasSubstr("up_proj"), HasSubstr("row 2")));
}

}  // namespace
}  // namespace sluice::convert
