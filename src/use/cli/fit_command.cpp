// `sluice fit`: analyze, plan, quantize, verify and report, resumable as one.
#include <CLI/CLI.hpp>

#include "base/clock.h"
#include "base/machine.h"
#include "base/sealed_json.h"
#include "base/units.h"
#include "cli/model.h"
#include "cli/report_data.h"
#include "report/page.h"

namespace sluice::cli {
namespace {

struct Options {
  std::string model, out, dtype, best = "default", analysis;
  PlanOptions plan;
};

struct Timings {
  double analyze = 0, plan = 0, quantize = 0, verify = 0;
};

// The analysis lies in the output folder, unless the user named a file to reuse.
std::string analysis_path(const Options& options, const std::string& folder) {
  return options.analysis.empty() ? folder + "/analysis.jsonl" : options.analysis;
}

Status verify_folder(Context& context, const OpenedModel& model, const std::string& folder,
                     verify::VerifyReport& report) {
  SLUICE_ASSIGN(report, run_verify(context, *model.checkpoint, folder));
  SLUICE_TRY(write_verify_record(context, folder, report));
  if (report.passed()) return {};
  const verify::Finding& first = report.findings.front();
  return fail(ErrorCode::kCorrupt,
              "{} failed verification with {} findings, the first of them {}: {}; it was kept "
              "under that name, remove it and the journal beside it to start anew",
              folder, report.finding_count, first.subject, first.message);
}

// Without times, so that a repeated run gives the same page.
Status write_report(Context& context, const std::string& folder,
                    const analyze::Analysis& analysis) {
  SLUICE_ASSIGN(const report::ReportInput input, load_report(context, {folder, &analysis, false}));
  return io::write_file_atomically(*context.storage, folder + "/report.html",
                                   report::report_page(input));
}

std::string summary_text(const Options& options, const allocate::Plan& plan,
                         const verify::VerifyReport& report, const Timings& timings) {
  const allocate::PlanData& data = plan.data();
  Table table({Align::kLeft, Align::kLeft});
  table.add({"size", fmt::format("{} of {} allowed ({:.2f} %)", bytes_text(data.exact_bytes),
                                 bytes_text(data.budget_bytes),
                                 100 * static_cast<double>(data.exact_bytes) /
                                     static_cast<double>(data.budget_bytes))});
  table.add({"bits per weight", fmt::format("{:.3f}", allocate::bits_per_weight(plan))});
  table.add(
      {"optimality", fmt::format("within {:.4f} % of the best possible mix", 100 * data.gap())});
  table.add({"verified", fmt::format("{} tensors, {} of {} modules byte for byte", report.tensors,
                                     report.reencoded_modules, report.modules)});
  table.add({"time", fmt::format("analyze {}, plan {}, quantize {}, verify {}",
                                 duration_text(timings.analyze), duration_text(timings.plan),
                                 duration_text(timings.quantize), duration_text(timings.verify))});
  table.add({"peak memory", bytes_text(peak_resident_bytes())});
  return fmt::format("\n{}\n\n{}\n{}\nnext: mlx_lm.generate --model {} --prompt \"Hello\"\n",
                     options.out, table.text("  "), plan_tables(plan), shell_word(options.out));
}

Json run_record(const Timings& timings, const Context& context) {
  return {{"analyze_s", timings.analyze},
          {"plan_s", timings.plan},
          {"quantize_s", timings.quantize},
          {"verify_s", timings.verify},
          {"command", context.command_line},
          {"processor", processor_name()},
          {"system", system_name()},
          {"memory_bytes", detect_memory().usable()},
          {"threads", context.workers},
          {"simd", simd_level_name(context.simd)},
          {"peak_resident_bytes", peak_resident_bytes()}};
}

Result<int> run(Context& context, const Options& options) {
  io::Storage& storage = *context.storage;
  // Whatever can be refused is refused before the hours that analysis may take.
  SLUICE_TRY(check_plan_options(context, options.plan));
  SLUICE_ASSIGN(const OpenedModel model, open_model(context, options.model, options.dtype));
  SLUICE_ASSIGN(const auto claim, convert::OutputClaim::take(storage, options.out));
  const bool at_the_end = claim->published();
  const std::string folder = at_the_end ? options.out : convert::partial_path(options.out);
  if (!at_the_end) SLUICE_TRY(convert::check_unfinished(storage, *model.checkpoint, options.out));

  Timings timings;
  Stopwatch analyze_watch;
  SLUICE_ASSIGN(const analyze::Analysis analysis,
                run_analysis(context, model, analysis_path(options, folder), options.best));
  timings.analyze = analyze_watch.seconds();
  Stopwatch plan_watch;
  SLUICE_ASSIGN(const allocate::Plan plan, run_plan(context, analysis, options.plan));
  timings.plan = plan_watch.seconds();

  Stopwatch convert_watch;
  verify::VerifyReport report;
  const auto verify_and_record = [&](const std::string& partial) -> Status {
    context.console->end();
    timings.quantize = convert_watch.seconds();
    SLUICE_TRY(verify_folder(context, model, partial, report));
    timings.verify = convert_watch.seconds() - timings.quantize;
    SLUICE_TRY(write_report(context, partial, analysis));
    return io::write_file_atomically(storage, partial + "/run.json",
                                     dump_json(sealed(run_record(timings, context)), 1) + "\n");
  };
  Status verified;
  if (at_the_end) verified = verify_folder(context, model, folder, report);
  auto converted =
      verified ? run_convert(context, model, plan, options.out, verify_and_record, {}, claim.get())
               : std::unexpected(verified.error());
  if (!converted && report.finding_count > 0) {
    context.console->error(converted.error().message);
    if (context.options.json)
      context.print_json({{"verify", verify_json(report)}});
    else
      context.print(verify_text(report, folder));
    return kExitCheckFailed;
  }
  if (!converted) return std::unexpected(std::move(converted).error());
  if (context.options.json) {
    context.print_json({{"output", options.out},
                        {"shards", converted->shards},
                        {"modules_resumed", converted->modules_resumed},
                        {"plan", plan_summary_json(plan)},
                        {"verify", verify_json(report)},
                        {"run", run_record(timings, context)}});
  } else {
    context.print(summary_text(options, plan, report, timings));
  }
  return kExitSuccess;
}

}  // namespace

void add_fit(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "fit", "the main job: analyze, plan, quantize and verify under a budget; resumable");
  command->add_option("MODEL", options->model, "folder with safetensors, or a .gguf file")
      ->required();
  command->add_option("-o,--output", options->out, "output folder, must not exist")
      ->required()
      ->check(name_check());
  add_dtype_option(*command, options->dtype);
  command->add_option("--analysis", options->analysis,
                      "analysis file to reuse or create (default: inside the output folder)");
  command
      ->add_option("--best", options->best,
                   "formats also offered under the searching encoder: default, all, none, or a "
                   "list such as 3/64,4/64")
      ->capture_default_str();
  add_plan_options(*command, options->plan);
  command->footer(
      "Examples:\n"
      "  sluice fit ./Qwen3-8B --budget 6GB -o Qwen3-8B-6GB\n"
      "  sluice fit model.gguf --device \"M2 16GB\" -o model-m2");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
