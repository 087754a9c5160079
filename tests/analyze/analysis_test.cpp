// The analysis file: what is written is read back, and anything else is an error that names it.
#include "analyze/analysis.h"

#include <gmock/gmock.h>

#include <limits>

#include "analyze/analyses.h"
#include "io/journal.h"

namespace sluice::analyze {
namespace {

using ::testing::HasSubstr;

constexpr double kInf = std::numeric_limits<double>::infinity();

AnalysisHeader some_header() {
  AnalysisHeader header;
  header.source = {1, 2};
  header.family = "llama";
  header.dtype = "bfloat16";
  header.layers = 3;
  header.kv = {{1, 4, 64, 0}, {2, 4, 64, 512}};
  header.modules = 1;
  header.best_formats = {"3/32"};
  return header;
}

ModuleRecord some_record() {
  ModuleRecord record;
  record.item.path = "model.layers.0.mlp.up_proj";
  record.item.parameter = "weight";
  record.item.role = "mlp_up";
  record.item.layer = 0;
  record.item.elements = 4 * 64;
  record.item.bits_floor = 8;
  record.item.quantizable = true;
  record.item.source = {3, 4};
  record.shape = {4, 64};
  record.plain_dtype = numerics::DType::kBF16;
  allocate::Candidate cast;
  cast.bytes = 512;
  cast.error.squared_weight = 0.1;
  cast.worst_expert_sqnr_db = cast.worst_row_sqnr_db = kInf;
  allocate::Candidate parity = cast;
  parity.format = test::affine(4, 64);
  parity.encoder = numerics::Encoder::kParity;
  parity.bytes = 144;
  parity.error = {1.0 / 3, 0.1, 0.7};
  parity.worst_expert = 7;
  parity.worst_expert_sqnr_db = 21.5;
  parity.worst_row_sqnr_db = 1.0 / 7;
  record.item.candidates = {cast, parity};
  return record;
}

Result<Analysis> load(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return load_analysis(*io::memory_source("a.analysis", {bytes.begin(), bytes.end()}));
}

std::string file_of(const std::vector<Json>& records) {
  std::string text;
  for (const Json& record : records) text += io::journal_line(record);
  return text;
}

TEST(Analysis, RecordsRoundTrip) {
  const auto header = header_from_json(header_to_json(some_header()), "t");
  ASSERT_TRUE(header);
  EXPECT_EQ(*header, some_header());
  const ModuleRecord record = some_record();
  const auto again = record_from_json(record_to_json(record), "t");
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->item, record.item);
  EXPECT_EQ(again->shape, record.shape);
  EXPECT_EQ(again->plain_dtype, record.plain_dtype);
}

TEST(Analysis, CompleteFilesLoad) {
  const auto analysis = load(file_of(
      {header_to_json(some_header()), record_to_json(some_record()), {{"complete", true}}}));
  ASSERT_TRUE(analysis) << analysis.error().message;
  EXPECT_EQ(analysis->items().size(), 1u);
  EXPECT_EQ(analysis->model_dtype(), numerics::DType::kBF16);
  const std::vector<uint32_t> plain = {0}, quantized = {1};
  EXPECT_EQ(*analysis->exact_bytes(plain) - *analysis->exact_bytes(quantized), 512u - 144u);
}

TEST(Analysis, UnfinishedAndDamagedFilesSaySo) {
  const Json header = header_to_json(some_header()), record = record_to_json(some_record());
  const auto message = [](const std::string& text) { return load(text).error().message; };
  EXPECT_THAT(message(""), HasSubstr("not an analysis"));
  EXPECT_THAT(message("hello\n"), HasSubstr("not an analysis"));
  EXPECT_THAT(message(file_of({record})), HasSubstr("not an analysis"));
  EXPECT_THAT(message(file_of({header})), HasSubstr("0 of 1 modules"));
  EXPECT_THAT(message(file_of({header, record})), HasSubstr("run analyze again to finish"));
  EXPECT_THAT(message(file_of({header, {{"complete", true}}})), HasSubstr("0 of 1"));
  const std::string whole = file_of({header, record, {{"complete", true}}});
  EXPECT_THAT(message(whole + "x"), HasSubstr(fmt::format("damaged at byte {}", whole.size())));
}

TEST(Analysis, NewerVersionsAreNotGuessedAt) {
  Json header = header_to_json(some_header());
  header["version"] = kAnalysisVersion + 1;
  EXPECT_EQ(header_from_json(header, "t").error().code, ErrorCode::kUnsupported);
}

// Every key removed, and every value replaced by others of the wrong kind or range.
TEST(Analysis, EveryFieldIsChecked) {
  const Json bad_values = {nullptr,        -5,    1.5,       "nonsense", true, Json::array({"x"}),
                           Json::object(), 1e300, UINT64_MAX};
  const Json header = header_to_json(some_header());
  for (const auto& [key, value] : header.items()) {
    Json without = header;
    without.erase(key);
    EXPECT_FALSE(header_from_json(without, "t")) << key;
  }
  const Json record = record_to_json(some_record());
  for (const auto& [key, value] : record.items()) {
    SCOPED_TRACE(key);
    Json changed = record;
    changed.erase(key);
    EXPECT_FALSE(record_from_json(changed, "t"));
    for (const Json& bad : bad_values) {
      if (bad.type() == value.type()) continue;
      if (value.is_number_float() && bad.is_number()) continue;
      changed[key] = bad;
      EXPECT_FALSE(record_from_json(changed, "t")) << bad;
    }
  }
  const Json candidate = record.at("candidates").at(1);
  for (const auto& [key, value] : candidate.items()) {
    SCOPED_TRACE(key);
    // The SQNRs of an exact encoding are null.
    if (key.ends_with("_db")) continue;
    Json changed = record;
    changed["candidates"][1].erase(key);
    EXPECT_FALSE(record_from_json(changed, "t"));
  }
}

TEST(Analysis, ContradictionsAreErrors) {
  const auto refuse = [](std::string_view key, const Json& value) {
    Json record = record_to_json(some_record());
    record[std::string(key)] = value;
    const auto parsed = record_from_json(record, "t");
    EXPECT_FALSE(parsed) << key << " " << value;
    if (!parsed) {
      EXPECT_EQ(parsed.error().code, ErrorCode::kCorrupt) << parsed.error().message;
    }
  };
  refuse("shape", {4, 65});
  refuse("shape", Json::array());
  refuse("shape", {1ull << 40, 1ull << 40});
  refuse("shape", {-4, 64});
  refuse("elements", 255);
  refuse("plain_dtype", "Q9");
  refuse("candidates", Json::array());
  refuse("candidates", Json::array({1}));
  refuse("squared_weight", -1.0);
  refuse("source", "xyz");
}

}  // namespace
}  // namespace sluice::analyze
