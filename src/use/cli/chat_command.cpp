// `sluice chat`: a conversation on the terminal.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>

#include "cli/drafting.h"
#include "cli/generation.h"
#include "cli/interrupt.h"
#include "cli/line_reader.h"
#include "cli/model.h"
#include "cli/user_folder.h"

namespace sluice::cli {
namespace {

constexpr double kTemperature = 0.7;
constexpr uint64_t kConversationBytesMax = 64ull << 20;
// What encoding a token's text takes, measured at 65,536 tokens: about 200 bytes.
constexpr uint64_t kEncodingBytesToken = 256;

constexpr const char* kHelp =
    "/stats         speed and context of the conversation\n"
    "/system TEXT   another system prompt; begins anew\n"
    "/clear         begins anew\n"
    "/save FILE     keeps the conversation, with all the model has read\n"
    "/load FILE     goes on with one that was kept\n"
    "/quit          ends (so does Ctrl-D)\n"
    "Ctrl-C ends an answer. A line that ends with \\ goes on; \"\"\" opens and closes a longer "
    "text.\n";

struct Options {
  std::string model;
  EngineArguments engine;
  GenerationArguments generation;
};

// $XDG_STATE_HOME/sluice/chat_history, else below ~/.local/state; empty without either.
std::string history_path() {
  const std::string folder = user_folder("XDG_STATE_HOME", ".local/state");
  return folder.empty() ? "" : folder + "/chat_history";
}

class Conversation {
 public:
  Conversation(Context& context, const Options& options, const RunningModel& running,
               const chat::ChatModel& model, runtime::Sampler& sampler, chat::Draft* draft,
               std::string system, std::map<std::string, std::string> variables)
      : context_(context),
        options_(options),
        model_(model),
        sampler_(sampler),
        draft_(draft),
        session_(running.engine->new_session()),
        system_(std::move(system)) {
    input_.variables = std::move(variables);
    clear();
  }

  Status answer(const std::string& text);
  // A line that begins with a slash. False ends the conversation.
  Result<bool> command(const std::string& line);

 private:
  void clear();
  void stats() const;
  Status save(const std::string& path);
  Status load(const std::string& path);
  Result<std::vector<uint32_t>> prompt(std::string* text);

