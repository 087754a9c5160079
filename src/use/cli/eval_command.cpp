// `sluice eval`: how well a model predicts a text, alone or against a reference, and how often it
// picks the right one of several answers.
#include <CLI/CLI.hpp>

#include "cli/evaluation.h"
#include "cli/generation.h"
#include "cli/model.h"
#include "evaluate/choices.h"
#include "evaluate/reference.h"

namespace sluice::cli {
namespace {

using evaluate::Perplexity;

struct Options {
  std::string model, against, save_reference, tasks;
  TextArguments text;
  EngineArguments engine;
  double perplexity_max = 0, kl_max = 0;
};

std::string perplexity_text(const Perplexity& found) {
  return fmt::format(
      "perplexity      {}\nmedian          {:.4f}\ntrimmed         {:.4f}\nnats per token  {:.5f}\n"
      "scored          {} tokens in {} windows\n",
      interval_text(found.perplexity, 4), found.median, found.trimmed, found.nats, found.tokens,
      found.windows);
}

bool passes(const Options& options, const Perplexity& found, const evaluate::Comparison* compared) {
  if (options.perplexity_max > 0 && found.perplexity.mean > options.perplexity_max) return false;
  return options.kl_max <= 0 || (compared != nullptr && compared->kl.mean <= options.kl_max);
}

int verdict(Context& context, bool passed) {
  if (passed) return kExitSuccess;
  context.console->error("worse than the threshold that was set");
  return kExitCheckFailed;
}

void print_comparison(Context& context, const evaluate::Comparison& compared, bool passed) {
  if (context.options.json) {
    context.print_json({{"model", perplexity_json(compared.model)},
                        {"reference", perplexity_json(compared.reference)},
                        {"kl", estimate_json(compared.kl)},
                        {"kl_median", compared.spread.median},
                        {"kl_p99", compared.spread.p99},
                        {"kl_max", compared.spread.max},
                        {"top1_agreement", estimate_json(compared.agreement)},
                        {"passed", passed}});
    return;
  }
  context.print(perplexity_text(compared.model));
  context.print(fmt::format(
      "reference       {}\nKL divergence   {} nats; median {:.5f}, 99th percentile {:.4f}, "
      "largest {:.3f}\nsame top token  {}\n",
      interval_text(compared.reference.perplexity, 4), interval_text(compared.kl, 5),
      compared.spread.median, compared.spread.p99, compared.spread.max,
      interval_text(in_percent(compared.agreement), 2)));
}

// A folder made by --save-reference, or a model to run beside this one.
Result<int> compare_with(Context& context, const Options& options, const RunningModel& running,
                         const std::vector<evaluate::Window>& windows) {
  RunningModel other;
  std::unique_ptr<evaluate::ReferenceRows> rows;
  if (context.storage->exists(options.against + "/reference.json")) {
    SLUICE_ASSIGN(rows, evaluate::open_reference(options.against, windows, *context.storage));
  } else {
    SLUICE_ASSIGN(other, plan_engine(context, options.against, options.engine));
    SLUICE_TRY(load_weights(context, other));
    rows = evaluate::live_reference(*other.engine, windows);
  }
  SLUICE_ASSIGN(
      const evaluate::Comparison compared,
      evaluate::compare(*running.engine, windows, *rows, *context.console, context.cancel));
  context.console->end();
  const bool passed = passes(options, compared.model, &compared);
  print_comparison(context, compared, passed);
  return verdict(context, passed);
}

Result<int> eval_text(Context& context, const Options& options, const RunningModel& running,
                      const chat::ChatModel& model) {
  SLUICE_ASSIGN(const auto windows,
                windows_of(context, options.text, options.engine.context_tokens, model));
  if (!options.save_reference.empty()) {
    SLUICE_TRY(evaluate::write_reference(*running.engine, windows, options.save_reference,
                                         *context.storage, *context.console, context.cancel));
    context.console->end();
    if (options.against.empty()) {
      context.print(fmt::format("{}: {} windows\n", options.save_reference, windows.size()));
      return kExitSuccess;
    }
  }
  if (!options.against.empty()) return compare_with(context, options, running, windows);
  SLUICE_ASSIGN(
      const evaluate::PerplexityRun found,
      evaluate::measure_perplexity(*running.engine, windows, *context.console, context.cancel));
  context.console->end();
  const bool passed = passes(options, found.summary, nullptr);
  if (context.options.json) {
    Json json = perplexity_json(found.summary);
    json["protocol"] = options.text.protocol;
    json["context"] = options.engine.context_tokens;
    json["passed"] = passed;
    context.print_json(json);
  } else {
    context.print(perplexity_text(found.summary));
  }
  return verdict(context, passed);
}

Result<int> eval_tasks(Context& context, const Options& options, const RunningModel& running,
                       const chat::ChatModel& model) {
  SLUICE_ASSIGN(const std::string text, read_large_text(context, options.tasks));
  SLUICE_ASSIGN(const auto questions, evaluate::parse_questions(text, options.tasks));
  SLUICE_ASSIGN(const evaluate::Accuracy found, evaluate::measure_accuracy(
                                                    *running.engine,
                                                    [&](std::string_view part, bool bos) {
                                                      return model.tokenizer.encode(part, bos);
                                                    },
                                                    questions, *context.console, context.cancel));
  context.console->end();
  if (context.options.json) {
    context.print_json({{"questions", found.questions},
                        {"accuracy", estimate_json(found.plain)},
                        {"accuracy_per_byte", estimate_json(found.normalized)},
                        {"nats", estimate_json(found.target_nats)}});
  } else {
    context.print(
        fmt::format("accuracy            {}\naccuracy per byte   {}\nnats of the answer  "
                    "{}\nquestions           "
                    "{}\n",
                    interval_text(found.plain, 4), interval_text(found.normalized, 4),
                    interval_text(found.target_nats, 3), found.questions));
  }
  return kExitSuccess;
}

Result<int> run(Context& context, const Options& options) {
  SLUICE_ASSIGN(const RunningModel running, plan_engine(context, options.model, options.engine));
  SLUICE_ASSIGN(const chat::ChatModel model, chat::open_chat_model(running.engine, ""));
  SLUICE_TRY(load_weights(context, running));
  context.console->count_in(options.tasks.empty() ? "tokens" : "questions");
  SLUICE_ASSIGN(const int code, options.tasks.empty()
                                    ? eval_text(context, options, running, model)
                                    : eval_tasks(context, options, running, model));
  SLUICE_TRY(finish_running(context, running));
  return code;
}

}  // namespace

void add_eval(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  options->engine.context_tokens = 512;
  CLI::App* command =
      app.add_subcommand("eval", "perplexity, divergence from a reference, accuracy on questions");
  command
      ->add_option("MODEL", options->model,
                   "a folder with safetensors, a .gguf file, or the name of a downloaded model")
      ->type_name("PATH")
      ->required();
  CLI::App* what = command->add_option_group("what to evaluate on");
  what->add_option("--text", options->text.text,
                   "a text file, read in windows of --context tokens");
  what->add_option("--tasks", options->tasks,
                   "questions, one JSON object a line: context, choices and answer; or context and "
                   "target");
  what->require_option(1);
  command->add_option("--against", options->against,
                      "a model, or a folder made by --save-reference, to compare with");
  command->add_option("--save-reference", options->save_reference,
                      "keep what this model predicts in a folder; goes on where it stopped");
  add_window_options(*command, options->text);
  command->add_option("--max-perplexity", options->perplexity_max, "fail above this (exit code 1)");
  command->add_option("--max-kl", options->kl_max, "with --against: fail above this (exit code 1)");
  add_engine_options(*command, options->engine);
  command->footer(
      "Examples:\n"
      "  sluice eval Qwen3-8B-6GB --text wiki.test.raw\n"
      "  sluice eval Qwen3-8B --text wiki.test.raw --save-reference ref\n"
      "  sluice eval Qwen3-8B-6GB --text wiki.test.raw --against ref --max-kl 0.05");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
