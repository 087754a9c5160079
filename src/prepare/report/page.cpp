#include "report/page.h"

#include <algorithm>
#include <cmath>

#include "base/units.h"
#include "report/curve_chart.h"
#include "report/frame.h"
#include "report/heat_map.h"
#include "report/html.h"
#include "report/panels.h"
#include "report/safety.h"
#include "report/tables.h"

namespace sluice::report {
namespace {

struct Tile {
  std::string label, value, note;
  std::string css;     // of the value
  double filled = -1;  // 0 … 1 draws a bar
};

std::string tile_html(const Tile& tile) {
  std::string out =
      fmt::format(R"(<div class="tile"><div class="label">{}</div><div class="value {}">{}</div>)",
                  tile.label, tile.css, tile.value);
  if (tile.filled >= 0)
    put(out, R"(<span class="track"><span style="width:{}%"></span></span>)",
        coordinate(100 * tile.filled));
  return out + fmt::format(R"(<div class="note">{}</div></div>)", tile.note);
}

Tile verified_tile(const ReportInput& input) {
  if (!input.verification)
    return {"verification", "not recorded", "run <code>sluice verify --record</code>", "plain", -1};
  const Verification& found = *input.verification;
  if (found.stale)
    return {"verification", "out of date", "recorded for another state of this folder", "bad", -1};
  if (!found.passed)
    return {"verification", "failed",
            fmt::format("{} {}", found.finding_count,
                        found.finding_count == 1 ? "finding" : "findings"),
            "bad", -1};
  return {"verification", "passed",
          fmt::format("{} tensors; {} of {} modules byte for byte", found.tensors,
                      found.reencoded_modules, found.modules),
          "good", -1};
}

std::vector<Tile> plan_tiles(const ReportInput& input, const ModuleViews& views) {
  const allocate::PlanData& plan = input.plan->data();
  std::vector<Tile> tiles;
  const double filled = plan.budget_bytes == 0 ? 0
                                               : static_cast<double>(plan.exact_bytes) /
                                                     static_cast<double>(plan.budget_bytes);
  tiles.push_back(
      {"size", bytes_text(plan.exact_bytes),
       fmt::format("of {} allowed · {:.2f} %", bytes_text(plan.budget_bytes), 100 * filled), "",
       filled});
  tiles.push_back({"bits per weight", fmt::format("{:.3f}", allocate::bits_per_weight(*input.plan)),
                   input.source_bytes == 0
                       ? fmt::format("{} weights", count_text(plan.elements))
                       : fmt::format("source {}, {:.3f} bits", bytes_text(input.source_bytes),
                                     8 * static_cast<double>(input.source_bytes) /
                                         static_cast<double>(std::max<uint64_t>(plan.elements, 1))),
                   "", -1});
  if (plan.method == "uniform")
    tiles.push_back({"method", "uniform", "one format for every module", "plain", -1});
  else if (plan.gap() == 0)
    tiles.push_back(
        {"optimality", "optimal", "proved: no mix of this size has less error", "", -1});
  else
    tiles.push_back({"optimality", fmt::format("≤ {:.2g} %", 100 * plan.gap()),
                     "certified distance from the best possible mix", "", -1});
  if (!views.uniform.empty() && views.uniform_cost > 0)
    tiles.push_back(
        {"error", plan.cost == 0 ? "none" : fmt::format("{:.2f}×", plan.cost / views.uniform_cost),
         fmt::format("of uniform {} at {}", escape(views.uniform), bytes_text(views.uniform_bytes)),
         "", -1});
  tiles.push_back(verified_tile(input));
  return tiles;
}

std::vector<Tile> analysis_tiles(const ReportInput& input) {
  uint64_t elements = 0;
  for (const allocate::Item& item : input.items) elements += item.elements;
  std::vector<Tile> tiles;
  tiles.push_back({"weights", count_text(elements), "", "", -1});
  tiles.push_back({"modules", fmt::format("{}", input.items.size()), "", "", -1});
  if (!input.curve.empty()) {
    tiles.push_back({"smallest mix", bytes_text(input.curve.front().bytes),
                     fmt::format("{:.3f} bits per weight", input.curve.front().bits_per_weight), "",
                     -1});
    tiles.push_back({"nothing left to gain from", bytes_text(input.curve.back().bytes),
                     fmt::format("{:.3f} bits per weight", input.curve.back().bits_per_weight), "",
                     -1});
  }
  return tiles;
}

std::string subtitle(const ReportInput& input) {
  std::string out = escape(input.family);
  const auto add = [&](const std::string& text) {
    if (!out.empty() && !text.empty()) out += " · ";
    out += text;
  };
  if (input.layers > 0) add(fmt::format("{} layers", input.layers));
  add(escape(input.dtype));
  if (input.plan) add(count_text(input.plan->data().elements) + " weights");
  return out;
}

std::string headline(const ReportInput& input, const ModuleViews& views) {
  std::string out = fmt::format(
      R"(<header><p class="brand">Sluice report</p><h1>{}</h1><p class="subtitle">{}</p><div class="tiles">)",
      escape(input.name), subtitle(input));
  for (const Tile& tile : input.plan ? plan_tiles(input, views) : analysis_tiles(input))
    out += tile_html(tile);
  return out + "</div></header>\n";
}

std::string curve_section(const ReportInput& input) {
  const std::string wide = curve_svg(input, 1000, 420);
  if (wide.empty()) return {};
  std::string out = R"(<p class="legend">)";
  if (!input.curve.empty()) out += R"(<span class="key curve">best mix at every budget</span>)";
  if (input.plan) out += R"(<span class="key chosen">this model</span>)";
  bool best = false, parity = false;
  for (const allocate::UniformPlan& plan : input.uniform)
    (plan.encoder == numerics::Encoder::kParity ? parity : best) = true;
  if (parity)
    out += R"(<span class="key uniform">uniform bits/group, as mlx_lm.convert makes them</span>)";
  if (best) out += R"(<span class="key uniform best">the same, codes searched</span>)";
  return out + R"(</p><div class="wide">)" + wide + R"(</div><div class="narrow">)" +
         curve_svg(input, 420, 380) + "</div>";
}

std::string panels_legend(const ModuleViews& views) {
  std::string out = R"(<p class="legend"><span class="key after">)";
  out += views.planned ? "this model" : "4/64 parity";
  out += "</span>";
  if (!views.uniform.empty())
    put(out, R"(<span class="key before">uniform {} at {}</span>)", escape(views.uniform),
        bytes_text(views.uniform_bytes));
  return out + "</p>";
}

std::string error_lead(const ReportInput& input, const ModuleViews& views) {
  std::string out =
      "Signal to quantization noise of every module, layer by layer, all to one "
      "scale; higher is better, 6 dB is one bit, and dots on the line marked = are "
      "exact.";
  if (!views.uniform.empty())
    put(out, " Solid is {}; hollow is what a uniform {} of {} would give.",
        input.measured.empty() ? "the plan's prediction" : "this model as written",
        escape(views.uniform), bytes_text(views.uniform_bytes));
  return out;
}

std::string verification_section(const ReportInput& input) {
  if (!input.verification) return {};
  const Verification& found = *input.verification;
  std::string out = R"(<p class="verdict )";
  out += found.passed && !found.stale ? "good" : "bad";
  out += R"(">)";
  if (found.stale) {
    out += "The recorded verification is about another state of this folder: verify it again.</p>";
  } else if (found.passed) {
    put(out,
        "Passed: {} tensors in {} {} and {} of weight files, re-read by code that shares no "
        "encoder with the writer. Layout, the loader's rules, digests, budget and every module's "
        "error hold; {} of {} modules were encoded again from the source and match byte for "
        "byte.</p>",
        found.tensors, found.shards, found.shards == 1 ? "shard" : "shards",
        bytes_text(found.weight_file_bytes), found.reencoded_modules, found.modules);
  } else {
    put(out, "FAILED with {} {}.</p>", found.finding_count,
        found.finding_count == 1 ? "finding" : "findings");
  }
  return out + verification_findings(found);
}

