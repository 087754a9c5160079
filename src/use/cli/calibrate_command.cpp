// `sluice calibrate`: records what enters a model's products with weights, for error feedback.
#include <CLI/CLI.hpp>

#include "base/units.h"
#include "cli/calibration.h"

namespace sluice::cli {
namespace {

struct Options {
  std::string model, out;
  CalibrationArguments calibration;
};

Result<int> run(Context& context, const Options& options) {
  SLUICE_ASSIGN(const OpenedModel model, open_model(context, options.model, ""));
  SLUICE_ASSIGN(const auto made,
                record_inputs(context, options.model, model, options.calibration, options.out));
  const io::ActivationManifest& manifest = made->manifest();
  if (context.options.json)
    context.print_json({{"output", options.out},
                        {"tokens", manifest.tokens},
                        {"inputs", manifest.inputs.size()},
                        {"bytes", io::record_bytes(manifest)},
                        {"digest", made->digest().hex()},
                        {"peak_resident_bytes", peak_resident_bytes()}});
  else
    context.print(
        fmt::format("{}: {} inputs over {} tokens, {}\nnext: sluice quantize {} --plan plan.json "
                    "--activations {} -o OUT\n",
                    options.out, manifest.inputs.size(), manifest.tokens,
                    bytes_text(io::record_bytes(manifest)), shell_word(options.model),
                    shell_word(options.out)));
  return kExitSuccess;
}

}  // namespace

void add_calibrate(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "calibrate", "record what enters a model's products, for quantize --activations");
  command
      ->add_option("MODEL", options->model,
                   "a folder with safetensors, a .gguf file, or the name of a downloaded model")
      ->type_name("PATH")
      ->required();
  command->add_option("-o,--output", options->out, "a folder; goes on where it stopped")
      ->type_name("FOLDER")
      ->required()
      ->check(name_check());
  command
      ->add_option("--text", options->calibration.text,
                   "a text file; without it the model writes the text itself")
      ->type_name("FILE");
  command->add_option("--tokens", options->calibration.tokens, "of the text")
      ->check(CLI::Range(size_t{64}, size_t{1} << 30))
      ->capture_default_str();
  command
      ->add_option("--window", options->calibration.engine.context_tokens,
                   "tokens that are run together")
      ->check(CLI::Range(uint64_t{32}, uint64_t{1} << 20))
      ->capture_default_str();
  command
      ->add_option("--moments", options->calibration.moments,
                   "memory for what is recorded in one pass over the text")
      ->type_name("SIZE")
      ->capture_default_str();
  command->add_option("--memory", options->calibration.engine.memory,
                      "the most memory that the process may take to run the model, such as 8GB");
  command->footer(
      "Examples:\n"
      "  sluice calibrate ./Qwen3-8B -o Qwen3-8B-activations\n"
      "  sluice calibrate ./Qwen3-8B --text notes.txt --tokens 65536 -o activations");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
