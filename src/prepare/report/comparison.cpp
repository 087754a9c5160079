#include "report/comparison.h"

#include "base/error.h"
#include "base/units.h"
#include "report/comparison_chart.h"
#include "report/data/embedded.h"
#include "report/frame.h"
#include "report/html.h"
#include "report/tables.h"

namespace sluice::report {
namespace {

constexpr int kDocumentWidth = 900, kDocumentHeight = 440, kTitleHeight = 44;
constexpr size_t kMatrixOutputsMax = 16;  // more columns do not fit on a page

std::string chart(const ComparisonInput& input, ComparedFigure figure, int width, int height) {
  return fmt::format(
      R"(<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{} against bytes of weights">{}</svg>)",
      width, height, figure == ComparedFigure::kPerplexity ? "Perplexity" : "KL divergence",
      comparison_drawing(input, figure, width, height));
}

std::string charts(const ComparisonInput& input, ComparedFigure figure) {
  return fmt::format(R"(<div class="wide">{}</div><div class="narrow">{}</div>)",
                     chart(input, figure, 1000, 420), chart(input, figure, 420, 380));
}

std::string interval_cell(const Interval& found, int digits) {
  return fmt::format(
      R"(<td class="n" data-v="{:.9g}" data-tip="95 %: {:.{}f} to {:.{}f}">{:.{}f} ± {:.{}f}</td>)",
      found.mean, found.low, digits, found.high, digits, found.mean, digits,
      (found.high - found.low) / 2, digits);
}

std::string output_row(const ComparedOutput& output) {
  std::string row = fmt::format(
      R"(<tr><td><code>{}</code></td><td>{}</td><td class="n" data-v="{}">{}</td><td class="n">{:.3f}</td>)",
      escape(output.name), escape(output.storage), output.bytes, bytes_text(output.bytes),
      output.bits_per_weight);
  row += interval_cell(output.kl, 5);
  put(row, R"(<td class="n">{:.4f}</td>)", output.kl_p99);
  row += interval_cell(output.perplexity, 4);
  const Interval& share = output.agreement;
  return row + interval_cell({100 * share.mean, 100 * share.low, 100 * share.high}, 2) + "</tr>";
}

std::string outputs_table(const ComparisonInput& input) {
  std::string out = R"(<div class="scroll"><table class="list sortable"><thead><tr>)";
  for (const std::string_view head :
       {"output", "storage", "bytes", "bits per weight", "KL divergence", "99th percentile",
        "perplexity", "same top token, %"})
    put(out, R"(<th scope="col"{}><button type="button">{}</button></th>)",
        head == "output" || head == "storage" ? "" : R"( class="n")", head);
  out += "</tr></thead><tbody>";
  for (const ComparedOutput& output : input.outputs) out += output_row(output);
  return out + "</tbody></table></div>";
}

// The row's output against the column's: its divergence is lower, higher, or neither for certain.
std::string difference_cell(const Interval& found) {
  const std::string_view verdict = found.high < 0  ? "lower"
                                   : found.low > 0 ? "higher"
                                                   : "not told apart";
  return fmt::format(R"(<td class="n" data-tip="{}&#10;95 %: {:+.6f} to {:+.6f}">{:+.5f}{}</td>)",
                     verdict, found.low, found.high, found.mean,
                     found.high < 0 || found.low > 0 ? "" : " ?");
}

std::string differences_table(const ComparisonInput& input) {
  if (input.outputs.size() < 2 || input.outputs.size() > kMatrixOutputsMax) return {};
  std::string out = R"(<div class="scroll"><table class="list"><thead><tr><th></th>)";
  for (const ComparedOutput& output : input.outputs)
    put(out, R"(<th scope="col" class="n">{}</th>)", escape(output.name));
  out += "</tr></thead><tbody>";
  for (size_t row = 0; row < input.outputs.size(); ++row) {
    put(out, R"(<tr><th scope="row">{}</th>)", escape(input.outputs[row].name));
    for (size_t column = 0; column < input.outputs.size(); ++column)
      out += row == column ? R"(<td class="n"></td>)"
                           : difference_cell(input.differences[row][column]);
    out += "</tr>";
  }
  return out + "</tbody></table></div>";
}

std::string headline(const ComparisonInput& input) {
  const Interval& found = input.reference_perplexity;
  return fmt::format(
      R"(<header><p class="brand">Sluice comparison</p><h1>{}</h1><p class="subtitle">perplexity {:.4f} (95 %: {:.4f} to {:.4f})</p></header>)"
      "\n",
      escape(input.name), found.mean, found.low, found.high);
}

}  // namespace

std::string comparison_page(const ComparisonInput& input) {
  SLUICE_CHECK(!input.outputs.empty());
  std::string out = page_start(input.name + " · Sluice comparison");
  out += headline(input);
  put_section(out, "divergence", "KL divergence against size",
              "How far each output's predictions are from the reference's, in nats per token. "
              "Lines are 95 % intervals.",
              charts(input, ComparedFigure::kDivergence));
  put_section(out, "perplexity", "Perplexity against size",
              "The dashed line is the reference. A perplexity below it is no gain: it says that "
              "the text suits the change.",
              charts(input, ComparedFigure::kPerplexity));
  put_section(out, "outputs", "Outputs", "A click on a heading sorts.", outputs_table(input));
  put_section(out, "differences", "Differences",
              "Divergence of the row's output less that of the column's, on the same windows. "
              "A question mark: the 95 % interval has zero in it.",
              differences_table(input));
  put_section(out, "origin", "How it was measured", "", facts_list(input.origin));
  return out + page_end(input.tool);
}

std::string comparison_document(const ComparisonInput& input) {
  SLUICE_CHECK(!input.outputs.empty());
  const std::string title = escape(input.name);
  return fmt::format(
      R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 -{0} {1} {2}" class="chart"><title>{3}</title><style>{4}</style><rect x="0" y="-{0}" width="{1}" height="{2}" class="paper"/><text x="16" y="-16" class="title">{3}</text>{5}</svg>)"
      "\n",
      kTitleHeight, kDocumentWidth, kDocumentHeight + kTitleHeight, title, embedded_chart_css(),
      comparison_drawing(input, ComparedFigure::kDivergence, kDocumentWidth, kDocumentHeight));
}

}  // namespace sluice::report
