// `sluice analyze`: one pass over the weights, priced in every format.
#include <CLI/CLI.hpp>

#include "analyze/features.h"
#include "base/units.h"
#include "cli/measuring.h"
#include "cli/model.h"
#include "cli/part_option.h"

namespace sluice::cli {
namespace {

struct Options {
  std::string model, out, dtype, layers, best = "default", part;
  bool features = false;
  SensitivityArguments sensitivity;
};

Result<int> run_part(Context& context, const Options& options, const OpenedModel& model,
                     const stream::Part& part) {
  SLUICE_ASSIGN(const uint64_t modules,
                run_analysis_part(context, model, options.out, options.best, part));
  if (context.options.json)
    context.print_json({{"file", stream::part_path(options.out, part)},
                        {"part", stream::part_text(part)},
                        {"modules", modules},
                        {"peak_resident_bytes", peak_resident_bytes()}});
  else
    context.print(fmt::format("{}: {} modules analyzed\nwhen all parts are done: sluice merge {}\n",
                              stream::part_path(options.out, part), modules,
                              shell_word(options.out)));
  return kExitSuccess;
}

Result<int> run_features(Context& context, const OpenedModel& model, const std::string& out) {
  analyze::FeatureOptions options;
  options.workers = context.workers;
  options.simd = context.simd;
  options.cancel = context.cancel;
  options.progress = context.console.get();
  options.log = context.console.get();
  const analyze::FeatureMemory memory = analyze::feature_memory(model.map, context.workers);
  context.console->info(fmt::format("features: {} of memory for {} {}", bytes_text(memory.bytes),
                                    memory.threads, memory.threads == 1 ? "thread" : "threads"));
  SLUICE_ASSIGN(
      const analyze::FeatureSummary summary,
      analyze::write_features(*context.storage, *model.checkpoint, model.map, out, options));
  context.console->end();
  if (context.options.json)
    context.print_json({{"file", out},
                        {"modules", summary.modules},
                        {"matrices", summary.matrices},
                        {"threads", summary.memory.threads},
                        {"peak_resident_bytes", peak_resident_bytes()}});
  else
    context.print(fmt::format("{}: features of {} matrices in {} modules, peak memory {}\n", out,
                              summary.matrices, summary.modules,
                              bytes_text(peak_resident_bytes())));
  return kExitSuccess;
}

// It is the whole model that is run, by one process.
Status check_sensitivity(const Options& options, const stream::Part& part) {
  if (options.features || !part.whole() || !options.layers.empty())
    return fail(ErrorCode::kInvalidArgument,
                "--sensitivity measures whole models by one process, not --features, --layers or "
                "--part; run it by itself when the parts are done");
  return {};
}

Result<int> run(Context& context, const Options& options) {
  SLUICE_ASSIGN(const stream::Part part, choose_part(context, options.part));
  SLUICE_ASSIGN(const OpenedModel model,
                open_model(context, options.model, options.dtype, options.layers));
  if (options.features && !part.whole())
    return fail(ErrorCode::kInvalidArgument, "--features are found by one process, not in parts");
  if (!options.sensitivity.text.empty()) SLUICE_TRY(check_sensitivity(options, part));
  if (options.features) return run_features(context, model, options.out);
  if (!part.whole()) return run_part(context, options, model, part);
  SLUICE_ASSIGN(const analyze::Analysis analysis,
                run_analysis(context, model, options.out, options.best));
  Json measured;
  const std::string table = sensitivity_path(options.out);
  if (!options.sensitivity.text.empty()) {
    SLUICE_ASSIGN(measured,
                  measure_to_file(context, options.model, model, options.sensitivity, table));
  }
  if (context.options.json) {
    Json json{{"file", options.out},
              {"modules", analysis.records.size()},
              {"source", analysis.header.source.hex()},
              {"digest", analysis.digest.hex()},
              {"peak_resident_bytes", peak_resident_bytes()}};
    if (!measured.is_null()) json["sensitivity"] = {{"file", table}, {"measurement", measured}};
    context.print_json(json);
  } else {
    context.print(fmt::format(
        "{}: {} modules analyzed, peak memory {}\nnext: sluice plan {} --budget 24GB{}\n",
        options.out, analysis.records.size(), bytes_text(peak_resident_bytes()),
        shell_word(options.out), measured.is_null() ? "" : " --sensitivity " + shell_word(table)));
  }
  return kExitSuccess;
}

}  // namespace

void add_analyze(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "analyze", "price every format of every module in one pass over the weights");
  command
      ->add_option("MODEL", options->model,
                   "folder with safetensors, a .gguf file, hf://org/name or an https address")
      ->type_name("PATH")
      ->required();
  command->add_option("-o,--output", options->out, "analysis file, created or continued")
      ->type_name("FILE")
      ->required()
      ->check(name_check());
  add_dtype_option(*command, options->dtype);
  add_part_option(*command, options->part);
  add_layers_option(*command, options->layers);
  command
      ->add_option("--best", options->best,
                   "formats also priced under the searching encoder: default (all of 2 to 4 bits; "
                   "computing takes about 7 times as long as with none), all, none, or a list such "
                   "as 3/64,4/64")
      ->capture_default_str();
  command->add_flag("--features", options->features,
                    "instead of prices, the published method's features of every matrix: spectrum "
                    "and kurtosis, for reports; plans do not use them");
  add_sensitivity_options(*command, options->sensitivity);
  command->footer(
      "Examples:\n"
      "  sluice analyze ./Qwen3-8B -o qwen3-8b.analysis\n"
      "  sluice analyze ./Qwen3-8B -o qwen3-8b.analysis --sensitivity data-free\n"
      "  sluice analyze ./Qwen3-8B -o qwen3-8b.analysis --best 3/64,4/64\n"
      "  sluice analyze ./Qwen3-8B --features -o features.jsonl");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
