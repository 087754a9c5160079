// The pass over the weights: every candidate against a brute-force encoding, the same file on any
// number of threads and any instruction set, and resuming from anywhere.
#include "analyze/analyze.h"

#include <gmock/gmock.h>

#include <cmath>
#include <cstring>
#include <set>

#include "analyze/analyses.h"
#include "numerics/affine.h"
#include "numerics/block_codec.h"
#include "numerics/fp.h"
#include "stream/output_layout.h"
#include "support/seed.h"

namespace sluice::analyze {
namespace {

using allocate::Candidate;
using numerics::DType;
using numerics::Encoder;
using numerics::ErrorStats;
using numerics::QuantFormat;
using numerics::QuantMode;
using test::Subject;
using ::testing::AllOf;
using ::testing::HasSubstr;

Analysis analyzed(const Subject& subject, const AnalyzeOptions& options = test::analyze_options()) {
  io::MemoryStorage storage;
  test::make_work_folder(storage);
  auto analysis = test::analyze_into(storage, subject, options);
  if (!analysis) fmt::print(stderr, "{}\n", analysis.error().message);
  SLUICE_CHECK(analysis.has_value());
  return std::move(*analysis);
}

// A module's rows as stored and decoded, in output order.
std::vector<float> values_of(const Subject& subject, const families::OutputModule& module) {
  std::vector<families::RowRun> runs;
  append_row_runs(module.recipe, 0, module.rows(), runs);
  std::vector<float> values;
  for (const families::RowRun& run : runs) {
    const io::StoredTensor& tensor = subject.checkpoint->tensors[run.tensor];
    const uint64_t columns[] = {module.columns()};
    const uint64_t row_bytes = *numerics::tensor_bytes(tensor.info.dtype, columns);
    std::vector<std::byte> stored(run.rows * row_bytes);
    EXPECT_TRUE(
        subject.checkpoint->files[0]->read_at(tensor.offset + run.source_row * row_bytes, stored));
    std::vector<float> part(run.rows * module.columns());
    numerics::decode_elements(tensor.info.dtype, stored, part);
    values.insert(values.end(), part.begin(), part.end());
  }
  return values;
}

std::vector<float> rounded(std::vector<float> values, DType dtype) {
  std::vector<std::byte> stored(values.size() * dtype_info(dtype).block_bytes);
  numerics::encode_elements(dtype, values, stored);
  numerics::decode_elements(dtype, stored, values);
  return values;
}

// One candidate the slow way: encode each row, decode it, compare.
struct BruteForce {
  ErrorStats error;
  double worst_row = 0, worst_expert = 0;  // NRMSE²
  uint32_t worst_expert_index = 0;
};
BruteForce brute_force(const Subject& subject, const families::OutputModule& module,
                       const Candidate& candidate) {
  const std::vector<float> source = values_of(subject, module);
  const DType model = subject.map.dtype;
  BruteForce result;
  const uint64_t columns = module.columns();
  const uint64_t expert_rows = module.rows() / module.experts();
  const std::vector<float> seen =
      candidate.format.mode != QuantMode::kFloat && candidate.encoder != Encoder::kLossless
          ? rounded(source, model)
          : source;
  const DType plain = stream::plain_dtype(*subject.checkpoint, subject.map, module);
  for (uint64_t expert = 0; expert < module.experts(); ++expert) {
    ErrorStats sum;
    for (uint64_t r = expert * expert_rows; r < (expert + 1) * expert_rows; ++r) {
      const auto row = std::span<const float>(seen).subspan(r * columns, columns);
      std::vector<float> decoded(row.begin(), row.end());
      if (candidate.format.mode == QuantMode::kFloat) {
        decoded = rounded(decoded, plain);
      } else if (candidate.encoder != Encoder::kLossless) {
        const uint64_t shape[] = {1, columns};
        const auto bytes = numerics::encoded_bytes(candidate.format, shape, model);
        std::vector<std::byte> w(bytes.weight), s(bytes.scales), b(bytes.biases);
        if (is_fp(candidate.format) && candidate.encoder == Encoder::kBest)
          numerics::encode_fp_best(row, candidate.format, model, {w, s});
        else if (is_fp(candidate.format))
          numerics::encode_fp_parity(row, candidate.format, model, {w, s});
        else if (candidate.encoder == Encoder::kBest)
          numerics::encode_affine_best(row, candidate.format, model, {w, s, b});
        else
          numerics::encode_affine_parity(row, candidate.format, model, numerics::ParityRule::kCpu,
                                         {w, s, b});
        if (is_fp(candidate.format))
          numerics::decode_fp({w, s}, candidate.format, decoded);
        else
          numerics::decode_affine({w, s, b}, candidate.format, model, decoded);
      }
      const ErrorStats error = numerics::error_between(row, decoded);
      result.worst_row = std::max(result.worst_row, nrmse_squared(error));
      sum.merge(error);
    }
    if (nrmse_squared(sum) > result.worst_expert) {
      result.worst_expert = nrmse_squared(sum);
      result.worst_expert_index = static_cast<uint32_t>(expert);
    }
    result.error.merge(sum);
  }
  return result;
}

// Prices use a reciprocal and f32 squares (numerics/affine_price.h); a code that lies halfway may
// fall to the other side, which in a small tensor shows.
constexpr double kPriceTolerance = 1e-3;
constexpr double kTies = 4;

void expect_near_db(double found, double nrmse_squared, double tolerance, const std::string& what) {
  const double expected = -10 * std::log10(nrmse_squared);
  if (std::isinf(expected)) {
    EXPECT_EQ(found, expected) << what;
  } else {
    EXPECT_NEAR(found, expected, tolerance) << what;
  }
}

void check_against_brute_force(const Subject& subject, const Analysis& analysis,
                               const std::vector<QuantFormat>& best_formats) {
  ASSERT_EQ(analysis.records.size(), subject.map.modules.size());
  for (size_t i = 0; i < analysis.records.size(); ++i) {
    const families::OutputModule& module = subject.map.modules[i];
    const allocate::Item& item = analysis.records[i].item;
    EXPECT_EQ(item.path, module.path);
    EXPECT_EQ(item.parameter, module.parameter);
    EXPECT_EQ(item.role, role_name(module.role));
    EXPECT_EQ(item.elements, module.elements());
    EXPECT_EQ(analysis.records[i].shape, module.shape);
    // Exactly the legal candidates, once each.
    std::vector<std::pair<QuantFormat, Encoder>> expected = {{QuantFormat{}, Encoder::kCast}};
    if (module.quantizable)
      for (const uint8_t bits : numerics::kAffineBits)
        for (const uint16_t group : numerics::kAffineGroups) {
          const QuantFormat format = test::affine(bits, group);
          if (module.columns() % group != 0) continue;
          expected.emplace_back(format, Encoder::kParity);
          if (std::ranges::find(best_formats, format) != best_formats.end())
            expected.emplace_back(format, Encoder::kBest);
        }
    if (module.quantizable)
      for (const QuantFormat& format : numerics::kFpFormats) {
        if (module.columns() % format.group_size != 0) continue;
        const std::vector<float> seen = rounded(values_of(subject, module), subject.map.dtype);
        // Groups are whole in a row, so the rows of a module may stand in a line.
        if (numerics::find_unscalable(seen, format, subject.map.dtype) == seen.size())
          expected.emplace_back(format, Encoder::kParity);
        if (std::ranges::find(best_formats, format) != best_formats.end())
          expected.emplace_back(format, Encoder::kBest);
      }
    std::vector<std::pair<QuantFormat, Encoder>> found;
    for (const Candidate& candidate : item.candidates) {
      if (candidate.encoder == Encoder::kLossless) continue;
      found.emplace_back(candidate.format, candidate.encoder);
    }
    EXPECT_EQ(found, expected) << module.tensor_name();

    for (const Candidate& candidate : item.candidates) {
      SCOPED_TRACE(fmt::format("{} {} {}", module.tensor_name(), format_text(candidate.format),
                               encoder_name(candidate.encoder)));
      const bool plain = candidate.format.mode == QuantMode::kFloat;
      EXPECT_EQ(candidate.bytes,
                numerics::encoded_bytes(
                    candidate.format, module.shape,
                    plain ? stream::plain_dtype(*subject.checkpoint, subject.map, module)
                          : subject.map.dtype)
                    .total());
      const BruteForce expected_error = brute_force(subject, module, candidate);
      const bool priced =
          candidate.encoder == Encoder::kParity || candidate.encoder == Encoder::kBest;
      const double squared_error = expected_error.error.squared_error;
      const double error_max = expected_error.error.error_max;
      EXPECT_NEAR(candidate.error.squared_error, squared_error,
                  priced ? kPriceTolerance * squared_error + kTies * error_max * error_max
                         : 1e-12 * squared_error);
      // A price's is a bound.
      EXPECT_GE(candidate.error.error_max, (1 - (priced ? 1e-3 : 1e-12)) * error_max);
      EXPECT_LE(candidate.error.error_max, (priced ? 2.5 : 1 + 1e-12) * error_max);
      EXPECT_NEAR(candidate.error.squared_weight, expected_error.error.squared_weight,
                  1e-3 * expected_error.error.squared_weight);
      expect_near_db(candidate.worst_row_sqnr_db, expected_error.worst_row, priced ? 0.5 : 0.01,
                     "worst row");
      expect_near_db(candidate.worst_expert_sqnr_db, expected_error.worst_expert,
                     priced ? 0.1 : 0.01, "worst expert");
    }
  }
}

TEST(Analyze, EqualsBruteForce) {
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    SCOPED_TRACE(dtype_info(dtype).name);
    const Subject subject =
        test::subject_of(test::tiny_llama({.dtype = dtype, .vocab = 40, .layers = 1}));
    check_against_brute_force(subject, analyzed(subject), test::analyze_options().best_formats);
  }
}

TEST(Analyze, EqualsBruteForceForStackedExperts) {
  const Subject subject = test::subject_of(test::tiny_moe({.vocab = 8, .layers = 1}));
  check_against_brute_force(subject, analyzed(subject), test::analyze_options().best_formats);
}

TEST(Analyze, EqualsBruteForceWhenRoundedFirst) {
  const Subject subject = test::subject_of(
      test::tiny_llama({.dtype = DType::kF32, .vocab = 8, .layers = 1}), "bfloat16");
  check_against_brute_force(subject, analyzed(subject), test::analyze_options().best_formats);
}

// MLX wraps the scale of such a group around; the format is then not offered, its best form is.
TEST(Analyze, UnscalableModulesHaveNoFpParity) {
  test::ModelBuilder model = test::tiny_llama({.dtype = DType::kF32, .vocab = 8, .layers = 1});
  const float tiny = 0x1p-127f;
  std::vector<std::byte>& bytes = model.bytes("model.layers.0.mlp.up_proj.weight");
  for (size_t i = 0; i < 32; ++i) std::memcpy(&bytes[i * 4], &tiny, 4);
  const Subject subject = test::subject_of(model);
  AnalyzeOptions options = test::analyze_options();
  options.best_formats = {numerics::kFpFormats[0]};
  const Analysis analysis = analyzed(subject, options);
  for (const ModuleRecord& record : analysis.records) {
    if (!record.item.quantizable) continue;
    const bool hit = record.item.path.ends_with("up_proj");
    std::set<std::pair<std::string, Encoder>> offered;
    for (const Candidate& candidate : record.item.candidates) {
      offered.emplace(format_text(candidate.format), candidate.encoder);
      EXPECT_TRUE(std::isfinite(candidate.error.squared_error));
    }
    EXPECT_EQ(offered.contains({"mxfp4", Encoder::kParity}), !hit) << record.item.path;
    EXPECT_EQ(offered.contains({"mxfp8", Encoder::kParity}), !hit) << record.item.path;
    EXPECT_TRUE(offered.contains({"mxfp4", Encoder::kBest}));
    EXPECT_TRUE(offered.contains({"nvfp4", Encoder::kParity}));
  }
}

TEST(Analyze, GgufBlocksMoveWithoutLoss) {
  test::ModelBuilder model = test::tiny_gguf({.vocab = 8, .layers = 1});
  const uint16_t large = 0x7bff;  // 65504: −8 of them do not fit into f16
  std::memcpy(&model.bytes("blk.0.ffn_up.weight")[0], &large, 2);
  const Subject subject = test::subject_of(model, "float16");
  // 65504 · (code − 8) does not fit into an f16 model at all.
  io::MemoryStorage storage;
  test::make_work_folder(storage);
  const auto refused = test::analyze_into(storage, subject, test::analyze_options());
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, AllOf(HasSubstr("up_proj"), HasSubstr("too large for F16")));

