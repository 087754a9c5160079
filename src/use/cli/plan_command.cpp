// `sluice plan`: the best mix of formats under a budget, from an analysis file alone.
#include <sys/ioctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>

#include "base/units.h"
#include "cli/model.h"
#include "cli/report_data.h"
#include "cli/summaries.h"
#include "report/curve_chart.h"
#include "report/page.h"

namespace sluice::cli {
namespace {

constexpr size_t kColumnsMin = 80, kColumnsMax = 140, kChartRows = 22;

struct Options {
  std::string analysis, out;
  bool sweep = false;
  PlanOptions plan;
};

// The page or the drawing, by the name's ending.
bool is_drawing(const std::string& out) { return out.ends_with(".svg"); }
bool is_page(const std::string& out) { return out.ends_with(".html"); }

size_t terminal_columns() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= kColumnsMin)
    return std::min<size_t>(size.ws_col, kColumnsMax);
  return kColumnsMin;
}

Json sweep_json(const report::ReportInput& input) {
  Json points = Json::array();
  for (const allocate::CurvePoint& point : input.curve)
    points.push_back({{"tensor_bytes", point.bytes},
                      {"bits_per_weight", point.bits_per_weight},
                      {"cost", point.cost},
                      {"gap", point.gap}});
  Json uniform = Json::array();
  for (const allocate::UniformPlan& plan : input.uniform)
    uniform.push_back({{"format", numerics::format_text(plan.format)},
                       {"encoder", numerics::encoder_name(plan.encoder)},
                       {"weight_file_bytes", plan.exact_bytes},
                       {"cost", plan.cost},
                       {"admissible", plan.admissible}});
  return {{"curve", std::move(points)}, {"uniform", std::move(uniform)}};
}

std::string sweep_table(const report::ReportInput& input) {
  Table table({Align::kRight, Align::kRight, Align::kRight});
  table.add({"tensors", "bits/weight", "cost"});
  for (const allocate::CurvePoint& point : input.curve)
    table.add({bytes_text(point.bytes), fmt::format("{:.3f}", point.bits_per_weight),
               fmt::format("{:.4g}", point.cost)});
  return table.text("");
}

// On a terminal the curve is drawn before its figures.
std::string sweep_text(const report::ReportInput& input) {
  if (isatty(STDOUT_FILENO) != 1) return sweep_table(input);
  return report::curve_text(input, terminal_columns(), kChartRows) +
         "weighted error of the best mix against bytes; ○ uniform formats\n\n" + sweep_table(input);
}

Result<int> run_sweep(Context& context, const analyze::Analysis& analysis, const Options& options) {
  allocate::ProblemSettings settings;
  SLUICE_ASSIGN(settings.objective, allocate::parse_objective(options.plan.objective));
  SLUICE_ASSIGN(settings.configs, allocate::parse_configs(options.plan.configs));
  settings.sqnr_floor_db = options.plan.sqnr_floor_db;
  SLUICE_ASSIGN(const allocate::SensitivityTable sensitivity,
                load_sensitivity(context, options.plan.sensitivity));
  SLUICE_ASSIGN(const report::ReportInput input,
                analysis_report(analysis, options.analysis, settings, sensitivity));
  if (!options.out.empty())
    SLUICE_TRY(io::write_file_atomically(
        *context.storage, options.out,
        is_page(options.out) ? report::report_page(input) : report::curve_document(input)));
  if (context.options.json)
    context.print_json(sweep_json(input));
  else
    context.print(sweep_text(input));
  return kExitSuccess;
}

std::string text_of(const allocate::Plan& plan) {
  const allocate::PlanData& data = plan.data();
  const std::string kl = predicted_kl_text(plan);
  std::string text = fmt::format(
      "{} of weight files, headers included; budget {}; {:.3f} bits per weight\n"
      "{} {:.6g}, proved within {:.4f} % of optimal\n{}\n{}",
      bytes_text(data.exact_bytes), bytes_text(data.budget_bytes), allocate::bits_per_weight(plan),
      data.objective, data.cost, 100 * data.gap(),
      kl.empty() ? "" : fmt::format("predicted KL divergence from the original: {}\n", kl),
      plan_tables(plan));
  Table uniform({Align::kLeft, Align::kRight, Align::kRight});
  uniform.add({"uniform plan", "bytes", "cost"});
  for (const allocate::UniformPlan& other : data.uniform)
    if (other.exact_bytes <= data.budget_bytes && other.admissible)
      uniform.add({format_and_encoder(other.format, other.encoder), bytes_text(other.exact_bytes),
                   fmt::format("{:.6g}", other.cost)});
  return text + "\nUniform plans of no more bytes, under the same measure:\n" + uniform.text("  ") +
         "\nWhat to watch:\n" + safety_text(plan, nullptr);
}

Result<int> run(Context& context, const Options& options) {
  if (options.sweep && !options.out.empty() && !is_drawing(options.out) && !is_page(options.out)) {
    context.console->error(
        fmt::format("with --sweep, -o takes a name in .svg or .html, not {}", options.out));
    return kExitUsage;
  }
  std::error_code absent;
  if (std::filesystem::equivalent(options.out, options.analysis, absent))
    return fail(ErrorCode::kInvalidArgument,
                "{} is the analysis itself; choose another file for the plan", options.out);
  SLUICE_ASSIGN(const auto source, context.storage->open_source(options.analysis));
  SLUICE_ASSIGN(const analyze::Analysis analysis, analyze::load_analysis(*source));
  if (options.sweep) return run_sweep(context, analysis, options);
  SLUICE_ASSIGN(const allocate::Plan plan, run_plan(context, analysis, options.plan));
  if (!options.out.empty())
    SLUICE_TRY(
        io::write_file_atomically(*context.storage, options.out, allocate::plan_to_json(plan)));
  if (context.options.json) {
    SLUICE_ASSIGN(const Json whole, parse_json(allocate::plan_to_json(plan), "plan"));
    context.print_json({{"summary", plan_summary_json(plan)}, {"plan", whole}});
  } else {
    context.print(text_of(plan));
    if (!options.out.empty())
      context.print(
          fmt::format("\nnext: sluice quantize MODEL --plan {} -o OUT\n", shell_word(options.out)));
  }
  return kExitSuccess;
}

}  // namespace

void add_plan(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("plan", "solve for the best mix of formats under a budget");
  command->add_option("FILE", options->analysis, "what `sluice analyze` wrote")
      ->type_name("FILE")
      ->required();
  command
      ->add_option("-o,--output", options->out,
                   "plan file for `sluice quantize --plan`; with --sweep a drawing (.svg) or a "
                   "page (.html)")
      ->type_name("FILE")
      ->check(name_check());
  add_plan_options(*command, options->plan, Budgets::kOne)
      ->add_flag("--sweep", options->sweep, "the whole size/quality curve, fifty budgets");
  command->footer(
      "Examples:\n"
      "  sluice plan qwen3-8b.analysis --budget 6GB -o plan.json\n"
      "  sluice plan qwen3-8b.analysis --sensitivity qwen3-8b.analysis.sensitivity.json "
      "--max-kl 0.02\n"
      "  sluice plan qwen3-8b.analysis --device \"M2 16GB\" --context 16384\n"
      "  sluice plan qwen3-8b.analysis --sweep -o curve.svg");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