std::string run_section(const ReportInput& input) {
  return stages_table(input.stages) + facts_list(input.run);
}

std::string all_modules_section(const ModuleViews& views) {
  const std::string table = all_modules_table(views);
  if (table.empty()) return {};
  return "<details><summary>Show the table; a click on a heading sorts it</summary>" + table +
         "</details>";
}

}  // namespace

std::string report_page(const ReportInput& input) {
  const ModuleViews views = module_views(input);
  std::string out = page_start(input.name + " · Sluice report");
  out += headline(input, views);
  put_section(out, "curve", "Error against size",
              "Fewer bytes, more error. The error is what the solver minimises: squared relative "
              "error of every module, weighted by how much the model feels it.",
              curve_section(input));
  put_section(out, "map", views.planned ? "Where the bits went" : "How hard each module is",
              views.planned ? "Every module, by layer and role; the scale is below."
                            : "Every module at 4 bits in groups of 64, by layer and role.",
              views.modules.empty() ? std::string() : heat_map(views));
  if (views.planned) put_section(out, "formats", "Formats", "", format_shares_table(views));
  const std::string panels = error_panels(views);
  put_section(out, "error", views.uniform.empty() ? "Error by module" : "Error, before and after",
              error_lead(input, views), panels.empty() ? panels : panels_legend(views) + panels);
  put_section(out, "weakest", "Weakest modules",
              views.uniform.empty() ? ""
                                    : "Least SQNR first. The tick on the bar is where the uniform "
                                      "format would have been.",
              weakest_table(views));
  const std::string experts = expert_panels(views);
  put_section(out, "experts", "Weakest experts",
              "Each stack of experts as a whole (solid) and its worst expert (hollow). An expert "
              "far below its stack is one that rounding hurts most.",
              experts.empty() ? experts : experts + experts_table(views));
  put_section(out, "safety", "What to watch",
              "Where a model this small is most likely to fail. The first two are the plan's "
              "prediction; directions are measured on the output.",
              safety_section(input));
  put_section(out, "roles", "Roles", "", roles_table(views));
  put_section(out, "verification", "Verification", "", verification_section(input));
  put_section(out, "run", "Time and memory", "", run_section(input));
  put_section(out, "origin", "How it was made", "", facts_list(input.origin));
  put_section(out, "modules", "All modules", "", all_modules_section(views));
  return out + page_end(input.tool);
}

}  // namespace sluice::report