  const Subject sound = test::subject_of(test::tiny_gguf({.vocab = 8, .layers = 1}));
  const Analysis analysis = analyzed(sound);
  check_against_brute_force(sound, analysis, test::analyze_options().best_formats);
  for (const ModuleRecord& record : analysis.records) {
    if (!record.item.quantizable) continue;
    const Candidate& lossless = record.item.candidates.at(1);
    EXPECT_EQ(lossless.encoder, Encoder::kLossless);
    EXPECT_EQ(lossless.format, test::affine(4, 32));
    EXPECT_EQ(lossless.error.squared_error, 0);
    EXPECT_EQ(lossless.worst_row_sqnr_db, std::numeric_limits<double>::infinity());
  }
}

TEST(Analyze, WorstExpertIsThePlantedOne) {
  for (int planted = 0; planted < 4; ++planted) {
    test::ModelBuilder model = test::tiny_moe({.vocab = 8, .layers = 1});
    const std::string name = fmt::format("model.layers.0.mlp.experts.{}.up_proj.weight", planted);
    // Heavy tails: few large values widen the scales of many small ones.
    test::Random random(1);
    std::vector<float> values = random.normals(64 * 128, 1);
    for (float& value : values) value = 0.05f * value * value * value;
    model.add(name, DType::kBF16, {64, 128}, values);
    const Subject subject = test::subject_of(model);
    const Analysis analysis = analyzed(subject);
    const auto index =
        test::module_index(subject.map, "model.layers.0.mlp.switch_mlp.up_proj.weight");
    for (const Candidate& candidate : analysis.records[index].item.candidates) {
      // Plain, or so coarse that every expert is bad, or with errors relative to each weight.
      if (candidate.format.bits < 4 || is_fp(candidate.format)) continue;
      EXPECT_EQ(candidate.worst_expert, static_cast<uint32_t>(planted));
      EXPECT_LT(candidate.worst_expert_sqnr_db, sqnr_db(candidate.error));
    }
  }
}

