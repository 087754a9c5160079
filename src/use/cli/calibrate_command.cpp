// `sluice calibrate`: records what enters a model's products with weights, for error feedback.
#include <CLI/CLI.hpp>

#include "base/units.h"
#include "cli/generation.h"
#include "cli/model.h"
#include "evaluate/activations.h"
#include "evaluate/self_text.h"

namespace sluice::cli {
namespace {

constexpr uint64_t kTextBytesMax = 1ull << 30;
constexpr size_t kSessions = 8;  // sequences that are written together

struct Options {
  std::string model, out, text, moments = "2GB";
  EngineArguments engine;
  size_t tokens = 16384;
};

// By tensor name, how many experts it has; of the weights whose input is worth recording.
Result<std::unordered_map<std::string, uint64_t>> wanted_modules(Context& context,
                                                                 const std::string& path) {
  SLUICE_ASSIGN(const OpenedModel model, open_model(context, path, ""));
  std::unordered_map<std::string, uint64_t> wanted;
  for (const families::OutputModule& module : model.map.modules) {
    // Routers keep eight bits; an embedding's rows are looked up. The engine runs columns in the
    // source's order.
    const bool worth = module.quantizable && module.role != families::Role::kRouter &&
                       module.role != families::Role::kEmbedding &&
                       module.recipe.columns.in_order();
    if (worth) wanted.emplace(module.tensor_name(), module.experts());
  }
  return wanted;
}

// The text in windows from BOS on, as many tokens of it as wanted.
Result<std::vector<evaluate::Window>> windows_of_text(Context& context, const Options& options,
                                                      const RunningModel& running) {
  SLUICE_ASSIGN(const chat::ChatModel model, chat::open_chat_model(running.engine, ""));
  SLUICE_ASSIGN(const auto source, context.storage->open_source(options.text));
  SLUICE_ASSIGN(const std::string text, io::read_text(*source, kTextBytesMax));
  SLUICE_ASSIGN(auto ids, model.tokenizer.encode(text, false));
  if (ids.size() > options.tokens) ids.resize(options.tokens);
  return evaluate::cut_windows(evaluate::Protocol::kPlain, ids, options.engine.context_tokens,
                               running.engine->info().bos);
}

Result<std::vector<evaluate::Window>> windows_of(Context& context, const Options& options,
                                                 const RunningModel& running) {
  if (!options.text.empty()) return windows_of_text(context, options, running);
  context.console->count_in("tokens");
  auto windows = evaluate::generate_self_text(*running.engine,
                                              {.tokens = options.tokens,
                                               .window_tokens = options.engine.context_tokens,
                                               .sessions = kSessions,
                                               .simd = context.simd},
                                              *context.console, context.cancel);
  context.console->end();
  return windows;
}

Result<int> run(Context& context, const Options& options) {
  SLUICE_ASSIGN(const uint64_t moment_bytes, parse_bytes(options.moments));
  SLUICE_ASSIGN(const auto wanted, wanted_modules(context, options.model));
  SLUICE_ASSIGN(const RunningModel running,
                plan_engine(context, options.model, options.engine, {.sessions = kSessions}));
  SLUICE_TRY(load_weights(context, running));
  SLUICE_ASSIGN(const auto windows, windows_of(context, options, running));
  SLUICE_ASSIGN(const evaluate::ActivationPlan plan,
                evaluate::plan_activations(
                    *running.engine, windows,
                    [&](std::string_view name) -> uint64_t {
                      const auto found = wanted.find(std::string(name));
                      return found == wanted.end() ? 0 : found->second;
                    },
                    moment_bytes, options.out, *context.storage, context.cancel));
  if (plan.manifest.inputs.empty())
    return fail(ErrorCode::kUnsupported, "{}: of no weight is it known what enters its product",
                options.model);
  context.console->info(fmt::format(
      "{} inputs of products, {} on disk; {} left to run {} tokens, with {} for moments",
      plan.manifest.inputs.size(), bytes_text(plan.disk_bytes),
      plan.passes.size() == 1 ? "one pass" : fmt::format("{} passes", plan.passes.size()),
      plan.manifest.tokens, bytes_text(plan.memory_bytes)));
  context.console->count_in("tokens");
  SLUICE_TRY(evaluate::record_activations(*running.engine, windows, plan, options.out,
                                          *context.storage, *running.pool, *context.console,
                                          context.cancel));
  context.console->end();
  SLUICE_ASSIGN(const auto made, io::Activations::open(*context.storage, options.out));
  if (context.options.json)
    context.print_json({{"output", options.out},
                        {"tokens", plan.manifest.tokens},
                        {"inputs", plan.manifest.inputs.size()},
                        {"bytes", plan.disk_bytes},
                        {"digest", made->digest().hex()},
                        {"peak_resident_bytes", peak_resident_bytes()}});
  else
    context.print(fmt::format(
        "{}: {} inputs over {} tokens, {}\nnext: sluice quantize {} --plan plan.json "
        "--activations {} -o OUT\n",
        options.out, plan.manifest.inputs.size(), plan.manifest.tokens, bytes_text(plan.disk_bytes),
        shell_word(options.model), shell_word(options.out)));
  return kExitSuccess;
}

}  // namespace

void add_calibrate(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  options->engine.context_tokens = 512;
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
      ->add_option("--text", options->text,
                   "a text file; without it the model writes the text itself")
      ->type_name("FILE");
  command->add_option("--tokens", options->tokens, "of the text")
      ->check(CLI::Range(size_t{64}, size_t{1} << 30))
      ->capture_default_str();
  command->add_option("--window", options->engine.context_tokens, "tokens that are run together")
      ->check(CLI::Range(uint64_t{32}, uint64_t{1} << 20))
      ->capture_default_str();
  command
      ->add_option("--moments", options->moments,
                   "memory for what is recorded in one pass over the text")
      ->type_name("SIZE")
      ->capture_default_str();
  command->add_option("--memory", options->engine.memory,
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
