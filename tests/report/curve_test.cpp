// The curve as SVG and in characters.
#include <gtest/gtest.h>

#include <algorithm>

#include "report/curve_chart.h"
#include "report/inputs.h"

namespace sluice::report {
namespace {

using test::count;

TEST(Curve, DrawsEveryPointTheUniformFormatsAndTheChosenPlan) {
  const ReportInput input = test::dense_input();
  const std::string svg = curve_svg(input, 1000, 420);
  EXPECT_EQ(count(svg, "<polyline"), 1u);
  EXPECT_EQ(count(svg, "class=\"chosen\""), 1u);
  EXPECT_EQ(count(svg, "<circle class=\"uniform"), input.uniform.size());
  const auto with_error = std::ranges::count_if(
      input.curve, [](const allocate::CurvePoint& point) { return point.cost > 0; });
  EXPECT_EQ(count(svg, "class=\"hit\""), static_cast<size_t>(with_error));
}

TEST(Curve, LabelsNeverLeaveTheDrawing) {
  const std::string svg = curve_svg(test::dense_input(), 420, 380);
  for (size_t at = svg.find("<text x=\""); at != std::string::npos;
       at = svg.find("<text x=\"", at + 1)) {
    const double x = std::stod(svg.substr(at + 9));
    EXPECT_GE(x, 0);
    EXPECT_LE(x, 420);
  }
}

TEST(Curve, ADocumentIsWholeAndCarriesItsStyle) {
  ReportInput input = test::dense_input();
  input.name = "<model>";
  const std::string svg = curve_document(input);
  EXPECT_TRUE(svg.starts_with("<svg xmlns="));
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
  EXPECT_NE(svg.find("prefers-color-scheme:dark"), std::string::npos);
  EXPECT_EQ(count(svg, "<model>"), 0u);
  EXPECT_NE(svg.find("&lt;model&gt;"), std::string::npos);
}

TEST(Curve, NothingToDrawIsEmpty) {
  EXPECT_EQ(curve_svg({}, 1000, 420), "");
  EXPECT_EQ(curve_text({}, 80, 20), "");
}

// Two points and one uniform format: small enough to check every character.
TEST(CurveText, IsDrawnInBraille) {
  ReportInput input;
  input.curve = {{1'000'000, 100, 0, 2}, {3'000'000, 1, 0, 6}};
  allocate::UniformPlan uniform;
  uniform.format = {numerics::QuantMode::kAffine, 4, 64};
  uniform.exact_bytes = 2'000'000;
  uniform.cost = 100;
  input.uniform = {uniform};
  EXPECT_EQ(curve_text(input, 40, 10),
            "    10² ┤ ⠤⣀            ○\n"
            "  5·10¹ ┤   ⠉⠒⠤⣀\n"
            "  2·10¹ ┤       ⠉⠒⠤⢄⡀\n"
            "        │           ⠈⠑⠢⢄⡀\n"
            "    10¹ ┤               ⠈⠑⠢⢄⡀\n"
            "  5·10⁰ ┤                   ⠈⠑⠢⢄⡀\n"
            "  2·10⁰ ┤                       ⠈⠑⠢⢄⡀\n"
            "    10⁰ ┤                           ⠈⠑⠂\n"
            "        └───────────────────────────────\n"
            "        1 MB  1.5 MB  2 MB  2.5 MB  3 MB\n");
}

TEST(CurveText, FitsItsLines) {
  const std::string text = curve_text(test::dense_input(), 80, 22);
  EXPECT_EQ(count(text, "\n"), 22u);
  for (size_t start = 0; start < text.size();) {
    const size_t end = text.find('\n', start);
    const std::string line = text.substr(start, end - start);
    EXPECT_LE(std::ranges::count_if(line, [](char c) { return (c & 0xc0) != 0x80; }), 80) << line;
    start = end + 1;
  }
  EXPECT_GT(count(text, "○"), 5u);
  EXPECT_GT(count(text, "●"), 0u);
  EXPECT_NE(text.find(" MB"), std::string::npos) << text;
}

}  // namespace
}  // namespace sluice::report
