// Figures of a server: Prometheus' text and /slots read, and what is shown of them.
#include "cli/server_gauges.h"

#include <gmock/gmock.h>

#include "chat/visible_text.h"
#include "cli/console.h"

namespace sluice::cli {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

ServerSample sample(const std::string& metrics, double time_s, const char* slots = "[]") {
  auto parsed = Metrics::parse(metrics, "metrics");
  auto list = parse_slots(slots, "slots");
  SLUICE_CHECK(parsed.has_value() && list.has_value());
  return {std::move(*parsed), std::move(*list), time_s};
}

TEST(Metrics, ReadsTheFormat) {
  const auto metrics = Metrics::parse(
      "# HELP a Something.\n# TYPE a counter\n"
      "a{path=\"/x\",status=\"200\"} 3\na{path=\"/y\",status=\"404\"} 2 1700000000\r\n\n"
      "b 1.5e3\nc NaN\ninfo{model=\"a \\\"b\\\" \\\\ c\\nd\"} 1\n",
      "m");
  ASSERT_TRUE(metrics) << metrics.error().message;
  EXPECT_EQ(metrics->value("a"), 5);
  EXPECT_EQ(metrics->sum_where("a", "status", "4"), 2);
  EXPECT_EQ(metrics->value("b"), 1500);
  EXPECT_EQ(metrics->value("c"), std::nullopt);
  EXPECT_EQ(metrics->value("nothing"), std::nullopt);
  EXPECT_EQ(metrics->label("info", "model"), "a \"b\" \\ c\nd");
}

TEST(Metrics, NamesTheLineThatIsNone) {
  for (const char* text : {"a 1\nb", "a 1\n<html>", "a 1\nb{x=1} 2", "a 1\nb{x=\"1} 2", "a 1\nb x",
                           "a 1\nb{x=\"1\" y=\"2\"} 2", "a 1\n{} 2"})
    EXPECT_EQ(Metrics::parse(text, "here").error().message, "here: line 2 is no metric") << text;
}

TEST(Metrics, Quantiles) {
  const auto metrics = Metrics::parse(
      "h_bucket{le=\"1\"} 0\nh_bucket{le=\"2\"} 10\nh_bucket{le=\"4\"} 20\nh_bucket{le=\"+Inf\"} "
      "20\n"
      "e_bucket{le=\"1\"} 0\ne_bucket{le=\"+Inf\"} 0\ntop_bucket{le=\"1\"} 0\n"
      "top_bucket{le=\"+Inf\"} 5\n",
      "m");
  EXPECT_DOUBLE_EQ(*metrics->quantile("h", 0.5), 2);
  EXPECT_DOUBLE_EQ(*metrics->quantile("h", 0.75), 3);
  EXPECT_DOUBLE_EQ(*metrics->quantile("top", 0.5), 1);
  EXPECT_EQ(metrics->quantile("e", 0.5), std::nullopt);
  EXPECT_EQ(metrics->quantile("none", 0.5), std::nullopt);
}

TEST(ServerGauges, RatesFromOneSampleToTheNext) {
  ServerGauges gauges("http://here");
  gauges.add(
      sample("sluice_disk_read_bytes_total 1000\nsluice_experts_requested_total 100\n"
             "sluice_experts_hit_total 50\n",
             10));
  EXPECT_EQ(gauges.json()["disk_read_bytes_per_s"], nullptr);
  EXPECT_EQ(gauges.json()["expert_hit_rate"], 0.5);
  gauges.add(
      sample("sluice_disk_read_bytes_total 5000\nsluice_experts_requested_total 200\n"
             "sluice_experts_hit_total 140\n",
             12));
  EXPECT_EQ(gauges.json()["disk_read_bytes_per_s"], 2000);
  EXPECT_EQ(gauges.json()["expert_hit_rate"], 0.9);
  // The server began anew.
  gauges.add(sample("sluice_disk_read_bytes_total 7\n", 13));
  EXPECT_EQ(gauges.json()["disk_read_bytes_per_s"], nullptr);
}

TEST(ServerGauges, LinesFit) {
  ServerGauges gauges("http://here");
  EXPECT_THAT(gauges.lines(80, 20, "no answer\x1b"), Contains("no answer^["));
  gauges.add(
      sample("sluice_resident_bytes 4e9\nsluice_memory_limit_bytes 8e9\n"
             "sluice_decode_tokens_per_second 12.34\n"
             "sluice_model_info{model=\"m\\u001b\x1b[2J\",family=\"llama\"} 1\n",
             1,
             R"([{"id":0,"state":"decode","model":"日本","prompt_tokens":5,)"
             R"("generated_tokens":7,"context":4096}])"));
  const auto lines = gauges.lines(80, 40, "");
  EXPECT_THAT(lines, Contains(HasSubstr("████████████░░░░░░░░░░░░  4.000 GB of 8.000 GB")));
  EXPECT_THAT(lines, Contains(HasSubstr("12.3 tokens/s")));
  EXPECT_THAT(lines, Contains(HasSubstr("decode       5        7     4096  日本")));
  for (const size_t columns : {0u, 1u, 20u, 37u, 80u, 500u})
    for (const size_t rows : {0u, 1u, 5u, 100u}) {
      const auto fitted = gauges.lines(columns, rows, "something is wrong");
      EXPECT_LE(fitted.size(), rows);
      for (const std::string& line : fitted) {
        EXPECT_LE(chat::text_columns(line), columns);
        EXPECT_EQ(line.find('\x1b'), std::string::npos);
      }
    }
}

TEST(ServerGauges, RefusesWhatIsNoListOfSlots) {
  for (const char* text : {"{}", "[1]", "[{}]", "x", R"([{"id":-1,"state":"idle"}])",
                           R"([{"id":0,"state":"idle","prompt_tokens":1.5}])"})
    EXPECT_EQ(parse_slots(text, "here").error().code, ErrorCode::kCorrupt) << text;
}

TEST(Gauges, BarsAndSparklines) {
  EXPECT_EQ(bar_text(0.5, 4), "██░░");
  EXPECT_EQ(bar_text(7, 2), "██");
  EXPECT_EQ(bar_text(-1, 2), "░░");
  EXPECT_EQ(sparkline({0, 1, 2, 4}, 10), "▁▂▄█");
  EXPECT_EQ(sparkline({9, 4, 4}, 2), "██");
  EXPECT_EQ(sparkline({0, 0}, 5), "▁▁");
  EXPECT_EQ(sparkline({}, 5), "");
}

}  // namespace
}  // namespace sluice::cli