// Squares of such weights vanish or overflow in f32; their errors must not.
TEST(Analyze, VerySmallAndVeryLargeWeights) {
  for (const float scale : {1e-37f, 1e-24f, 1e-17f, 1e15f, 1e22f, 1e36f}) {
    SCOPED_TRACE(scale);
    test::ModelBuilder model = test::tiny_llama({.vocab = 8, .layers = 1});
    test::Random random(5);
    model.add("model.layers.0.mlp.up_proj.weight", DType::kBF16, {96, 128},
              random.normals(96 * 128, scale));
    const Subject subject = test::subject_of(model);
    check_against_brute_force(subject, analyzed(subject), test::analyze_options().best_formats);
  }
}

TEST(Analyze, AllZeroTensorIsExact) {
  test::ModelBuilder model = test::tiny_llama({.vocab = 8, .layers = 1});
  model.add("model.layers.0.mlp.up_proj.weight", DType::kBF16, {96, 128},
            std::vector<float>(96 * 128));
  const Subject subject = test::subject_of(model);
  const Analysis analysis = analyzed(subject);
  const auto index = test::module_index(subject.map, "model.layers.0.mlp.up_proj.weight");
  for (const Candidate& candidate : analysis.records[index].item.candidates) {
    EXPECT_EQ(candidate.error, ErrorStats{});
    EXPECT_EQ(candidate.worst_row_sqnr_db, std::numeric_limits<double>::infinity());
  }
}

