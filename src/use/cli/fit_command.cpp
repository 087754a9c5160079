// `sluice fit`: analyze, plan, quantize, verify and report, resumable as one.
#include <CLI/CLI.hpp>

#include "base/clock.h"
#include "base/machine.h"
#include "base/sealed_json.h"
#include "base/units.h"
#include "cli/calibration.h"
#include "cli/gate.h"
#include "cli/measuring.h"
#include "cli/model.h"
#include "cli/report_data.h"
#include "cli/summaries.h"
#include "report/page.h"

namespace sluice::cli {
namespace {

struct Options {
  std::string model, out, dtype, best, analysis, effort = "normal", memory;
  PlanOptions plan;
  bool measures() const { return effort == "best" && plan.sensitivity.empty(); }
};

// Formats offered under the searching encoder: as asked for, else by effort.
std::string best_formats(const Options& options) {
  if (!options.best.empty()) return options.best;
  if (options.effort == "normal") return "default";
  return options.effort == "fast" ? "none" : "all";
}

struct Timings {
  double measure = 0, analyze = 0, plan = 0, quantize = 0, verify = 0;
};

// One output of a fit, from its plan to its proof.
struct Output {
  std::string out;
  std::vector<Variant> variants;  // ways to make it, of which the gate chooses; at least one
  Timings timings;
  size_t chosen = 0;
  verify::VerifyReport report = {};
  convert::ConvertSummary summary = {};
  bool done_before = false;  // an earlier run of the same list finished it

