// `sluice quantize`: streaming conversion, by a plan or uniform.
#include <CLI/CLI.hpp>

#include "base/units.h"
#include "cli/model.h"
#include "cli/part_option.h"
#include "cli/summaries.h"
#include "cli/uniform_plan.h"

namespace sluice::cli {
namespace {

constexpr uint64_t kPlanBytesMax = 256ull << 20;

struct Options {
  std::string model, out, plan, activations, recipe, dtype, layers,
      mode = "affine", encoder = "parity", parity = "cpu", part;
  unsigned bits = 0, group_size = 64;
};

Result<allocate::Plan> load_plan(Context& context, const std::string& path) {
  SLUICE_ASSIGN(const auto source, context.storage->open_source(path));
  SLUICE_ASSIGN(const std::string text, io::read_text(*source, kPlanBytesMax));
  return allocate::plan_from_json(text, path);
}

// What is wrong with the options that name a uniform format; empty when nothing is.
std::string format_problem(const Options& options, bool group_size_given) {
  if (options.mode == "affine") {
    if (options.bits == 0 && options.plan.empty() && options.recipe.empty())
      return "--mode affine needs --bits";
    return options.group_size == 16 ? "--group-size 16 is for --mode nvfp4" : "";
  }
  if (!options.plan.empty()) return "--plan says which modes to use; leave out --mode";
  const numerics::QuantFormat format = *numerics::parse_format(options.mode);
  if (options.bits != 0 && options.bits != format.bits)
    return fmt::format("{} has {} bits, not --bits {}", options.mode, format.bits, options.bits);
  if (group_size_given && options.group_size != format.group_size)
    return fmt::format("{} has groups of {}, not --group-size {}", options.mode, format.group_size,
                       options.group_size);
  if (options.parity != "cpu")
    return fmt::format("{} is made by MLX's CPU rule; --parity gpu is for affine", options.mode);
  return "";
}

Result<numerics::QuantFormat> wanted_format(const Options& options) {
  if (options.mode != "affine") return numerics::parse_format(options.mode);
  return numerics::parse_format(fmt::format("{}/{}", options.bits, options.group_size));
}

Result<int> report_part(Context& context, const Options& options, const stream::Part& part) {
  if (context.options.json)
    context.print_json({{"output", convert::partial_path(options.out)},
                        {"part", stream::part_text(part)},
                        {"peak_resident_bytes", peak_resident_bytes()}});
  else
    context.print(fmt::format("{}: part {} written\nwhen all parts are done: sluice merge {}\n",
                              convert::partial_path(options.out), stream::part_text(part),
                              shell_word(options.out)));
  return kExitSuccess;
}

Result<allocate::Plan> plan_without_analysis(Context& context, const OpenedModel& model,
                                             const Options& options) {
  const auto encoder = numerics::encoder_from_name(options.encoder);
  if (!options.recipe.empty()) {
    SLUICE_ASSIGN(const FormatRule rule, recipe_rule(model.map, options.recipe,
                                                     static_cast<uint16_t>(options.group_size)));
    return uniform_plan(context, model, rule, options.recipe, *encoder, options.parity);
  }
  SLUICE_ASSIGN(const numerics::QuantFormat format, wanted_format(options));
  return uniform_plan(context, model, uniform_rule(format), numerics::format_text(format), *encoder,
                      options.parity);
}

Result<int> run(Context& context, const Options& options) {
  SLUICE_ASSIGN(const stream::Part part, choose_part(context, options.part));
  std::optional<allocate::Plan> plan;
  std::string dtype = options.dtype, layers = options.layers;
  if (!options.plan.empty()) {
    SLUICE_ASSIGN(plan, load_plan(context, options.plan));
    if (dtype.empty()) dtype = plan->data().dtype;
    layers = plan->data().only_layers;
    if (dtype != plan->data().dtype)
      return fail(ErrorCode::kInvalidArgument, "{} was made for {}, not for --dtype {}",
                  options.plan, plan->data().dtype, dtype);
  }
  SLUICE_ASSIGN(const OpenedModel model, open_model(context, options.model, dtype, layers));
  if (!plan) {
    SLUICE_ASSIGN(plan, plan_without_analysis(context, model, options));
  }
  std::shared_ptr<const io::Activations> activations;
  if (!options.activations.empty()) {
    SLUICE_ASSIGN(activations, open_activations(context, *model.checkpoint, options.activations));
    SLUICE_ASSIGN(plan, with_feedback(*plan, *activations));
  }
  SLUICE_ASSIGN(
      const convert::ConvertSummary summary,
      run_convert(context, model, *plan, options.out, {}, part, nullptr, false, activations));
  context.console->end();
  if (!part.whole()) return report_part(context, options, part);
  if (context.options.json) {
    context.print_json({{"output", options.out},
                        {"weight_file_bytes", summary.weight_file_bytes},
                        {"shards", summary.shards},
                        {"modules_resumed", summary.modules_resumed},
                        {"plan", plan_summary_json(*plan)},
                        {"peak_resident_bytes", peak_resident_bytes()}});
  } else {
    context.print(fmt::format(
        "{}: {} in {} {}, {:.3f} bits per weight, peak memory {}\nnext: sluice verify {} {}\n",
        options.out, bytes_text(summary.weight_file_bytes), summary.shards,
        summary.shards == 1 ? "shard" : "shards", allocate::bits_per_weight(*plan),
        bytes_text(peak_resident_bytes()), shell_word(options.model), shell_word(options.out)));
  }
  return kExitSuccess;
}

}  // namespace

void add_quantize(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("quantize", "write a model in MLX's format, by a plan or uniform");
  command
      ->add_option("MODEL", options->model,
                   "folder with safetensors, a .gguf file, hf://org/name or an https address")
      ->type_name("PATH")
      ->required();
  command->add_option("-o,--output", options->out, "output folder, must not exist")
      ->type_name("FOLDER")
      ->required()
      ->check(name_check());
  CLI::App* formats = command->add_option_group("what to write, exactly one");
  formats->require_option(1, 2);
  CLI::Option* plan = formats->add_option("--plan", options->plan, "what `sluice plan -o` wrote")
                          ->type_name("FILE")
                          ->check(name_check());
  formats->add_option("--bits", options->bits, "uniform width")
      ->check(CLI::IsMember({2, 3, 4, 5, 6, 8}))
      ->excludes("--plan");
  formats
      ->add_option("--mode", options->mode,
                   "affine (the default, with --bits), or a mode with its own width and group")
      ->check(CLI::IsMember({"affine", "mxfp4", "mxfp8", "nvfp4"}));
  formats
      ->add_option(
          "--recipe", options->recipe,
          "mlx_lm's mixed widths, the wider ones where they matter most; routers stay at 8")
      ->check(CLI::IsMember(std::vector<std::string>(std::begin(kRecipes), std::end(kRecipes))))
      ->excludes("--plan")
      ->excludes("--bits")
      ->excludes("--mode");
  CLI::Option* group_size =
      command->add_option("--group-size", options->group_size, "weights that share a scale")
          ->check(CLI::IsMember({16, 32, 64, 128}))
          ->capture_default_str();
  command
      ->add_option("--encoder", options->encoder,
                   "parity: MLX's own bytes; best: codes and scales searched")
      ->check(CLI::IsMember({"parity", "best"}))
      ->capture_default_str();
  command->add_option("--parity", options->parity, "rounding rule of MLX to reproduce")
      ->check(CLI::IsMember({"cpu", "gpu"}))
      ->capture_default_str();
  command
      ->add_option("--activations", options->activations,
                   "what `sluice calibrate` recorded: columns make good each other's errors")
      ->type_name("FOLDER");
  add_dtype_option(*command, options->dtype);
  add_part_option(*command, options->part);
  add_layers_option(*command, options->layers)->excludes(plan);
  command->footer(
      "Examples:\n"
      "  sluice quantize ./Qwen3-8B --plan plan.json -o Qwen3-8B-6GB\n"
      "  sluice quantize ./Qwen3-8B --plan plan.json --activations recorded -o Qwen3-8B-6GB\n"
      "  sluice quantize ./Qwen3-8B --bits 4 --group-size 64 -o Qwen3-8B-4bit\n"
      "  sluice quantize ./Qwen3-8B --mode mxfp4 -o Qwen3-8B-mxfp4\n"
      "  sluice quantize ./Qwen3-8B --recipe mixed_3_6 -o Qwen3-8B-mixed");
  command->callback([&action, options, group_size] {
    if (const std::string problem = format_problem(*options, group_size->count() > 0);
        !problem.empty())
      throw CLI::ValidationError(problem);
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