TEST(Analyze, SourceDigestsAreOfTheSourcesBytes) {
  test::ModelBuilder model = test::tiny_llama({.vocab = 8, .layers = 1});
  const std::string name = "model.layers.0.self_attn.o_proj.weight";
  const auto digest_in = [&] {
    const Subject subject = test::subject_of(model);
    return analyzed(subject).records[test::module_index(subject.map, name)].item.source;
  };
  const Digest before = digest_in();
  Hasher expected;
  expected.update(digest_of(model.bytes(name)));
  EXPECT_EQ(before, expected.finish());
  model.bytes(name)[100] ^= std::byte{4};
  EXPECT_NE(digest_in(), before);
}

// Two blocks in the embedding, so that threads really meet in one module.
TEST(Analyze, ThreadsAndInstructionSetsDoNotShow) {
  const Subject subject = test::subject_of(test::tiny_llama({.vocab = 2500, .layers = 1}));
  const std::string reference = test::analyzed_text(subject);
  for (const SimdLevel simd : test::simd_levels()) {
    for (const unsigned workers : {1u, 2u, 5u}) {
      if (simd == SimdLevel::kScalar && workers == 2) continue;  // the slowest
      SCOPED_TRACE(fmt::format("{} workers, {}", workers, simd_level_name(simd)));
      io::MemoryStorage storage;
      test::make_work_folder(storage);
      AnalyzeOptions options = test::analyze_options(workers);
      options.simd = simd;
      ASSERT_TRUE(test::analyze_into(storage, subject, options));
      EXPECT_TRUE(test::get(storage, test::kFile) == reference);
    }
  }
}

test::ModelBuilder small_model() { return test::tiny_llama({.vocab = 8, .layers = 1}); }

