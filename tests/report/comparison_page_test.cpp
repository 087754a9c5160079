// The page and the drawing of a comparison: what is on them, figures at the edges, and that no name
// can become markup.
#include <gtest/gtest.h>

#include <cmath>

#include "report/comparison.h"
#include "report/inputs.h"

namespace sluice::report {
namespace {

using test::count;

ComparedOutput output_of(const std::string& name, uint64_t bytes, double kl) {
  return {name,
          "MLX 4/64",
          bytes,
          8e-9 * static_cast<double>(bytes),
          {kl, 0.9 * kl, 1.1 * kl},
          10 * kl,
          {10 * std::exp(kl), 9.9, 12},
          {0.9, 0.88, 0.92}};
}

ComparisonInput input_of(size_t outputs) {
  ComparisonInput input;
  input.name = "model";
  input.tool = "sluice test";
  input.reference_perplexity = {10, 9.5, 10.5};
  for (size_t i = 0; i < outputs; ++i)
    input.outputs.push_back(output_of(fmt::format("out-{}", i), 1'000'000 * (i + 2),
                                      std::exp2(-static_cast<double>(i))));
  input.differences.assign(outputs, std::vector<Interval>(outputs, {0.25, 0.125, 0.375}));
  input.origin = {{"text", "wiki"}};
  return input;
}

// Neither "nan" nor "inf" as a coordinate.
void expect_finite(const std::string& drawing) {
  EXPECT_EQ(drawing.find("\"nan"), std::string::npos);
  EXPECT_EQ(drawing.find("\"-nan"), std::string::npos);
  EXPECT_EQ(drawing.find("inf\""), std::string::npos);
}

TEST(ComparisonPage, HasEverySection) {
  const std::string page = comparison_page(input_of(3));
  for (const char* id : {"divergence", "perplexity", "outputs", "differences", "origin"})
    EXPECT_NE(page.find(fmt::format("<section id=\"{}\"", id)), std::string::npos) << id;
  EXPECT_EQ(count(page, "<circle class=\"after\""), 12u);  // two figures, wide and narrow
  EXPECT_EQ(page.find("http"), page.find("http-equiv"));
  expect_finite(page);
}

TEST(ComparisonPage, OfOneOutputHasNoDifferences) {
  const std::string page = comparison_page(input_of(1));
  EXPECT_EQ(page.find("id=\"differences\""), std::string::npos);
  expect_finite(page);
}

TEST(ComparisonPage, OfManyOutputsLeavesTheMatrixOut) {
  EXPECT_EQ(comparison_page(input_of(17)).find("id=\"differences\""), std::string::npos);
}

TEST(ComparisonPage, SaysWhatCannotBeToldApart) {
  ComparisonInput input = input_of(2);
  input.differences[0][1] = {-0.1, -0.3, 0.1};
  const std::string page = comparison_page(input);
  EXPECT_NE(page.find("-0.10000 ?"), std::string::npos);
  EXPECT_NE(page.find("not told apart"), std::string::npos);
  EXPECT_NE(page.find("higher"), std::string::npos);
}

TEST(ComparisonPage, NamesAreText) {
  ComparisonInput input = input_of(2);
  input.name = input.outputs[0].name = input.outputs[0].storage = input.origin[0].value =
      "<script>alert(1)</script>\"'";
  for (const std::string& text : {comparison_page(input), comparison_document(input)}) {
    EXPECT_EQ(text.find("<script>alert"), std::string::npos);
    EXPECT_NE(text.find("&lt;script&gt;alert"), std::string::npos);
  }
}

TEST(ComparisonDrawing, ExactOutputsLieOnTheFoot) {
  ComparisonInput input = input_of(2);
  input.outputs[1].kl = {0, 0, 0};
  const std::string drawing = comparison_document(input);
  EXPECT_EQ(count(drawing, "<circle"), 2u);
  EXPECT_EQ(count(drawing, "class=\"stem\""), 1u);
  expect_finite(drawing);
}

TEST(ComparisonDrawing, IntervalsThatReachBelowZeroAreDrawn) {
  ComparisonInput input = input_of(2);
  input.outputs[0].kl = {0.01, -0.02, 0.04};
  expect_finite(comparison_document(input));
}

TEST(ComparisonDrawing, AllExactStillHasAxes) {
  ComparisonInput input = input_of(2);
  for (ComparedOutput& output : input.outputs) output.kl = {0, 0, 0};
  expect_finite(comparison_document(input));
}

TEST(ComparisonDrawing, BrokenOutputsMakeTheAxisOfPerplexitiesLogarithmic) {
  ComparisonInput input = input_of(2);
  EXPECT_EQ(comparison_page(input).find("10³"), std::string::npos);
  input.outputs[0].perplexity = {5000, 4000, 6000};
  const std::string page = comparison_page(input);
  EXPECT_NE(page.find("10³"), std::string::npos);
  expect_finite(page);
}

}  // namespace
}  // namespace sluice::report