  Context& context_;
  const Options& options_;
  const chat::ChatModel& model_;
  runtime::Sampler& sampler_;
  chat::Draft* const draft_;  // may be null
  runtime::Session session_;
  std::string system_;
  std::vector<tokenizer::ChatMessage> messages_;
  tokenizer::ChatInput input_;
  std::optional<chat::Generation> last_;
};

void Conversation::clear() {
  messages_.clear();
  if (!system_.empty()) messages_.push_back({"system", system_});
}

Result<std::vector<uint32_t>> Conversation::prompt(std::string* text) {
  input_.messages = tokenizer::messages_json(messages_);
  return chat::render_prompt(model_, input_, text);
}

Status Conversation::answer(const std::string& text) {
  messages_.push_back({"user", text});
  std::string rendered;
  const auto tokens = prompt(&rendered);
  if (!tokens) {
    messages_.pop_back();
    return std::unexpected(tokens.error());
  }
  AnswerPrinter printer(rendered, reasoning_of(options_.generation));
  CancelToken cancel;
  const InterruptScope scope(cancel);
  model_.engine->adapt_memory();
  auto generation = chat::generate(
      model_, session_, *tokens, choose_with(sampler_),
      generate_options(options_.generation, draft_),
      [&](std::string_view piece) { return printer.show(piece); }, &cancel);
  printer.finish();
  if (!printer.ends_line()) context_.print("\n");
  if (!generation) {
    messages_.pop_back();
    return std::unexpected(generation.error());
  }
  messages_.push_back({"assistant", printer.answer()});
  last_ = std::move(*generation);
  if (last_->finish == chat::Finish::kContext)
    context_.console->warn("the context is full; /clear begins anew, --context-shift goes on");
  return {};
}

void Conversation::stats() const {
  std::string text = last_ ? generation_text(*last_, *model_.engine) : "";
  text += fmt::format("context: {} of {} tokens\n", session_.size(), session_.context());
  context_.print(text);
}

Status Conversation::save(const std::string& path) {
  SLUICE_TRY(session_.save(path));
  Json messages = Json::array();
  for (const tokenizer::ChatMessage& message : messages_)
    messages.push_back({{"role", message.role}, {"content", message.content}});
  return io::write_file_atomically(
      *context_.storage, path + ".json",
      dump_json({{"version", 1}, {"system", system_}, {"messages", messages}}, 1) + "\n");
}

Status Conversation::load(const std::string& path) {
  const std::string label = path + ".json";
  SLUICE_ASSIGN(const auto source, context_.storage->open_source(label));
  SLUICE_ASSIGN(const std::string text, io::read_text(*source, kConversationBytesMax));
  SLUICE_ASSIGN(const Json json, parse_json(text, label));
  SLUICE_TRY(json_int(json, "version", 1, 1, label));
  SLUICE_ASSIGN(const std::string system, json_string(json, "system", label));
  SLUICE_ASSIGN(const Json* list, json_array(json, "messages", label));
  std::vector<tokenizer::ChatMessage> messages;
  for (const Json& entry : *list) {
    tokenizer::ChatMessage& message = messages.emplace_back();
    SLUICE_ASSIGN(message.role, json_string(entry, "role", label));
    SLUICE_ASSIGN(message.content, json_string(entry, "content", label));
  }
  SLUICE_TRY(session_.load(path));
  system_ = system;
  messages_ = std::move(messages);
  return {};
}

Result<bool> Conversation::command(const std::string& line) {
  const size_t space = line.find(' ');
  const std::string name = line.substr(0, space);
  const std::string rest = space == std::string::npos ? "" : line.substr(space + 1);
  if (name == "/quit" || name == "/exit") return false;
  if (name == "/stats") {
    stats();
  } else if (name == "/clear") {
    clear();
  } else if (name == "/system") {
    system_ = rest;
    clear();
  } else if ((name == "/save" || name == "/load") && !rest.empty()) {
    SLUICE_TRY(name == "/save" ? save(rest) : load(rest));
  } else {
    context_.print(kHelp);
  }
  return true;
}

// One exchange; false at the end of the conversation. What goes wrong with a message is said, and
// the conversation goes on, unless the template itself cannot be used.
Result<bool> exchange(Context& context, Conversation& conversation, LineReader& reader) {
  const auto line = reader.read_message("> ");
  if (!line) return false;
  if (line->find_first_not_of(" \t\n") == std::string::npos) return true;
  Result<bool> going_on = true;
  if (line->starts_with('/')) {
    going_on = conversation.command(*line);
  } else if (const Status answered = conversation.answer(*line); !answered) {
    if (answered.error().code == ErrorCode::kUnsupported) return std::unexpected(answered.error());
    going_on = std::unexpected(answered.error());
  }
  if (going_on) return going_on;
  context.console->error(going_on.error().message);
  return true;
}

Result<int> run(Context& context, const Options& options) {
  EngineUse use = generation_use(options.generation);
  use.program_bytes_token = kEncodingBytesToken;
  SLUICE_ASSIGN(const RunningModel running,
                plan_engine(context, options.model, options.engine, use));
  SLUICE_ASSIGN(const chat::ChatModel model, open_chat(context, running, options.generation));
  if (!model.chat_template)
    return fail(ErrorCode::kUnsupported, "{} cannot chat: {}; `sluice run --raw` continues a text",
                options.model, model.template_problem.message);
  SLUICE_ASSIGN(runtime::Sampler sampler,
                make_sampler(context, *running.engine, options.generation, kTemperature));
  const DraftArguments& draft = options.generation.draft;
  SLUICE_ASSIGN(Drafting drafting,
                plan_draft(context, running, model, options.engine, draft, sampler));
  SLUICE_ASSIGN(std::string system, system_prompt(context, options.generation));
  SLUICE_ASSIGN(auto variables, template_variables(options.generation));
  SLUICE_TRY(load_weights(context, running));
  SLUICE_TRY(load_draft(context, draft, drafting));
  Conversation conversation(context, options, running, model, sampler, drafting.draft.get(),
                            std::move(system), std::move(variables));
  const bool terminal = isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1;
  if (terminal) context.print("/help tells what else one can type\n");
  LineReader reader(terminal, history_path());
  for (;;) {
    SLUICE_ASSIGN(const bool going_on, exchange(context, conversation, reader));
    if (going_on) continue;
    SLUICE_TRY(finish_running(context, running));
    return kExitSuccess;
  }
}

}  // namespace

void add_chat(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("chat", "talk to a model on the terminal");
  command
      ->add_option("MODEL", options->model,
                   "a folder with safetensors, a .gguf file, or the name of a downloaded model")
      ->type_name("PATH")
      ->required();
  add_generation_options(*command, options->generation);
  add_engine_options(*command, options->engine);
  command->footer(
      "Examples:\n"
      "  sluice chat Qwen3-8B-6GB\n"
      "  sluice chat Qwen3-8B-6GB -s \"Answer briefly.\" --reasoning hide --context 16384");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
