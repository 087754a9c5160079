// The page as a whole and its parts: what is on it, what is left out, and that no string from a
// file can become markup.
#include "report/page.h"

#include <gtest/gtest.h>

#include <cmath>

#include "report/heat_map.h"
#include "report/html.h"
#include "report/inputs.h"
#include "report/panels.h"
#include "report/safety.h"
#include "report/scale.h"
#include "report/tables.h"

namespace sluice::report {
namespace {

using test::count;

TEST(Escape, MarkupBecomesEntities) {
  EXPECT_EQ(escape(R"(<script>"a"&'b'</script>)"),
            "&lt;script&gt;&quot;a&quot;&amp;&#39;b&#39;&lt;/script&gt;");
  EXPECT_EQ(escape("größe·層"), "größe·層");
}

TEST(Escape, WhatIsNoTextIsReplaced) {
  const std::string bad = "\xef\xbf\xbd";
  EXPECT_EQ(escape("a\x01\n\x7f"), "a" + bad + bad + bad);
  EXPECT_EQ(escape("\xff\xc0\xaf"), bad + bad + bad);            // never a lead; overlong
  EXPECT_EQ(escape("\xed\xa0\x80"), bad + bad + bad);            // a surrogate
  EXPECT_EQ(escape("x\xe2\x82"), "x" + bad + bad);               // cut short
  EXPECT_EQ(escape("\xf4\x90\x80\x80"), bad + bad + bad + bad);  // above U+10FFFF
  EXPECT_EQ(escape("a\xe2\x80\xae"
                   "b"),
            "a" + bad + "b");  // right-to-left override
}

TEST(Numbers, AreShortAndStable) {
  EXPECT_EQ(coordinate(-0.04), "0");
  EXPECT_EQ(coordinate(12.349), "12.3");
  EXPECT_EQ(count_text(999), "999");
  EXPECT_EQ(count_text(134'515'008), "134.5 M");
  EXPECT_EQ(count_text(30'500'000'000), "30.50 B");
  EXPECT_EQ(db_text(INFINITY), "exact");
  EXPECT_EQ(db_text(21.834), "21.83 dB");
  EXPECT_EQ(percent_text(1, 8), "12.5 %");
  EXPECT_EQ(percent_text(1, 0), "0 %");
  EXPECT_EQ(power_text(-12), "10⁻¹²");
}

TEST(Scale, TicksAreRoundAndInside) {
  EXPECT_EQ(round_steps(0, 29, 6), (std::vector<double>{0, 5, 10, 15, 20, 25}));
  EXPECT_TRUE(round_steps(3, 3, 4).empty());
  const auto bytes = byte_ticks(39e6, 155e6, 8);
  ASSERT_FALSE(bytes.empty());
  EXPECT_EQ(bytes.front().label, "40 MB");
  EXPECT_EQ(byte_ticks(3.1e9, 17e9, 4).front().label, "5 GB");
  const auto decades = log_ticks(-3.2, 2.1);
  EXPECT_EQ(decades.size(), 6u);
  EXPECT_EQ(decades.front().label, "10⁻³");
  EXPECT_EQ(log_ticks(0.1, 1.05).front().label, "2·10⁰");
}

TEST(Levels, FormatsOfOneWidthAreNeighbours) {
  EXPECT_EQ(bits_level(2.25), 0);
  EXPECT_EQ(bits_level(2.5), 0);
  EXPECT_EQ(bits_level(4.25), bits_level(4.5));
  EXPECT_LT(bits_level(4.5), bits_level(5));
  EXPECT_EQ(bits_level(8.25), bits_level(9));
  EXPECT_EQ(bits_level(16), 8);
  EXPECT_EQ(db_level(5), 0);
  EXPECT_EQ(db_level(INFINITY), 8);
}

TEST(Page, HasEverySectionOfADensePlan) {
  ReportInput input = test::dense_input();
  input.stages = {{"analyze", 2.0, 1'000'000'000}, {"plan", 0.1, 0}};
  input.run = {{"peak memory", "30.0 MB"}};
  const std::string page = report_page(input);
  for (const char* id : {"curve", "map", "formats", "error", "weakest", "safety", "roles",
                         "verification", "run", "origin", "modules"})
    EXPECT_EQ(count(page, fmt::format("<section id=\"{}\">", id)), 1u) << id;
  EXPECT_EQ(count(page, "<section id=\"experts\">"), 0u);
  // One cell for each of 7 roles in 30 layers, one for the embedding and one for the norms.
  EXPECT_EQ(count(page, "class=\"cell "), 7u * 30 + 2);
  EXPECT_EQ(count(page, "<figure class=\"panel\">"), 8u);
  EXPECT_NE(page.find("500.0 MB/s"), std::string::npos);  // the rate of analyze
  EXPECT_NE(page.find("✓"), std::string::npos);
}

TEST(Page, NamesTheWorstExperts) {
  ReportInput input = test::expert_input();
  const std::string page = report_page(input);
  EXPECT_EQ(count(page, "<section id=\"experts\">"), 1u);
  const ModuleViews views = module_views(input);
  EXPECT_EQ(count(expert_panels(views), "<figure"), 3u);
  EXPECT_EQ(count(experts_table(views), "<tr>"), 1u + 12);
  EXPECT_NE(experts_table(views).find("1.00 dB</td>"), std::string::npos);  // as synthesised
}

TEST(Page, WarnsOfWhatMayFail) {
  ReportInput input = test::dense_input();
  allocate::PlanData data = input.plan->data();
  data.sqnr_floor_db = 20;  // at which modules of four bits are near it
  input.plan = allocate::Plan::create(std::move(data)).value();
  const auto warnings = plan_warnings(*input.plan, 4);
  ASSERT_EQ(warnings.size(), 5u);
  EXPECT_NE(warnings.front().message.find("dB above the floor of 20 dB"), std::string::npos);
  EXPECT_TRUE(warnings.back().subject.empty());
  EXPECT_NE(warnings.back().message.find("more modules near the floor"), std::string::npos);
  input.verification->directions_measured = 3;
  input.verification->concentrated = {{"a.weight", {}, 0.1, 0.05}, {"b.weight", 7, 0.2, 0.05}};
  const std::string section = safety_section(input);
  EXPECT_NE(section.find(warnings.front().subject), std::string::npos);
  EXPECT_LT(section.find("expert 7: 20.0 % of the error in 8 directions, of noise 5.0 %"),
            section.find("10.0 % of the error in 8 directions, of noise 5.0 %"));
}

TEST(Page, SaysThatThereIsNothingToWatch) {
  ReportInput input = test::dense_input();
  EXPECT_TRUE(plan_warnings(*input.plan, 4).empty());
  EXPECT_NE(safety_section(input).find("No module within 3 dB"), std::string::npos);
  EXPECT_EQ(safety_section(input).find("directions"), std::string::npos);
  input.verification->directions_measured = 3;
  EXPECT_NE(safety_section(input).find("directions"), std::string::npos);
  input.plan.reset();
  EXPECT_TRUE(safety_section(input).empty());
}

TEST(Page, LeavesOutWhatItHasNoFiguresFor) {
  ReportInput input = test::dense_input();
  input.items.clear();
  input.curve.clear();
  input.verification.reset();
  input.origin.clear();
  const std::string page = report_page(input);
  for (const char* id : {"verification", "run", "origin"})
    EXPECT_EQ(count(page, fmt::format("<section id=\"{}\">", id)), 0u) << id;
  EXPECT_EQ(count(page, "<polyline"), 0u);
  EXPECT_NE(page.find("not recorded"), std::string::npos);
  EXPECT_EQ(count(page, "class=\"before\""), 0u);
}

TEST(Page, AnAnalysisAloneHasACurveAndAMap) {
  ReportInput input = test::dense_input();
  input.plan.reset();
  input.verification.reset();
  const std::string page = report_page(input);
  EXPECT_EQ(count(page, "<section id=\"map\">"), 1u);
  EXPECT_EQ(count(page, "<section id=\"formats\">"), 0u);
  EXPECT_NE(page.find("smallest mix"), std::string::npos);
}

TEST(Page, AFailedOrStaleVerificationIsNeverGreen) {
  ReportInput input = test::dense_input();
  input.verification->passed = false;
  input.verification->finding_count = 120;
  input.verification->findings = {{"model.norm.weight", "digest differs"}};
  const std::string failed = report_page(input);
  EXPECT_EQ(count(failed, "class=\"value good\""), 0u);
  EXPECT_NE(failed.find("FAILED with 120 findings"), std::string::npos);
  EXPECT_NE(failed.find("… and 119 more"), std::string::npos);
  input.verification->passed = true;
  input.verification->stale = true;
  const std::string stale = report_page(input);
  EXPECT_EQ(count(stale, "class=\"value good\""), 0u);
  EXPECT_NE(stale.find("out of date"), std::string::npos);
}

TEST(Page, TheSameInputGivesTheSameBytes) {
  EXPECT_EQ(report_page(test::dense_input()), report_page(test::dense_input()));
}

// Every string that can come from a file, hostile: none may open an element, close an attribute or
// end the script.
TEST(Page, StringsFromFilesStayText) {
  const std::string evil = "\"><script>alert(1)</script><b onmouseover='x' a=\"";
  auto items = allocate::synthetic::model_items(allocate::synthetic::kSmolLM2_135M, 3);
  for (allocate::Item& item : items) {
    item.path += evil;
    if (item.quantizable) item.role += evil;
  }
  ReportInput input = test::input_of(std::move(items));
  const size_t scripts = count(report_page(input), "<script");
  input.name = input.tool = input.family = input.dtype = evil;
  input.verification->passed = false;
  input.verification->finding_count = 1;
  input.verification->findings = {{evil, evil}};
  input.verification->directions_measured = 1;
  input.verification->concentrated = {{evil, 1, 0.5, 0.1}};
  input.stages = {{evil, 1, 1000}};
  input.run = input.origin = {{evil, evil}};
  const std::string page = report_page(input);
  EXPECT_EQ(scripts, 1u);
  EXPECT_EQ(count(page, "<script"), 1u);
  EXPECT_EQ(count(page, "alert(1)</"), 0u);
  EXPECT_EQ(count(page, "<b on"), 0u);
  EXPECT_GT(count(page, "&lt;script&gt;alert(1)"), 100u);
}

TEST(Page, LoadsNothing) {
  const std::string page = report_page(test::expert_input());
  for (const char* what : {"http:", "https:", "src=", "url(", "@import", "fetch(", "innerHTML"})
    EXPECT_EQ(count(page, what), 0u) << what;
  EXPECT_EQ(count(page, "href=\"data:,\""), count(page, "href="));
}

TEST(Modules, AreHeldAgainstTheBestUniformPlanThatFits) {
  const ReportInput input = test::dense_input();
  const allocate::UniformPlan* rival = uniform_rival(input);
  ASSERT_NE(rival, nullptr);
  EXPECT_LE(rival->exact_bytes, input.plan->data().budget_bytes);
  for (const allocate::UniformPlan& other : input.uniform) {
    if (other.encoder == numerics::Encoder::kParity &&
        other.exact_bytes <= input.plan->data().budget_bytes) {
      EXPECT_LE(rival->cost, other.cost);
    }
  }
  double share = 0;
  for (const ModuleView& module : module_views(input).modules) {
    share += module.share;
    EXPECT_TRUE(module.before.has_value()) << module.name;
  }
  EXPECT_NEAR(share, 1, 1e-9);
}

TEST(Modules, MeasuredErrorsReplacePredictedOnes) {
  ReportInput input = test::dense_input();
  const std::string name = input.plan->data().tensors.front().tensor_name();
  input.measured[name] = {1, 1000, 0.5};
  EXPECT_NEAR(module_views(input).modules.front().db(), 30, 1e-9);
}

TEST(Tables, LongListsAreCutAndSaySo) {
  allocate::synthetic::ModelShape shape = allocate::synthetic::kQwen3_30B_A3B;
  shape.layers = 4;
  shape.stacked = false;
  const ReportInput input = test::input_of(allocate::synthetic::model_items(shape, 3));
  const std::string table = all_modules_table(module_views(input));
  EXPECT_EQ(count(table, "<tr>"), 1u + 1000);
  EXPECT_NE(table.find("The 1000 modules of least SQNR out of 1558."), std::string::npos);
}

}  // namespace
}  // namespace sluice::report
