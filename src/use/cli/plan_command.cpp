// `sluice plan`: the best mix of formats under a budget, from an analysis file alone.
#include <CLI/CLI.hpp>
#include <filesystem>

#include "base/units.h"
#include "cli/model.h"

namespace sluice::cli {
namespace {

constexpr size_t kCurvePoints = 50;

struct Options {
  std::string analysis, out;
  bool sweep = false;
  PlanOptions plan;
};

Result<int> run_sweep(Context& context, const analyze::Analysis& analysis,
                      const PlanOptions& options) {
  allocate::ProblemSettings settings;
  SLUICE_ASSIGN(settings.objective, allocate::parse_objective(options.objective));
  SLUICE_ASSIGN(settings.configs, allocate::parse_configs(options.configs));
  settings.sqnr_floor_db = options.sqnr_floor_db;
  SLUICE_ASSIGN(const allocate::SensitivityTable sensitivity,
                load_sensitivity(context, options.sensitivity));
  SLUICE_ASSIGN(const auto curve,
                allocate::budget_curve(analysis.items(), settings, sensitivity, kCurvePoints));
  if (context.options.json) {
    Json points = Json::array();
    for (const allocate::CurvePoint& point : curve)
      points.push_back({{"tensor_bytes", point.bytes},
                        {"bits_per_weight", point.bits_per_weight},
                        {"cost", point.cost},
                        {"gap", point.gap}});
    context.print_json({{"curve", std::move(points)}});
    return kExitSuccess;
  }
  Table table({Align::kRight, Align::kRight, Align::kRight});
  table.add({"tensors", "bits/weight", "cost"});
  for (const allocate::CurvePoint& point : curve)
    table.add({bytes_text(point.bytes), fmt::format("{:.3f}", point.bits_per_weight),
               fmt::format("{:.4g}", point.cost)});
  context.print(table.text(""));
  return kExitSuccess;
}

std::string text_of(const allocate::Plan& plan) {
  const allocate::PlanData& data = plan.data();
  std::string text = fmt::format(
      "{} of weight files, headers included; budget {}; {:.3f} bits per weight\n"
      "{} {:.6g}, proved within {:.4f} % of optimal\n\n{}",
      bytes_text(data.exact_bytes), bytes_text(data.budget_bytes), allocate::bits_per_weight(plan),
      data.objective, data.cost, 100 * data.gap(), plan_tables(plan));
  Table uniform({Align::kLeft, Align::kRight, Align::kRight});
  uniform.add({"uniform plan", "bytes", "cost"});
  for (const allocate::UniformPlan& other : data.uniform)
    if (other.exact_bytes <= data.budget_bytes && other.admissible)
      uniform.add({format_and_encoder(other.format, other.encoder), bytes_text(other.exact_bytes),
                   fmt::format("{:.6g}", other.cost)});
  return text + "\nUniform plans of no more bytes, under the same measure:\n" + uniform.text("  ");
}

Result<int> run(Context& context, const Options& options) {
  std::error_code absent;
  if (std::filesystem::equivalent(options.out, options.analysis, absent))
    return fail(ErrorCode::kInvalidArgument,
                "{} is the analysis itself; choose another file for the plan", options.out);
  SLUICE_ASSIGN(const auto source, context.storage->open_source(options.analysis));
  SLUICE_ASSIGN(const analyze::Analysis analysis, analyze::load_analysis(*source));
  if (options.sweep) return run_sweep(context, analysis, options.plan);
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
  command->add_option("FILE", options->analysis, "what `sluice analyze` wrote")->required();
  CLI::Option* out =
      command->add_option("-o,--output", options->out, "plan file for `sluice quantize --plan`")
          ->check(name_check());
  add_plan_options(*command, options->plan)
      ->add_flag("--sweep", options->sweep, "the whole size/quality curve, fifty budgets")
      ->excludes(out);
  command->footer(
      "Examples:\n"
      "  sluice plan qwen3-8b.analysis --budget 6GB -o plan.json\n"
      "  sluice plan qwen3-8b.analysis --device \"M2 16GB\" --context 16384\n"
      "  sluice plan qwen3-8b.analysis --sweep");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
