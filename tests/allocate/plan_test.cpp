// The plan's invariants, its file form, damaged files, and the summaries.
#include "allocate/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "base/json.h"

namespace sluice::allocate {
namespace {

using numerics::Encoder;
using numerics::QuantFormat;
using numerics::QuantMode;
using ::testing::HasSubstr;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

PlannedTensor tensor(std::string path, std::string role, QuantFormat format, Encoder encoder,
                     double squared_error) {
  PlannedTensor planned;
  planned.path = std::move(path);
  planned.parameter = "weight";
  planned.role = std::move(role);
  planned.layer = 0;
  planned.elements = 4096;
  planned.quantizable = true;
  planned.format = format;
  planned.encoder = encoder;
  planned.bytes =
      format.mode == QuantMode::kFloat ? 8192 : 512u * format.bits + 4096u / format.group_size * 4;
  planned.alpha = 2;
  planned.error = {squared_error, 10, 0.25};
  planned.worst_expert_sqnr_db = squared_error == 0 ? kInfinity : 12.5;
  planned.worst_expert = 3;
  return planned;
}

PlanData example() {
  PlanData data;
  const QuantFormat four{QuantMode::kAffine, 4, 64};
  const QuantFormat eight{QuantMode::kAffine, 8, 32};
  data.tensors = {tensor("model.embed", "embedding", eight, Encoder::kParity, 0.001),
                  tensor("model.layers.0.up", "mlp_up", four, Encoder::kBest, 0.1),
                  tensor("model.layers.0.down", "mlp_down", four, Encoder::kParity, 0.2),
                  tensor("model.layers.0.gate", "mlp_gate", {}, Encoder::kCast, 0)};
  PlannedTensor norm = tensor("model.norm", "norm", {}, Encoder::kCast, 0);
  norm.quantizable = false;
  norm.alpha = 0;
  norm.layer = -1;
  data.tensors.push_back(norm);
  for (const PlannedTensor& planned : data.tensors) {
    data.tensor_bytes += planned.bytes;
    data.elements += planned.elements;
    data.cost += planned.alpha * nrmse_squared(planned.error);
  }
  data.exact_bytes = data.tensor_bytes + 16384;
  data.budget_bytes = data.exact_bytes + 7;
  data.objective = "nrmse-squared";
  data.method = "exact";
  data.configs = "all";
  data.sensitivity = "prior-1@0123456789abcdef";
  data.sqnr_floor_db = 9;
  data.bound = data.cost;
  data.source = digest_of("source");
  data.analysis = digest_of("analysis");
  data.family = "llama";
  data.dtype = "bfloat16";
  data.parity = "cpu";
  data.uniform = {{four, Encoder::kParity, 30'000, 0.5, true, 1},
                  {eight, Encoder::kBest, 50'000, 0.1, false, 0}};
  return data;
}

TEST(Plan, JsonRoundTrip) {
  PlanData data = example();
  for (const double floor : {9.0, -kInfinity}) {
    data.sqnr_floor_db = floor;
    if (floor != 9) data.predicted_kl = data.cost;
    const Plan plan = *Plan::create(data);
    const std::string text = plan_to_json(plan);
    const auto read = plan_from_json(text, "plan.json");
    ASSERT_TRUE(read.has_value()) << read.error().message;
    EXPECT_EQ(*read, plan);
    EXPECT_EQ(read->digest(), plan.digest());
    EXPECT_EQ(plan_to_json(*read), text);
  }
}

TEST(Plan, LayoutOfTheJsonDoesNotMatter) {
  const Plan plan = *Plan::create(example());
  const Json json = *parse_json(plan_to_json(plan), "x");
  EXPECT_EQ(*plan_from_json(dump_json(json, 4), "plan.json"), plan);
  EXPECT_EQ(*plan_from_json(dump_json(json), "plan.json"), plan);
}

TEST(Plan, FindAndDefaultFormat) {
  const Plan plan = *Plan::create(example());
  EXPECT_EQ(plan.find("model.layers.0.up.weight")->format.bits, 4);
  EXPECT_EQ(plan.find("model.layers.0.up"), nullptr);
  EXPECT_EQ(plan.default_format(), (QuantFormat{QuantMode::kAffine, 4, 64}));

  PlanData tie = example();
  tie.tensors[2] = tensor("model.layers.0.down", "mlp_down", {QuantMode::kAffine, 8, 32},
                          Encoder::kParity, 0.001);
  tie.tensors.erase(tie.tensors.begin());
  tie.tensor_bytes = tie.elements = 0;
  tie.cost = 0;
  for (const PlannedTensor& planned : tie.tensors) {
    tie.tensor_bytes += planned.bytes;
    tie.elements += planned.elements;
    tie.cost += planned.alpha * nrmse_squared(planned.error);
  }
  tie.bound = 0;
  EXPECT_EQ(Plan::create(tie)->default_format(), (QuantFormat{QuantMode::kAffine, 4, 64}));
}

TEST(Plan, NothingQuantizedHasNoDefaultFormat) {
  PlanData data = example();
  data.tensors = {data.tensors[4]};
  data.tensor_bytes = 8192;
  data.elements = 4096;
  data.cost = data.bound = 0;
  const auto plan = Plan::create(data);
  ASSERT_TRUE(plan.has_value()) << plan.error().message;
  EXPECT_FALSE(plan->default_format().has_value());
  EXPECT_EQ(bits_per_weight(*plan), 16);
}

TEST(Plan, Summaries) {
  const Plan plan = *Plan::create(example());
  const std::vector<FormatShare> shares = format_shares(plan);
  ASSERT_EQ(shares.size(), 4u);
  uint64_t elements = 0;
  for (const FormatShare& share : shares) elements += share.elements;
  EXPECT_EQ(elements, 4u * 4096);
  const std::vector<RoleSummary> roles = role_summaries(plan);
  ASSERT_EQ(roles.size(), 5u);
  EXPECT_EQ(roles[1].role, "mlp_up");
  EXPECT_NEAR(roles[1].sqnr_db, 20, 1e-9);
  EXPECT_EQ(roles[1].worst_tensor, "model.layers.0.up.weight");
  EXPECT_EQ(roles[3].sqnr_db, kInfinity);
  EXPECT_EQ(roles[4].role, "norm");
  EXPECT_EQ(roles[4].bytes, 8192u);
  EXPECT_NEAR(bits_per_weight(plan),
              8.0 * static_cast<double>(plan.data().tensor_bytes) / (5 * 4096), 1e-12);
}

TEST(Plan, CannotContradictItself) {
  const std::vector<std::pair<const char*, std::function<void(PlanData&)>>> cases = {
      {"over the budget", [](PlanData& d) { d.budget_bytes = d.exact_bytes - 1; }},
      {"cannot hold", [](PlanData& d) { d.exact_bytes = d.tensor_bytes - 1; }},
      {"add up to", [](PlanData& d) { d.tensor_bytes += 1; }},
      {"elements", [](PlanData& d) { d.elements += 1; }},
      {"bytes in a", [](PlanData& d) { d.tensors[1].bytes += 1; }},
      {"bytes in a", [](PlanData& d) { d.dtype = "float32"; }},
      {"does not exist", [](PlanData& d) { d.tensors[1].format.bits = 7; }},
      {"does not exist", [](PlanData& d) { d.tensors[1].format.group_size = 48; }},
      {"no whole number", [](PlanData& d) { d.tensors[1].elements = 4095; }},
      {"named twice", [](PlanData& d) { d.tensors[1].path = d.tensors[2].path; }},
      {"has no name", [](PlanData& d) { d.tensors[1].path.clear(); }},
      {"names no tensors", [](PlanData& d) { d.tensors.clear(); }},
      {"needs an encoder", [](PlanData& d) { d.tensors[1].encoder = Encoder::kCast; }},
      {"takes no encoder", [](PlanData& d) { d.tensors[3].encoder = Encoder::kBest; }},
      {"not quantizable", [](PlanData& d) { d.tensors[1].quantizable = false; }},
      {"do not hold", [](PlanData& d) { d.tensors[3].bytes = 8191; }},
      {"negative or not finite", [](PlanData& d) { d.tensors[1].error.squared_error = -1; }},
      {"negative or not finite", [](PlanData& d) { d.tensors[1].alpha = std::nan(""); }},
      {"weighted error", [](PlanData& d) { d.tensors[1].alpha = 3; }},
      {"predicted divergence", [](PlanData& d) { d.predicted_kl = d.cost * 1.01; }},
      {"predicted divergence", [](PlanData& d) { d.predicted_kl = std::nan(""); }},
      {"bound", [](PlanData& d) { d.bound = d.cost * 1.5; }},
      {"finite", [](PlanData& d) { d.cost = kInfinity; }},
      {"objective", [](PlanData& d) { d.objective = "perplexity"; }},
      {"dtype", [](PlanData& d) { d.dtype = "int8"; }},
      {"parity rule", [](PlanData& d) { d.parity = "tpu"; }},
      {"uniform", [](PlanData& d) { d.uniform[0].cost = -1; }},
      {"uniform", [](PlanData& d) { d.uniform[0].format.bits = 16; }},
      {"SQNR floor", [](PlanData& d) { d.sqnr_floor_db = std::nan(""); }},
  };
  ASSERT_TRUE(Plan::create(example()).has_value());
  for (const auto& [words, damage] : cases) {
    PlanData data = example();
    damage(data);
    const auto plan = Plan::create(data);
    ASSERT_FALSE(plan.has_value()) << words;
    EXPECT_EQ(plan.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(plan.error().message, HasSubstr(words));
  }
}

TEST(Plan, DamagedFilesAreRefused) {
  const Json good = *parse_json(plan_to_json(*Plan::create(example())), "x");
  ASSERT_TRUE(plan_from_json(dump_json(good), "plan.json").has_value());
  const std::vector<std::pair<const char*, std::function<void(Json&)>>> cases = {
      {"kind", [](Json& j) { j.erase("kind"); }},
      {"sluice report", [](Json& j) { j["kind"] = "sluice report"; }},
      {"version", [](Json& j) { j["version"] = "one"; }},
      {"newer", [](Json& j) { j["version"] = 99; }},
      {"digest", [](Json& j) { j.erase("digest"); }},
      {"damaged or edited", [](Json& j) { j["digest"] = std::string(32, '0'); }},
      {"32 hexadecimal", [](Json& j) { j["digest"] = "abc"; }},
      {"32 hexadecimal", [](Json& j) { j["source"] = std::string(32, 'g'); }},
      {"damaged or edited", [](Json& j) { j["family"] = "gemma"; }},
      {"damaged or edited", [](Json& j) { j["tensors"][0]["error_max"] = 0.5; }},
      {"damaged or edited", [](Json& j) { j["tensors"][1]["encoder"] = "parity"; }},
      {"damaged or edited",
       [](Json& j) { j["budget_bytes"] = j["budget_bytes"].get<int64_t>() + 1; }},
      {"over the budget", [](Json& j) { j["budget_bytes"] = 1; }},
      {"budget_bytes", [](Json& j) { j["budget_bytes"] = -5; }},
      {"budget_bytes", [](Json& j) { j["budget_bytes"] = 1.5; }},
      {"budget_bytes", [](Json& j) { j["budget_bytes"] = UINT64_MAX; }},
      {"not part of a plan", [](Json& j) { j["extra"] = 1; }},
      {"not part of a plan", [](Json& j) { j["tensors"][0]["extra"] = 1; }},
      {"not part of a plan", [](Json& j) { j["tensors"][3]["format"]["bits"] = 4; }},
      {"not part of a plan", [](Json& j) { j["uniform"][0]["extra"] = 1; }},
      {"tensors", [](Json& j) { j["tensors"] = Json::object(); }},
      {"should be an object", [](Json& j) { j["tensors"][2] = 7; }},
      {"format", [](Json& j) { j["tensors"][0].erase("format"); }},
      {"mode", [](Json& j) { j["tensors"][0]["format"]["mode"] = "mxfp4"; }},
      {"bits", [](Json& j) { j["tensors"][0]["format"]["bits"] = 99; }},
      {"encoder", [](Json& j) { j["tensors"][0]["encoder"] = "magic"; }},
      {"layer", [](Json& j) { j["tensors"][0]["layer"] = -2; }},
      {"alpha", [](Json& j) { j["tensors"][0]["alpha"] = "two"; }},
      {"squared_error", [](Json& j) { j["tensors"][0]["squared_error"] = nullptr; }},
      {"worst_expert_sqnr_db", [](Json& j) { j["tensors"][0].erase("worst_expert_sqnr_db"); }},
      {"named twice", [](Json& j) { j["tensors"][0] = j["tensors"][1]; }},
      {"uniform", [](Json& j) { j.erase("uniform"); }},
  };
  for (const auto& [words, damage] : cases) {
    Json json = good;
    damage(json);
    const auto plan = plan_from_json(dump_json(json), "plan.json");
    ASSERT_FALSE(plan.has_value()) << words;
    EXPECT_THAT(plan.error().message, HasSubstr(words));
    EXPECT_THAT(plan.error().message, HasSubstr("plan.json"));
    EXPECT_TRUE(plan.error().code == ErrorCode::kCorrupt ||
                plan.error().code == ErrorCode::kUnsupported);
  }
}

TEST(Plan, TruncatedFilesAreRefused) {
  const std::string text = plan_to_json(*Plan::create(example()));
  for (size_t size = 0; size + 2 < text.size(); size += 97)
    EXPECT_FALSE(plan_from_json(text.substr(0, size), "plan.json").has_value()) << size;
  EXPECT_FALSE(plan_from_json("[1]", "plan.json").has_value());
}

}  // namespace
}  // namespace sluice::allocate
