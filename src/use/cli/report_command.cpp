// `sluice report`: one HTML page about an output, an analysis or a plan.
#include <CLI/CLI.hpp>

#include "cli/model.h"
#include "cli/report_data.h"
#include "report/page.h"

namespace sluice::cli {
namespace {

struct Options {
  std::string path, out = "report.html", analysis, name;
};

Result<int> run(Context& context, const Options& options) {
  std::optional<analyze::Analysis> analysis;
  if (!options.analysis.empty()) {
    SLUICE_ASSIGN(const auto source, context.storage->open_source(options.analysis));
    SLUICE_ASSIGN(analysis, analyze::load_analysis(*source));
  }
  SLUICE_ASSIGN(report::ReportInput input,
                load_report(context, {options.path, analysis ? &*analysis : nullptr, true}));
  if (!options.name.empty()) input.name = options.name;
  const std::string page = report::report_page(input);
  SLUICE_TRY(io::write_file_atomically(*context.storage, options.out, page));
  if (context.options.json)
    context.print_json({{"report", options.out}, {"bytes", page.size()}});
  else
    context.print(fmt::format("{}\n", options.out));
  return kExitSuccess;
}

}  // namespace

void add_report(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "report", "one self-contained HTML page about an output, an analysis or a plan");
  command->add_option("PATH", options->path, "an output folder, an analysis file or a plan file")
      ->required();
  command->add_option("-o,--output", options->out, "the page to write; replaced if it is there")
      ->capture_default_str()
      ->check(name_check());
  command->add_option("--analysis", options->analysis,
                      "the analysis that the plan was made from, where the folder has none: for "
                      "the curve and the comparison with uniform formats");
  command->add_option("--name", options->name, "heading of the page (default: the source's name)");
  command->footer(
      "Examples:\n"
      "  sluice report Qwen3-8B-6GB\n"
      "  sluice report qwen3-8b.analysis -o qwen3-8b.html");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
