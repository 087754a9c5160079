// A good output passes: every family and encoder, uniform and planned under budgets; and what the
// report says of it.
#include <gmock/gmock.h>

#include <random>

#include "allocate/allocate.h"
#include "analyze/analyze.h"
#include "numerics/block_codec.h"
#include "stream/output_layout.h"
#include "verify/outputs.h"

namespace sluice::verify {
namespace {

using numerics::DType;
using numerics::Encoder;
using test::Files;
using test::Job;
using ::testing::AllOf;
using ::testing::HasSubstr;

void expect_passes(const Job& job, const Files& files) {
  for (const unsigned workers : {1u, 3u}) {
    const auto report = test::verify_files(job, files, workers);
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_TRUE(report->passed()) << test::findings_text(*report);
    EXPECT_EQ(report->modules, job.map.modules.size());
    EXPECT_EQ(report->shards, 1u);
    EXPECT_EQ(report->weight_file_bytes, files.at(test::kShard).size());
    EXPECT_LE(report->weight_file_bytes, report->budget_bytes);
  }
}

TEST(Chain, MixedPlansPass) {
  for (const test::ModelBuilder& model :
       {test::tiny_llama({.layers = 1}), test::tiny_llama({.dtype = DType::kF16, .layers = 1}),
        test::tiny_llama({.dtype = DType::kF32, .layers = 1}),
        test::tiny_llama({.vocab = 2500, .layers = 1}), test::tiny_moe({.layers = 1}),
        test::tiny_gguf({.layers = 1})}) {
    const Job job = test::job_of(model);
    expect_passes(job, test::converted(job));
  }
}

TEST(Chain, RoundedToAnotherType) {
  const Job job = test::job_of(test::tiny_llama({.dtype = DType::kF32, .layers = 1}), "bfloat16");
  expect_passes(job, test::converted(job));
}

// Fp modes beside affine, parity and best.
allocate::Plan plan_with_fp(const io::Checkpoint& checkpoint, const families::ModelMap& map) {
  return test::plan_of(checkpoint, map, [](const families::OutputModule& module, size_t index) {
    if (index % 5 == 4 || module.bits_floor > 4)
      return test::Planned{test::affine(8, 32), Encoder::kParity};
    const numerics::QuantFormat& format = numerics::kFpFormats[index % 3];
    return test::Planned{format, index % 2 ? Encoder::kBest : Encoder::kParity};
  });
}

TEST(Chain, FpModesPass) {
  for (const test::ModelBuilder& model :
       {test::tiny_llama({.layers = 1}), test::tiny_llama({.dtype = DType::kF16, .layers = 1}),
        test::tiny_llama({.dtype = DType::kF32, .layers = 1}), test::tiny_moe({.layers = 1})}) {
    const auto checkpoint = model.build();
    const auto map = test::map_of(*checkpoint);
    const Job job{checkpoint, map, plan_with_fp(*checkpoint, map)};
    const Files files = test::converted(job);
    expect_passes(job, files);
    EXPECT_THAT(files.at("config.json"), HasSubstr("\"mode\": \"nvfp4\""));
  }
}

// A nibble or a scale byte that differs is found although its module still decodes.
TEST(Chain, FpModesAreHeldAgainstTheSource) {
  const auto checkpoint = test::tiny_llama({.layers = 1}).build();
  const auto map = test::map_of(*checkpoint);
  const Job job{checkpoint, map, plan_with_fp(*checkpoint, map)};
  const Files files = test::converted(job);
  std::vector<numerics::QuantFormat> formats;
  for (const allocate::PlannedTensor& tensor : job.plan.data().tensors)
    formats.push_back(tensor.format);
  const auto layout =
      stream::layout_output(stream::layout_modules(*checkpoint, map), map.dtype, formats);
  ASSERT_TRUE(layout);
  for (size_t i = 0; i < formats.size(); ++i) {
    if (!is_fp(formats[i])) continue;
    for (const uint64_t place : {layout->places[i].weight, layout->places[i].scales}) {
      Files damaged = files;
      damaged.at(test::kShard).at(place) ^= 1;
      const auto report = test::verify_files(job, damaged);
      ASSERT_TRUE(report) << report.error().message;
      EXPECT_THAT(test::findings_text(*report), HasSubstr(map.modules[i].path));
    }
  }
}

// MXFP4 blocks become mxfp4 groups of the same values, in a model of any type.
TEST(Chain, BlocksOfMxfp4MoveWithoutLoss) {
  test::ModelBuilder model = test::tiny_gguf({.layers = 1});
  const numerics::Shape shape = {96, 128};
  std::vector<std::byte> bytes(*numerics::tensor_bytes(DType::kMXFP4, shape));
  std::mt19937 random(4);
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::byte>(i % 17 == 0 ? 118 + random() % 4 : random());
  model.remove("blk.0.ffn_up.weight");
  model.add_bytes("blk.0.ffn_up.weight", DType::kMXFP4, shape, std::move(bytes));
  const auto checkpoint = model.build();
  for (const char* dtype : {"float16", "bfloat16"}) {
    const auto map = test::map_of(*checkpoint, dtype);
    size_t moved = 0;
    const auto plan =
        test::plan_of(*checkpoint, map, [&](const families::OutputModule& module, size_t) {
          const auto source = checkpoint->tensors[module.recipe.sources.at(0).tensor].info.dtype;
          const auto fp = numerics::lossless_fp(source);
          if (!fp) return test::Planned{test::affine(8, 32), Encoder::kParity};
          ++moved;
          return test::Planned{*fp, Encoder::kLossless};
        });
    EXPECT_EQ(moved, 1u);
    const Job job{checkpoint, map, plan};
    const Files files = test::converted(job);
    expect_passes(job, files);
    EXPECT_THAT(files.at("sluice.json"), HasSubstr("\"encoder\": \"lossless\""));
  }
}

TEST(Chain, NothingQuantizedAndGpuRule) {
  const auto checkpoint = test::tiny_llama({.layers = 1}).build();
  const auto map = test::map_of(*checkpoint);
  const Job plain{checkpoint, map, test::plan_of(*checkpoint, map, [](const auto&, size_t) {
                    return test::Planned{};
                  })};
  expect_passes(plain, test::converted(plain));
  const Job gpu{
      checkpoint, map,
      test::plan_of(
          *checkpoint, map,
          [](const auto&, size_t) { return test::Planned{test::affine(3, 32), Encoder::kParity}; },
          "gpu")};
  expect_passes(gpu, test::converted(gpu));
}

TEST(Chain, ReportCountsWhatWasProved) {
  const Job job = test::job_of(test::tiny_llama({.layers = 1}));
  const auto report = test::verify_files(job, test::converted(job));
  ASSERT_TRUE(report);
  size_t best = 0, quantized = 0;
  for (const allocate::PlannedTensor& tensor : job.plan.data().tensors) {
    best += tensor.encoder == Encoder::kBest;
    quantized += tensor.format.mode == numerics::QuantMode::kAffine;
  }
  EXPECT_EQ(report->reencoded_modules, job.map.modules.size() - best);
  EXPECT_EQ(report->tensors, job.map.modules.size() + 2 * quantized);
  uint64_t modules = 0;
  for (const RoleQuality& role : report->roles) {
    modules += role.modules;
    EXPECT_GT(sqnr_db(role.error), 5);
    EXPECT_LE(role.worst_sqnr_db, sqnr_db(role.error) + 1e-9);
    EXPECT_FALSE(role.worst_tensor.empty());
  }
  EXPECT_EQ(modules, quantized);
}

// The whole preparation: analysis, plan under a budget, conversion, verification.
void fit(const test::ModelBuilder& model, const std::vector<numerics::QuantFormat>& best) {
  const auto checkpoint = model.build();
  const auto map = test::map_of(*checkpoint);
  io::MemoryStorage storage;
  test::make_work_folder(storage);
  analyze::AnalyzeOptions options;
  options.best_formats = best;
  options.workers = 2;
  options.simd = test::widest_simd();
  const auto analysis = analyze::analyze(storage, *checkpoint, map, "work/analysis", options);
  ASSERT_TRUE(analysis) << analysis.error().message;
  const auto plan_for = [&](const allocate::Target& target) {
    allocate::PlanRequest request;
    request.target = target;
    request.sensitivity = allocate::builtin_sensitivity();
    request.origin = {analysis->header.source,
                      analysis->digest,
                      analysis->header.family,
                      analysis->header.dtype,
                      "cpu",
                      ""};
    return allocate::make_plan(analysis->items(), request, [&](std::span<const uint32_t> choice) {
      return analysis->exact_bytes(choice);
    });
  };
  const auto smallest = plan_for(allocate::MinSafeTarget{});
  ASSERT_TRUE(smallest) << smallest.error().message;
  const uint64_t least = smallest->data().exact_bytes;
  for (const uint64_t budget : {least, least + least / 10, least + least / 3, 2 * least}) {
    SCOPED_TRACE(budget);
    const auto plan = plan_for(allocate::BudgetTarget{budget});
    ASSERT_TRUE(plan) << plan.error().message;
    const Job job{checkpoint, map, *plan};
    const Files files = test::converted(job);
    EXPECT_LE(files.at(test::kShard).size(), budget);
    expect_passes(job, files);
  }
}

TEST(Chain, FitLlama) {
  fit(test::tiny_llama(), {test::affine(3, 32), test::affine(4, 32), test::affine(4, 128)});
}
TEST(Chain, FitExperts) { fit(test::tiny_moe({.layers = 1}), {test::affine(2, 32)}); }
TEST(Chain, FitGguf) { fit(test::tiny_gguf({.layers = 1}), {}); }

// Tensors whose squares vanish or overflow in f32 must not break the prediction.
TEST(Chain, FitVerySmallAndVeryLargeWeights) {
  test::ModelBuilder model = test::tiny_llama({.layers = 1});
  test::Random random(5);
  model.add("model.layers.0.mlp.up_proj.weight", DType::kBF16, {96, 128},
            random.normals(96 * 128, 1e-30f));
  model.add("model.layers.0.mlp.gate_proj.weight", DType::kBF16, {96, 128},
            random.normals(96 * 128, 1e30f));
  model.add("model.layers.0.self_attn.k_proj.weight", DType::kBF16, {64, 128},
            std::vector<float>(64 * 128));
  fit(model, {test::affine(4, 32)});
}

TEST(Verify, WhatCannotBeVerifiedIsAnError) {
  const Job job = test::job_of(test::tiny_llama({.layers = 1}));
  const Files files = test::converted(job);
  const auto other = test::job_of(test::tiny_llama({.vocab = 63, .layers = 1}));
  const auto another_source = test::verify_files(other, files);
  ASSERT_FALSE(another_source);
  EXPECT_EQ(another_source.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(another_source.error().message, HasSubstr("another source"));
  Files without = files;
  without.erase("sluice.json");
  const auto unknown = test::verify_files(job, without);
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, ErrorCode::kNotFound);
}

TEST(Verify, AChangedSourceIsFound) {
  test::ModelBuilder model = test::tiny_llama({.layers = 1});
  const Job job = test::job_of(model);
  const Files files = test::converted(job);
  for (const std::string name : {"model.layers.0.self_attn.q_proj.weight", "model.norm.weight",
                                 "model.layers.0.mlp.down_proj.weight"}) {
    test::ModelBuilder changed = model;
    changed.bytes(name)[55] ^= std::byte{1};
    const auto report = test::verify_files({changed.build(), job.map, job.plan}, files);
    ASSERT_TRUE(report);
    EXPECT_FALSE(report->passed());
    EXPECT_THAT(test::findings_text(*report), AllOf(HasSubstr(name), HasSubstr("source")));
  }
}

TEST(Verify, ReadFaultsOfTheSourceAreErrors) {
  const test::ModelBuilder model = test::tiny_llama({.layers = 1});
  const Files files = test::converted(test::job_of(model));
  for (uint64_t at = 1;; ++at) {
    io::FaultInjector injector({.at = at});
    const Job job = test::job_of(model, "", [&](std::shared_ptr<io::ByteSource> base) {
      return io::faulty_source(std::move(base), injector);
    });
    const auto report = test::verify_files(job, files);
    if (!injector.triggered()) break;
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().code, ErrorCode::kIo);
  }
}

TEST(Verify, CancelledAtOnce) {
  const Job job = test::job_of(test::tiny_llama({.layers = 1}));
  const test::TemporaryFolder folder;
  test::write_files(folder.path(), test::converted(job));
  CancelToken cancel;
  cancel.cancel();
  VerifyOptions options;
  options.cancel = &cancel;
  const auto report = verify(*io::local_storage(), *job.checkpoint, folder.path(), options);
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, ErrorCode::kCancelled);
}

}  // namespace
}  // namespace sluice::verify
