// `sluice verify`: proves an output against its source.
#include <CLI/CLI.hpp>

#include "cli/model.h"
#include "cli/part_option.h"
#include "cli/report_data.h"
#include "cli/summaries.h"

namespace sluice::cli {
namespace {

struct Options {
  std::string model, out, part, activations;
  bool record = false;
};

Result<int> run(Context& context, const Options& options) {
  SLUICE_ASSIGN(const stream::Part part, choose_part(context, options.part));
  SLUICE_ASSIGN(const auto checkpoint, open_source(context, options.model));
  if (options.record && !part.whole()) {
    context.console->error("--record takes the verdict on the whole output, not on a part");
    return kExitUsage;
  }
  std::shared_ptr<const io::Activations> activations;
  if (!options.activations.empty()) {
    SLUICE_ASSIGN(activations, open_activations(context, *checkpoint, options.activations));
  }
  SLUICE_ASSIGN(const verify::VerifyReport report,
                run_verify(context, *checkpoint, options.out, part, false, activations));
  context.console->end();
  if (options.record) SLUICE_TRY(write_verify_record(context, options.out, report));
  if (context.options.json) {
    Json json = verify_json(report);
    if (!part.whole()) json["part"] = stream::part_text(part);
    json["peak_resident_bytes"] = peak_resident_bytes();
    context.print_json(json);
  } else {
    context.print(verify_text(report, options.out));
    if (!part.whole())
      context.print(fmt::format("this is part {}; when all are done: sluice merge {}\n",
                                stream::part_text(part), shell_word(options.out)));
  }
  return report.passed() ? kExitSuccess : kExitCheckFailed;
}

}  // namespace

void add_verify(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "verify", "re-read an output with independent code and hold it against its source");
  command->add_option("MODEL", options->model, "the source it was made from, wherever it is")
      ->type_name("PATH")
      ->required();
  command->add_option("OUT", options->out, "the output folder")->type_name("FOLDER")->required();
  add_part_option(*command, options->part);
  command
      ->add_option("--activations", options->activations,
                   "what error feedback went by, to prove that as well byte for byte")
      ->type_name("FOLDER");
  command->add_flag("--record", options->record,
                    "keep the result in OUT/verify.json, where `sluice report` finds it");
  command->footer(
      "Examples:\n"
      "  sluice verify ./Qwen3-8B Qwen3-8B-6GB\n"
      "  sluice verify ./Qwen3-8B Qwen3-8B-6GB --json");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