TEST(Resume, FromEveryRecordAndFromRandomBytes) {
  const Subject subject = test::subject_of(small_model());
  const std::string whole = test::analyzed_text(subject);
  std::vector<size_t> cuts = {0, 1, whole.size() - 1, whole.size()};
  for (size_t i = 0; i < whole.size(); ++i)
    if (whole[i] == '\n') cuts.insert(cuts.end(), {i, i + 1, i + 2});
  test::Random random(9);
  for (int i = 0; i < 60; ++i) cuts.push_back(random.below(whole.size()));
  if (test::number_from("SLUICE_TEST_CASES", 0) > whole.size())
    for (size_t i = 0; i < whole.size(); ++i) cuts.push_back(i);
  for (const size_t cut : cuts) {
    SCOPED_TRACE(cut);
    io::MemoryStorage storage;
    test::make_work_folder(storage);
    test::put(storage, test::kFile, whole.substr(0, cut));
    const auto analysis = test::analyze_into(storage, subject, test::analyze_options());
    ASSERT_TRUE(analysis) << analysis.error().message;
    ASSERT_TRUE(test::get(storage, test::kFile) == whole);
  }
}

TEST(Resume, AfterDamageAnywhere) {
  const Subject subject = test::subject_of(small_model());
  const std::string whole = test::analyzed_text(subject);
  test::Random random(10);
  for (int i = 0; i < 60; ++i) {
    std::string damaged = whole;
    const size_t at = random.below(whole.size());
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << random.below(8)));
    SCOPED_TRACE(at);
    io::MemoryStorage storage;
    test::make_work_folder(storage);
    test::put(storage, test::kFile, damaged);
    EXPECT_FALSE(load_analysis(**storage.open_source(test::kFile)));
    ASSERT_TRUE(test::analyze_into(storage, subject, test::analyze_options()));
    ASSERT_TRUE(test::get(storage, test::kFile) == whole);
  }
}

TEST(Resume, AFinishedAnalysisIsNotTouched) {
  const Subject subject = test::subject_of(small_model());
  io::MemoryStorage storage;
  test::make_work_folder(storage);
  const auto first = test::analyze_into(storage, subject, test::analyze_options());
  io::FaultInjector no_reads({.at = 1, .persistent = true});
  const Subject unreadable =
      test::subject_of(small_model(), "", [&](std::shared_ptr<io::ByteSource> base) {
        return io::faulty_source(std::move(base), no_reads);
      });
  const auto second = test::analyze_into(storage, unreadable, test::analyze_options());
  ASSERT_TRUE(second) << second.error().message;
  EXPECT_EQ(first->digest, second->digest);
}

TEST(Resume, EveryFailingOperation) {
  const std::string whole = test::analyzed_text(test::subject_of(small_model()));
  for (const bool persistent : {false, true}) {
    for (uint64_t at = 1;; ++at) {
      SCOPED_TRACE(fmt::format("{} operation {}", persistent ? "killed at" : "once", at));
      io::MemoryStorage storage;
      test::make_work_folder(storage);
      io::FaultInjector injector({.at = at, .persistent = persistent, .torn = true});
      const Subject failing =
          test::subject_of(small_model(), "", [&](std::shared_ptr<io::ByteSource> base) {
            return io::faulty_source(std::move(base), injector);
          });
      const auto faulty = io::faulty_storage(storage, injector);
      const auto result = test::analyze_into(*faulty, failing, test::analyze_options());
      if (!injector.triggered()) {
        EXPECT_TRUE(result);
        break;
      }
      ASSERT_FALSE(result);
      EXPECT_EQ(result.error().code, ErrorCode::kIo);
      if (persistent) storage.cut_power(at);
      const auto resumed =
          test::analyze_into(storage, test::subject_of(small_model()), test::analyze_options());
      ASSERT_TRUE(resumed) << resumed.error().message;
      ASSERT_TRUE(test::get(storage, test::kFile) == whole);
    }
  }
}