  const Variant& variant() const { return variants[chosen]; }
  const allocate::Plan& plan() const { return variant().plan; }
};

// Where the inputs of products are recorded for what is made under that name.
std::string record_path(const std::string& name) { return name + ".activations"; }

// Modules of one role and depth are measured together where one by one would take longer; `analyze`
// has no such limit.
constexpr double kMeasuringMinutes = 30;
// Trial outputs that would take longer are not made.
constexpr double kGateMinutes = 30;

constexpr std::string_view kPlaceholder = "{budget}";
constexpr uint64_t kRecordBytesMax = 256ull << 20;

std::string with_budget(const std::string& out, std::string_view budget) {
  const size_t at = out.find(kPlaceholder);
  if (at == std::string::npos || budget.empty()) return out;
  return fmt::format("{}{}{}", out.substr(0, at), budget, out.substr(at + kPlaceholder.size()));
}

// Where several outputs go: OUT-8GB, or wherever the placeholder is.
std::string pattern_of(std::string out) {
  if (out.find(kPlaceholder) != std::string::npos) return out;
  while (out.size() > 1 && out.back() == '/') out.pop_back();
  return fmt::format("{}-{}", out, kPlaceholder);
}

using Recorded = std::shared_ptr<const io::Activations>;

Status verify_folder(Context& context, const OpenedModel& model, const std::string& folder,
                     const Recorded& recorded, verify::VerifyReport& report) {
  // A source over a network has been read twice by now, and every block was proved in passing.
  SLUICE_ASSIGN(report, run_verify(context, *model.checkpoint, folder, {}, model.checkpoint->remote,
                                   recorded));
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

Json run_record(const Timings& timings, const Context& context) {
  return {{"measure_s", timings.measure},
          {"analyze_s", timings.analyze},
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

Json output_json(const Output& output, const Context& context) {
  return {{"output", output.out},
          {"shards", output.summary.shards},
          {"modules_resumed", output.summary.modules_resumed},
          {"plan", plan_summary_json(output.plan())},
          {"verify", verify_json(output.report)},
          {"run", run_record(output.timings, context)}};
}

std::string summary_text(const Output& output) {
  const allocate::PlanData& data = output.plan().data();
  const Timings& timings = output.timings;
  Table table({Align::kLeft, Align::kLeft});
  table.add({"size", fmt::format("{} of {} allowed ({:.2f} %)", bytes_text(data.exact_bytes),
                                 bytes_text(data.budget_bytes),
                                 100 * static_cast<double>(data.exact_bytes) /
                                     static_cast<double>(data.budget_bytes))});
  table.add({"bits per weight", fmt::format("{:.3f}", allocate::bits_per_weight(output.plan()))});
  table.add(
      {"optimality", fmt::format("within {:.4f} % of the best possible mix", 100 * data.gap())});
  table.add({"verified",
             fmt::format("{} tensors, {} of {} modules byte for byte{}", output.report.tensors,
                         output.report.reencoded_modules, output.report.modules,
                         output.report.source_read ? "" : ", while they were converted")});
  if (const std::string kl = predicted_kl_text(output.plan()); !kl.empty())
    table.add({"predicted KL", kl});
  table.add({"time", fmt::format("{}analyze {}, plan {}, quantize {}, verify {}",
                                 timings.measure > 0
                                     ? fmt::format("measure {}, ", duration_text(timings.measure))
                                     : "",
                                 duration_text(timings.analyze), duration_text(timings.plan),
                                 duration_text(timings.quantize), duration_text(timings.verify))});
  table.add({"peak memory", bytes_text(peak_resident_bytes())});
  return fmt::format("\n{}\n\n{}\n{}\nWhat to watch:\n{}\nnext: sluice chat {}\n", output.out,
                     table.text("  "), plan_tables(output.plan()),
                     safety_text(output.plan(), &output.report), shell_word(output.out));
}

// Converts, verifies and publishes what is claimed. An output that fails verification stays
// unpublished, with the findings in its report.
Status make_output(Context& context, const OpenedModel& model, const analyze::Analysis& analysis,
                   convert::OutputClaim& claim, Output& output) {
  const Recorded& recorded = output.variant().recorded;
  Stopwatch watch;
  const auto verify_and_record = [&](const std::string& partial) -> Status {
    context.console->end();
    output.timings.quantize = watch.seconds();
    SLUICE_TRY(verify_folder(context, model, partial, recorded, output.report));
    output.timings.verify = watch.seconds() - output.timings.quantize;
    SLUICE_TRY(write_report(context, partial, analysis));
    return io::write_file_atomically(
        *context.storage, partial + "/run.json",
        dump_json(sealed(run_record(output.timings, context)), 1) + "\n");
  };
  if (claim.published())
    SLUICE_TRY(verify_folder(context, model, output.out, recorded, output.report));
  SLUICE_ASSIGN(output.summary,
                run_convert(context, model, output.plan(), output.out, verify_and_record, {},
                            &claim, model.checkpoint->remote, recorded));
  return {};
}

// The exit code of an output that could not be made; findings are shown.
Result<int> failed(Context& context, const Output& output, Error error) {
  if (output.report.finding_count == 0) return std::unexpected(std::move(error));
  context.console->error(error.message);
  if (context.options.json)
    context.print_json({{"verify", verify_json(output.report)}});
  else
    context.print(verify_text(output.report, output.out));
  return kExitCheckFailed;
}

// What can be refused before anything is read, and a table that will be measured stands for.
Status check_options(Context& context, const Options& options) {
  PlanOptions known = options.plan;
  if (options.measures()) known.kl_max = 0;
  return check_plan_options(context, known);
}

// With --effort best, plans go by what is measured on this model, into that file.
Result<PlanOptions> measured_options(Context& context, const Options& options,
                                     const OpenedModel& model, const std::string& table) {
  PlanOptions plan = options.plan;
  if (!options.measures()) return plan;
  SensitivityArguments arguments;
  arguments.text = kDataFree;
  arguments.minutes = kMeasuringMinutes;
  arguments.memory = options.memory;
  SLUICE_TRY(measure_to_file(context, options.model, model, arguments, table));
  plan.sensitivity = table;
  return plan;
}

// With --effort best, columns make good each other's errors by what enters the products, recorded
// in that folder. Null otherwise.
Result<Recorded> recorded_inputs(Context& context, const Options& options, const OpenedModel& model,
                                 const std::string& folder) {
  if (options.effort != "best") return nullptr;
  CalibrationArguments arguments;
  arguments.engine.memory = options.memory;
  return record_inputs(context, options.model, model, arguments, folder);
}

// By the built-in table, of the same size.
Result<allocate::Plan> plan_without_measuring(Context& context, const Options& options,
                                              const analyze::Analysis& analysis,
                                              const allocate::Plan& measured) {
  PlanOptions wanted = options.plan;
  wanted.budget = fmt::format("{}B", measured.data().budget_bytes);
  wanted.device.clear();
  wanted.bits_per_weight = wanted.error_max = wanted.kl_max = 0;
  wanted.min_safe = false;
  return run_plan(context, analysis, wanted);
}

bool same_formats(const allocate::Plan& a, const allocate::Plan& b) {
  const auto format_of = [](const allocate::PlannedTensor& tensor) {
    return std::pair(tensor.format, tensor.encoder);
  };
  return std::ranges::equal(a.data().tensors, b.data().tensors, {}, format_of, format_of);
}

// The plan with all levers first; where there are some, also with one of them less.
Result<std::vector<Variant>> plan_variants(Context& context, const Options& options,
                                           const PlanOptions& plan_options,
                                           const analyze::Analysis& analysis,
                                           const Recorded& recorded) {
  SLUICE_ASSIGN(const allocate::Plan plan, run_plan(context, analysis, plan_options));
  if (recorded == nullptr) return std::vector<Variant>{{"", plan, nullptr}};
  std::vector<Variant> variants;
  SLUICE_ASSIGN(allocate::Plan all, with_feedback(plan, *recorded));
  variants.push_back({"all levers", std::move(all), recorded});
  variants.push_back({"without error feedback", plan, nullptr});
  if (!options.measures()) return variants;
  SLUICE_ASSIGN(const allocate::Plan prior,
                plan_without_measuring(context, options, analysis, plan));
  if (same_formats(prior, plan)) return variants;
  SLUICE_ASSIGN(allocate::Plan fed_back, with_feedback(prior, *recorded));
  variants.push_back({"without measured sensitivities", std::move(fed_back), recorded});
  return variants;
}

// folder: where the output is now, partial or published.
Status choose_variant(Context& context, const Options& options, const OpenedModel& model,
                      const std::string& folder, Output& output) {
  SLUICE_ASSIGN(output.chosen, pass_gate(context, model, output.variants,
                                         {.model = options.model,
                                          .out = convert::output_name(output.out),
                                          .memory = options.memory,
                                          .record = folder + "/gate.json",
                                          .minutes_max = kGateMinutes}));
  return {};
}

// Gigabytes that verification needed last, unless they lie beside an analysis to be used again.
Status forget(Context& context, const Options& options, const Recorded& recorded) {
  if (recorded == nullptr || !options.analysis.empty()) return {};
  return io::remove_activations(*context.storage, recorded->folder(), recorded->manifest());
}

Result<int> fit_one(Context& context, const Options& options) {
  io::Storage& storage = *context.storage;
  const std::string out = with_budget(options.out, split_budgets(options.plan.budget).at(0));
  // Whatever can be refused is refused before the hours that analysis may take.
  SLUICE_TRY(check_options(context, options));
  SLUICE_ASSIGN(const OpenedModel model, open_model(context, options.model, options.dtype));
  SLUICE_ASSIGN(const auto claim, convert::OutputClaim::take(storage, out));
  const bool at_the_end = claim->published();
  const std::string folder = at_the_end ? out : convert::partial_path(out);
  if (!at_the_end) SLUICE_TRY(convert::begin_unfinished(storage, *model.checkpoint, out));

  Timings timings;
  Stopwatch measure_watch;
  SLUICE_ASSIGN(const PlanOptions plan_options,
                measured_options(context, options, model,
                                 options.analysis.empty() ? folder + "/sensitivity.json"
                                                          : sensitivity_path(options.analysis)));
  SLUICE_ASSIGN(const Recorded recorded,
                recorded_inputs(context, options, model,
                                record_path(options.analysis.empty() ? out : options.analysis)));
  if (options.effort == "best") timings.measure = measure_watch.seconds();
  Stopwatch analyze_watch;
  // The analysis lies in the output folder, unless the user named a file to reuse.
  SLUICE_ASSIGN(
      const analyze::Analysis analysis,
      run_analysis(context, model,
                   options.analysis.empty() ? folder + "/analysis.jsonl" : options.analysis,
                   best_formats(options)));
  timings.analyze = analyze_watch.seconds();
  Stopwatch plan_watch;
  SLUICE_ASSIGN(std::vector<Variant> variants,
                plan_variants(context, options, plan_options, analysis, recorded));
  timings.plan = plan_watch.seconds();

  Output output{out, std::move(variants), timings};
  Stopwatch gate_watch;
  SLUICE_TRY(choose_variant(context, options, model, folder, output));
  if (options.effort == "best") output.timings.measure += gate_watch.seconds();
  if (auto made = make_output(context, model, analysis, *claim, output); !made)
    return failed(context, output, std::move(made).error());
  SLUICE_TRY(forget(context, options, recorded));
  if (context.options.json)
    context.print_json(output_json(output, context));
  else
    context.print(summary_text(output));
  return kExitSuccess;
}

// The digest of the plan that a published folder was made by; nothing when an earlier fit did not
// finish it, which alone writes run.json.
std::optional<std::string> finished_plan(io::Storage& storage, const std::string& out) {
  const std::string path = out + "/sluice.json";
  if (storage.exists(convert::journal_path(out)) || !storage.exists(path) ||
      !storage.exists(out + "/run.json"))
    return std::nullopt;
  const auto source = storage.open_source(path);
  if (!source) return std::nullopt;
  const auto text = io::read_text(**source, kRecordBytesMax);
  if (!text) return std::nullopt;
  const auto json = parse_json(*text, path);
  const Json* plan = json ? json_find(*json, "plan") : nullptr;
  const Json* digest = plan == nullptr ? nullptr : json_find(*plan, "digest");
  if (digest == nullptr || !digest->is_string()) return std::nullopt;
  return digest->get<std::string>();
}

std::unexpected<Error> exists_already(const std::string& out) {
  return fail(ErrorCode::kInvalidArgument, "{} exists already; remove it or choose another output",
              out);
}

// Before the analysis: what no earlier run of this list can have made is in the way.
Status check_outputs(Context& context, const Options& options,
                     const std::vector<std::string>& budgets) {
  io::Storage& storage = *context.storage;
  for (const std::string& budget : budgets) {
    const std::string out = with_budget(pattern_of(options.out), budget);
    if (storage.exists(out) && !storage.exists(convert::journal_path(out)) &&
        !finished_plan(storage, out))
      return exists_already(out);
  }
  return {};
}

// Every budget is planned before anything is converted, so that one that cannot be met is known
// before hours of work.
Result<std::vector<Output>> plan_outputs(Context& context, const Options& options,
                                         const PlanOptions& plan_options,
                                         const analyze::Analysis& analysis,
                                         const Recorded& recorded,
                                         const std::vector<std::string>& budgets) {
  std::vector<Output> outputs;
  for (const std::string& budget : budgets) {
    PlanOptions wanted = plan_options;
    wanted.budget = budget;
    Stopwatch watch;
    SLUICE_ASSIGN(std::vector<Variant> variants,
                  plan_variants(context, options, wanted, analysis, recorded));
    Timings timings;
    timings.plan = watch.seconds();
    Output output{with_budget(pattern_of(options.out), budget), std::move(variants), timings};
    if (const auto finished = finished_plan(*context.storage, output.out)) {
      const auto made_by =
          std::ranges::find(output.variants, *finished,
                            [](const Variant& variant) { return variant.plan.digest().hex(); });
      if (made_by == output.variants.end()) return exists_already(output.out);
      output.chosen = static_cast<size_t>(made_by - output.variants.begin());
      output.done_before = true;
    }
    outputs.push_back(std::move(output));
  }
  return outputs;
}

std::string list_text(const std::vector<Output>& outputs, const std::string& analysis) {
  Table table(
      {Align::kLeft, Align::kRight, Align::kRight, Align::kRight, Align::kRight, Align::kLeft});
  table.add({"output", "size", "of budget", "bits/weight", "cost", "verified"});
  for (const Output& output : outputs) {
    const allocate::PlanData& data = output.plan().data();
    table.add({output.out, bytes_text(data.exact_bytes),
               fmt::format("{:.2f} %", 100 * static_cast<double>(data.exact_bytes) /
                                           static_cast<double>(data.budget_bytes)),
               fmt::format("{:.3f}", allocate::bits_per_weight(output.plan())),
               fmt::format("{:.4g}", data.cost),
               output.done_before
                   ? "by an earlier run"
                   : fmt::format("{} of {} modules byte for byte", output.report.reencoded_modules,
                                 output.report.modules)});
  }
  return fmt::format("\n{}\nThe analysis serves further budgets: sluice plan {} --budget SIZE\n",
                     table.text("  "), shell_word(analysis));
}

Result<int> fit_several(Context& context, const Options& options,
                        const std::vector<std::string>& budgets) {
  SLUICE_TRY(check_options(context, options));
  SLUICE_TRY(check_outputs(context, options, budgets));
  SLUICE_ASSIGN(const OpenedModel model, open_model(context, options.model, options.dtype));
  const std::string path = options.analysis.empty()
                               ? with_budget(pattern_of(options.out), "analysis") + ".jsonl"
                               : options.analysis;
  SLUICE_ASSIGN(const PlanOptions plan_options,
                measured_options(context, options, model, sensitivity_path(path)));
  SLUICE_ASSIGN(const Recorded recorded,
                recorded_inputs(context, options, model, record_path(path)));
  SLUICE_ASSIGN(const analyze::Analysis analysis,
                run_analysis(context, model, path, best_formats(options)));
  SLUICE_ASSIGN(std::vector<Output> outputs,
                plan_outputs(context, options, plan_options, analysis, recorded, budgets));
  for (Output& output : outputs) {
    if (output.done_before) continue;
    context.console->info(output.out);
    SLUICE_ASSIGN(const auto claim, convert::OutputClaim::take(*context.storage, output.out));
    const bool at_the_end = claim->published();
    if (!at_the_end)
      SLUICE_TRY(convert::begin_unfinished(*context.storage, *model.checkpoint, output.out));
    SLUICE_TRY(choose_variant(context, options, model,
                              at_the_end ? output.out : convert::partial_path(output.out), output));
    if (auto made = make_output(context, model, analysis, *claim, output); !made)
      return failed(context, output, std::move(made).error());
  }
  SLUICE_TRY(forget(context, options, recorded));
  if (context.options.json) {
    Json list = Json::array();
    for (const Output& output : outputs) {
      Json json = output_json(output, context);
      json["done_before"] = output.done_before;
      list.push_back(std::move(json));
    }
    context.print_json({{"analysis", path}, {"outputs", std::move(list)}});
  } else {
    context.print(list_text(outputs, path));
  }
  return kExitSuccess;
}

Result<int> run(Context& context, const Options& options) {
  const std::vector<std::string> budgets = split_budgets(options.plan.budget);
  if (budgets.size() > 1) return fit_several(context, options, budgets);
  return fit_one(context, options);
}

}  // namespace

void add_fit(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "fit", "the main job: analyze, plan, quantize and verify under a budget; resumable");
  command
      ->add_option("MODEL", options->model,
                   "folder with safetensors, a .gguf file, hf://org/name or an https address")
      ->type_name("PATH")
      ->required();
  command->add_option("-o,--output", options->out, "output folder, must not exist")
      ->type_name("FOLDER")
      ->required()
      ->check(name_check());
  add_dtype_option(*command, options->dtype);
  command
      ->add_option("--analysis", options->analysis,
                   "analysis file to reuse or create (default: inside the output folder; of "
                   "several, OUT-analysis.jsonl)")
      ->type_name("FILE");
  command
      ->add_option(
          "--effort", options->effort,
          "fast: encoders as MLX's alone; normal: also the searching one for 2 to 4 bits; "
          "best: for all formats, a plan by sensitivities measured on text that the model "
          "writes itself, and codes that make good each other's errors on it, each kept where "
          "trial outputs say that it helps this model; says what time, memory and disk "
          "that takes before it starts")
      ->check(CLI::IsMember({"fast", "normal", "best"}))
      ->capture_default_str();
  command->add_option("--memory", options->memory,
                      "with --effort best, the most memory that measuring may take, such as 8GB; "
                      "weights beyond it are read from disk as they are used");
  command->add_option(
      "--best", options->best,
      "formats also offered under the searching encoder, whatever the effort: "
      "default (all of 2 to 4 bits; analysis computes about 7 times as long as with "
      "none), all, none, or a list such as 3/64,4/64");
  add_plan_options(*command, options->plan, Budgets::kSeveral);
  command->footer(
      "Examples:\n"
      "  sluice fit ./Qwen3-8B --budget 6GB -o Qwen3-8B-6GB\n"
      "  sluice fit ./Qwen3-8B --budget 6GB --effort best -o Qwen3-8B-6GB\n"
      "  sluice fit model.gguf --device \"M2 16GB\" -o model-m2\n"
      "  sluice fit ./Qwen3-8B --budget 5GB,6GB,8GB -o Qwen3-8B\n\n"
      "Several budgets make Qwen3-8B-5GB, Qwen3-8B-6GB and Qwen3-8B-8GB from one analysis,\n"
      "Qwen3-8B-analysis.jsonl; {budget} in the name says where else the budget goes. Run the\n"
      "same command again after an interruption: what is finished is kept.");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
