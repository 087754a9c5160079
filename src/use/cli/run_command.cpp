// `sluice run`: one prompt, one answer.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "cli/answer_printer.h"
#include "cli/drafting.h"
#include "cli/generation.h"
#include "cli/interrupt.h"
#include "cli/model.h"

namespace sluice::cli {
namespace {

constexpr uint64_t kPromptBytesMax = 64ull << 20;
constexpr uint64_t kTokensDefault = 256;

struct Options {
  std::string model, prompt, prompt_file;
  EngineArguments engine;
  GenerationArguments generation;
  ConstraintArguments constraint;
  bool has_prompt = false;
};

Result<std::string> read_standard_input() {
  std::string text;
  char piece[1 << 16];
  for (size_t length; (length = std::fread(piece, 1, sizeof piece, stdin)) > 0;) {
    text.append(piece, length);
    if (text.size() > kPromptBytesMax)
      return fail(ErrorCode::kInvalidArgument, "standard input: a prompt has at most {} bytes",
                  kPromptBytesMax);
  }
  return text;
}

Result<std::string> prompt_text(Context& context, const Options& options) {
  if (!options.prompt_file.empty() && options.prompt_file != "-") {
    SLUICE_ASSIGN(const auto source, context.storage->open_source(options.prompt_file));
    return io::read_text(*source, kPromptBytesMax);
  }
  if (options.has_prompt && options.prompt != "-") return options.prompt;
  return read_standard_input();
}

// The prompt as tokens, and its text as the model sees it.
Result<std::vector<uint32_t>> prompt_tokens(Context& context, const chat::ChatModel& model,
                                            const Options& options, std::string* shown) {
  SLUICE_ASSIGN(*shown, prompt_text(context, options));
  if (shown->empty()) return fail(ErrorCode::kInvalidArgument, "the prompt is empty");
  const bool base_model =
      !model.chat_template && model.template_problem.code == ErrorCode::kNotFound;
  if (options.generation.raw || base_model) return model.tokenizer.encode(*shown, true);
  std::vector<tokenizer::ChatMessage> messages;
  SLUICE_ASSIGN(const std::string system, system_prompt(context, options.generation));
  if (!system.empty()) messages.push_back({"system", system});
  messages.push_back({"user", *shown});
  tokenizer::ChatInput input;
  input.messages = tokenizer::messages_json(messages);
  SLUICE_ASSIGN(input.variables, template_variables(options.generation));
  return chat::render_prompt(model, input, shown);
}

chat::ThinkingMarks own_thinking(const chat::ChatModel& model, const Options& options) {
  const bool chats = !options.generation.raw && model.chat_template.has_value();
  if (!chats || reasoning_of(options.generation) == Reasoning::kOff) return {};
  return chat::template_thinking(model.chat_template->source(false));
}

// All that can be wrong with the request is told before the weights are read.
Result<int> run(Context& context, const Options& options) {
  SLUICE_ASSIGN(const RunningModel running, plan_engine(context, options.model, options.engine,
                                                        generation_use(options.generation)));
  SLUICE_ASSIGN(const chat::ChatModel model, open_chat(context, running, options.generation));
  SLUICE_ASSIGN(runtime::Sampler sampler,
                make_sampler(context, *running.engine, options.generation, 0));
  const DraftArguments& draft = options.generation.draft;
  SLUICE_ASSIGN(Drafting drafting,
                plan_draft(context, running, model, options.engine, draft, sampler));
  std::string prompt;
  SLUICE_ASSIGN(const std::vector<uint32_t> tokens,
                prompt_tokens(context, model, options, &prompt));
  SLUICE_TRY(chat::check_prompt(tokens, running.engine->info().context));
  SLUICE_ASSIGN(auto constraint, make_constraint(context, model.tokenizer, options.constraint,
                                                 prompt, own_thinking(model, options)));
  SLUICE_TRY(load_weights(context, running));
  SLUICE_TRY(load_draft(context, draft, drafting));
  runtime::Session session = running.engine->new_session();
  AnswerPrinter printer(prompt, reasoning_of(options.generation));
  CancelToken cancel;
  const InterruptScope scope(cancel);
  const bool quiet_output = context.options.json;
  chat::GenerateOptions how = generate_options(options.generation, drafting.draft.get());
  if (constraint) how.constraint = &*constraint;
  SLUICE_ASSIGN(
      const chat::Generation generation,
      chat::generate(
          model, session, tokens, choose_with(sampler), how,
          [&](std::string_view text) { return quiet_output || printer.show(text); }, &cancel));
  if (quiet_output) {
    context.print_json(generation_json(generation, *running.engine));
  } else {
    printer.finish();
    if (!printer.ends_line()) context.print("\n");
    context.console->info("\n" + generation_text(generation, *running.engine));
  }
  if (!generation.complete)
    context.console->warn(
        fmt::format("the answer was cut off ({}) before it was complete; raise --max-tokens",
                    chat::finish_name(generation.finish)));
  SLUICE_TRY(finish_running(context, running));
  return generation.finish == chat::Finish::kCancelled ? kExitInterrupted : kExitSuccess;
}

}  // namespace

void add_run(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  options->generation.tokens_max = kTokensDefault;
  CLI::App* command = app.add_subcommand("run", "generate text from one prompt");
  command
      ->add_option("MODEL", options->model,
                   "a folder with safetensors, a .gguf file, or the name of a downloaded model")
      ->type_name("PATH")
      ->required();
  CLI::Option* prompt =
      command->add_option("-p,--prompt", options->prompt, "the prompt; -: from standard input");
  command->add_option("-f,--file", options->prompt_file, "a file with the prompt")
      ->excludes(prompt);
  command->add_flag("--raw", options->generation.raw,
                    "continue the prompt as it is, without the chat template");
  add_generation_options(*command, options->generation);
  add_constraint_options(*command, options->constraint);
  add_engine_options(*command, options->engine);
  command->footer(
      "Examples:\n"
      "  sluice run Qwen3-8B-6GB -p \"Name a city.\" -j '{\"type\": \"object\"}'\n"
      "  sluice run Qwen3-8B-6GB -p \"Why is the sky blue?\"\n"
      "  sluice run model.gguf --raw -p \"Once upon a time\" -n 100 --temp 0.8 --seed 1\n"
      "  cat notes.txt | sluice run Qwen3-8B-6GB -s \"Summarize.\"");
  command->callback([&action, options, prompt] {
    options->has_prompt = prompt->count() > 0;
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