// Up to three power cuts in a row, each losing another random part of what was not synced.
// SLUICE_TEST_CASES=10000 runs as many as promised.
TEST(Resume, AfterPowerCuts) {
  const std::string whole = test::analyzed_text(test::subject_of(small_model()));
  const uint64_t cases = test::number_from("SLUICE_TEST_CASES", 100);
  test::Random random(test::seed(12));
  for (uint64_t cut = 0; cut < cases;) {
    SCOPED_TRACE(cut);
    io::MemoryStorage storage;
    test::make_work_folder(storage);
    for (uint64_t cuts = 1 + random.below(3); cuts > 0; --cuts, ++cut) {
      io::FaultInjector injector({.at = 1 + random.below(70), .persistent = true, .torn = true});
      const Subject failing =
          test::subject_of(small_model(), "", [&](std::shared_ptr<io::ByteSource> base) {
            return io::faulty_source(std::move(base), injector);
          });
      const auto faulty = io::faulty_storage(storage, injector);
      (void)test::analyze_into(*faulty, failing, test::analyze_options());
      storage.cut_power(1 + random.below(UINT64_MAX));
    }
    const auto resumed =
        test::analyze_into(storage, test::subject_of(small_model()), test::analyze_options());
    ASSERT_TRUE(resumed) << resumed.error().message;
    storage.cut_power(0);
    ASSERT_TRUE(storage.exists(test::kFile)) << "success, but not durable";
    ASSERT_TRUE(test::get(storage, test::kFile) == whole);
  }
}

TEST(Resume, AfterCancellation) {
  class CancelAfter : public NullProgress {
   public:
    CancelAfter(CancelToken& cancel, int blocks) : cancel_(cancel), left_(blocks) {}
    void advance(uint64_t) override {
      if (--left_ == 0) cancel_.cancel();
    }

   private:
    CancelToken& cancel_;
    std::atomic<int> left_;
  };
  const Subject subject = test::subject_of(small_model());
  const std::string whole = test::analyzed_text(subject);
  for (int blocks = 1; blocks < 12; ++blocks) {
    io::MemoryStorage storage;
    test::make_work_folder(storage);
    CancelToken cancel;
    CancelAfter progress(cancel, blocks);
    AnalyzeOptions options = test::analyze_options();
    options.cancel = &cancel;
    options.progress = &progress;
    const auto stopped = test::analyze_into(storage, subject, options);
    if (!stopped) {
      EXPECT_EQ(stopped.error().code, ErrorCode::kCancelled);
    }
    ASSERT_TRUE(test::analyze_into(storage, subject, test::analyze_options()));
    EXPECT_TRUE(test::get(storage, test::kFile) == whole);
  }
}

class Refused : public ::testing::Test {
 protected:
  void SetUp() override {
    test::make_work_folder(storage_);
    test::put(storage_, test::kFile, whole_.substr(0, whole_.size() / 2));
  }
  void expect_refused(const Subject& subject, const AnalyzeOptions& options,
                      const std::string& because) {
    const std::string before = test::get(storage_, test::kFile);
    const auto refused = test::analyze_into(storage_, subject, options);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(refused.error().message, AllOf(HasSubstr(test::kFile), HasSubstr(because)));
    EXPECT_EQ(test::get(storage_, test::kFile), before) << "a refused file was changed";
  }

  const Subject subject_ = test::subject_of(small_model());
  const std::string whole_ = test::analyzed_text(subject_);
  io::MemoryStorage storage_;
};

TEST_F(Refused, AnotherSource) {
  expect_refused(test::subject_of(test::tiny_llama({.vocab = 9, .layers = 1})),
                 test::analyze_options(), "another source");
}

TEST_F(Refused, OtherOptions) {
  AnalyzeOptions options = test::analyze_options();
  options.best_formats.pop_back();
  expect_refused(subject_, options, "other options");
  expect_refused(test::subject_of(small_model(), "float16"), test::analyze_options(),
                 "other options");
}

TEST_F(Refused, SomebodyElsesFile) {
  test::put(storage_, test::kFile, "my notes about models\n");
  expect_refused(subject_, test::analyze_options(), "not written by Sluice");
}

TEST_F(Refused, WhileAnotherProcessWorksThere) {
  const auto lock = storage_.lock(test::kFile);
  ASSERT_TRUE(lock);
  const auto refused = test::analyze_into(storage_, subject_, test::analyze_options());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kIo);
}

TEST(Analyze, NonFiniteWeightsAreNamed) {
  test::ModelBuilder model = small_model();
  const uint16_t infinity = 0x7f80;
  std::memcpy(&model.bytes("model.norm.weight")[2 * 17], &infinity, 2);
  io::MemoryStorage storage;
  test::make_work_folder(storage);
  const auto refused =
      test::analyze_into(storage, test::subject_of(model), test::analyze_options());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(refused.error().message,
              AllOf(HasSubstr("model.norm.weight"), HasSubstr("column 17"), HasSubstr("inf")));
}

}  // namespace
}  // namespace sluice::analyze
