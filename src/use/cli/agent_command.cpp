// `sluice agent`: a request done with tools, each use of which the user approves.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "chat/agent.h"
#include "chat/tool_calls.h"
#include "chat/tools/file_tool.h"
#include "chat/tools/search_tool.h"
#include "chat/tools/shell_tool.h"
#include "chat/visible_text.h"
#include "cli/generation.h"
#include "cli/interrupt.h"
#include "cli/line_reader.h"
#include "cli/model.h"
#include "cli/web_fetch.h"

namespace sluice::cli {
namespace {

constexpr uint64_t kAnswerTokens = 4096;

struct Options {
  std::string model, prompt, folder = ".", transcript;
  std::vector<std::string> tools = {"files"}, yes;
  bool yes_read_only = false;
  uint64_t steps = 16;
  std::string engine_name = "duckduckgo", engine_address, engine_key;
  EngineArguments engine;
  GenerationArguments generation;
};

// The tools that were asked for. Errors name the one that cannot be used here.
Result<std::vector<std::unique_ptr<chat::Tool>>> make_tools(const Options& options) {
  SLUICE_ASSIGN(chat::WorkFolder folder, chat::WorkFolder::open(options.folder));
  std::vector<std::unique_ptr<chat::Tool>> tools;
  for (const std::string& name : options.tools) {
    if (name == "files") {
      tools.push_back(std::make_unique<chat::FileTool>(folder));
    } else if (name == "shell") {
      SLUICE_TRY(chat::probe_sandbox(folder.path()));
      tools.push_back(std::make_unique<chat::ShellTool>(chat::ShellOptions{folder.path(), {}, {}}));
    } else {
      chat::SearchOptions search;
      SLUICE_ASSIGN(search.engine, chat::parse_search_engine(options.engine_name));
      search.address = options.engine_address;
      search.key = options.engine_key;
      search.fetch_engine = fetch_chosen();
      search.fetch_page = fetch_public();
      SLUICE_ASSIGN(auto tool, chat::SearchTool::make(std::move(search)));
      tools.push_back(std::move(tool));
    }
  }
  return tools;
}

// Adds what the parser found; false once nobody wants more of the text.
bool take(const std::vector<chat::AnswerPart>& parts, const chat::OnAgentText& on_text,
          chat::AgentAnswer& answer) {
  using Kind = chat::AnswerPart::Kind;
  bool going_on = true;
  for (const chat::AnswerPart& part : parts) {
    if (part.kind == Kind::kContent || part.kind == Kind::kReasoning) {
      const bool reasoning = part.kind == Kind::kReasoning;
      (reasoning ? answer.reasoning : answer.text) += part.text;
      going_on = on_text(part.text, reasoning) && going_on;
    }
    if (part.kind == Kind::kCall) answer.calls.push_back({part.id, part.name, ""});
    // Of a call that was cut off the arguments stay empty, and it is refused as such.
    if (part.kind == Kind::kCallEnd && part.index < answer.calls.size())
      answer.calls[part.index].arguments = part.text;
  }
  return going_on;
}

// Turns of the agent on a session of its own.
class OwnGeneration {
 public:
  OwnGeneration(const Options& options, const chat::ChatModel& model, runtime::Sampler& sampler,
                chat::ToolSyntax syntax, const CancelToken& cancel)
      : options_(options),
        model_(model),
        sampler_(sampler),
        syntax_(syntax),
        cancel_(cancel),
        session_(model.engine->new_session()) {}

  Result<chat::AgentAnswer> operator()(const chat::AgentTurn& turn,
                                       const chat::OnAgentText& on_text) {
    tokenizer::ChatInput input;
    SLUICE_ASSIGN(input.variables, template_variables(options_.generation));
    Json messages = turn.messages;
    if (syntax_.in_template()) {
      if (!turn.tools.is_null()) input.tools = dump_json(turn.tools);
    } else {
      messages = without_tools(messages);
      if (!turn.tools.is_null()) describe_tools(turn.tools, messages);
    }
    input.messages = dump_json(messages);
    std::string prompt;
    SLUICE_ASSIGN(const auto tokens, chat::render_prompt(model_, input, &prompt));
    SLUICE_ASSIGN(auto constraint, constraint_of(turn, prompt));
    chat::GenerateOptions how = generate_options(options_.generation, nullptr);
    how.constraint = constraint ? &*constraint : nullptr;
    how.shown = syntax_.shown_tokens(model_.tokenizer);
    chat::ToolCallParser parser(syntax_, prompt, turn.tools);
    chat::AgentAnswer answer;
    SLUICE_ASSIGN(
        const chat::Generation generation,
        chat::generate(
            model_, session_, tokens, choose_with(sampler_), how,
            [&](std::string_view piece) { return take(parser.feed(piece), on_text, answer); },
            &cancel_));
    (void)take(parser.finish(), on_text, answer);
    answer.prompt_tokens = generation.prompt_tokens;
    answer.generated_tokens = generation.tokens;
    if (generation.finish == chat::Finish::kCancelled) answer.finish = "cancelled";
    if (generation.finish == chat::Finish::kLength || generation.finish == chat::Finish::kContext)
      answer.finish = "length";
    return answer;
  }

 private:
  // In the system prompt, which is made where there is none.
  static void describe_tools(const Json& tools, Json& messages) {
    std::string text = chat::ToolSyntax::describe(tools);
    const bool has_system = !messages.empty() && messages[0].value("role", "") == "system";
    if (has_system) text = messages[0].value("content", "") + "\n\n" + text;
    Json system = {{"role", "system"}, {"content", std::move(text)}};
    if (has_system)
      messages[0] = std::move(system);
    else
      messages.insert(messages.begin(), std::move(system));
  }

  // A template that knows no tools knows neither calls nor results.
  static Json without_tools(const Json& messages) {
    Json list = Json::array();
    for (const Json& message : messages) {
      const std::string role = message.value("role", "");
      std::string content = message.value("content", "");
      if (role == "tool") {
        list.push_back(
            {{"role", "user"},
             {"content", chat::ToolSyntax::written_result(message.value("name", ""), content)}});
        continue;
      }
      if (const Json* calls = json_find(message, "tool_calls"))
        for (const Json& call : *calls)
          content += chat::ToolSyntax::written(
              call["function"]["name"].get_ref<const std::string&>(),
              call["function"]["arguments"].get_ref<const std::string&>());
      list.push_back({{"role", role}, {"content", content}});
    }
    return list;
  }

  Result<std::optional<tokenizer::Constraint>> constraint_of(const chat::AgentTurn& turn,
                                                             std::string_view prompt) const {
    std::optional<tokenizer::Constraint> constraint;
    if (!turn.words.empty()) {
      SLUICE_ASSIGN(constraint, tokenizer::Constraint::choices(model_.tokenizer, turn.words));
    } else if (!turn.forced_tool.empty()) {
      const chat::ToolChoice choice{chat::ToolChoice::Mode::kNamed, turn.forced_tool, false};
      SLUICE_ASSIGN(constraint, syntax_.constraint(model_.tokenizer, turn.tools, choice, prompt));
    }
    return constraint;
  }

  const Options& options_;
  const chat::ChatModel& model_;
  runtime::Sampler& sampler_;
  const chat::ToolSyntax syntax_;
  const CancelToken& cancel_;
  runtime::Session session_;
};

Json request_json(const chat::AgentRequest& request) {
  return {{"object", "sluice.agent.event"},
          {"type", "tool_request"},
          {"id", request.id},
          {"tool", request.tool},
          {"function", request.function},
          {"arguments", request.arguments},
          {"shown", request.shown},
          {"needs_approval", request.needs_approval}};
}

Json result_json(const chat::AgentResult& result) {
  return {{"object", "sluice.agent.event"},
          {"type", "tool_result"},
          {"id", result.id},
          {"ok", result.ok},
          {"text", result.text}};
}

// What a run shows, asks and writes down.
class Desk {
 public:
  Desk(Context& context, const Options& options, std::FILE* transcript)
      : context_(context),
        transcript_(transcript),
        terminal_(isatty(STDIN_FILENO) == 1 && isatty(STDERR_FILENO) == 1),
        shows_thoughts_(reasoning_of(options.generation) == Reasoning::kOn) {}

  chat::AgentCallbacks callbacks() {
    return {[this](std::string_view delta, bool reasoning) { return text(delta, reasoning); },
            [this](const chat::AgentRequest& request) { return approve(request); },
            [this](const chat::AgentResult& result) {
              event(result_json(result));
              if (!result.ok) context_.console->info("  not done: " + result.text);
            }};
  }
  void event(const Json& json) {
    if (context_.options.json) context_.print(dump_json(json) + "\n");
    if (transcript_ == nullptr) return;
    std::fputs((dump_json(json) + "\n").c_str(), transcript_);
    std::fflush(transcript_);
  }

 private:
  bool text(std::string_view delta, bool reasoning) {
    if (context_.options.json)
      event({{"object", "sluice.agent.event"},
             {"type", "text"},
             {"delta", delta},
             {"reasoning", reasoning}});
    else if (!reasoning || shows_thoughts_)
      context_.print(chat::visible_text(delta));
    return true;
  }
  bool approve(const chat::AgentRequest& request) {
    event(request_json(request));
    if (!context_.options.json) context_.print("\n");
    context_.console->warn(fmt::format("[{}] {}", request.tool, request.shown));
    if (!request.needs_approval) return true;
    if (std::ranges::find(always_, request.tool) != always_.end()) return true;
    if (!terminal_) return false;  // nobody is there to ask
    LineReader reader(false, "");
    for (;;) {
      std::fputs("do this? [y]es, [n]o, [a]lways for this tool: ", stderr);
      const auto reply = reader.read("");
      if (!reply || *reply == "n" || *reply == "no") return false;
      if (*reply == "a" || *reply == "always") always_.push_back(request.tool);
      if (*reply == "a" || *reply == "always" || *reply == "y" || *reply == "yes") return true;
    }
  }

  Context& context_;
  std::FILE* const transcript_;
  const bool terminal_, shows_thoughts_;
  std::vector<std::string> always_;
};

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

Json done_json(const chat::AgentRun& run) {
  Json sources = Json::array();
  for (const chat::ToolSource& source : run.sources)
    sources.push_back({{"title", source.title}, {"url", source.url}});
  return {{"object", "sluice.agent.event"},
          {"type", "done"},
          {"finish_reason", run.finish_reason},
          {"usage",
           {{"prompt_tokens", run.prompt_tokens}, {"completion_tokens", run.generated_tokens}}},
          {"sources", sources}};
}

Result<int> run(Context& context, const Options& options) {
  SLUICE_ASSIGN(const auto tools, make_tools(options));
  SLUICE_ASSIGN(const RunningModel running, plan_engine(context, options.model, options.engine,
                                                        generation_use(options.generation)));
  SLUICE_ASSIGN(const chat::ChatModel model, open_chat(context, running, options.generation));
  if (!model.chat_template)
    return fail(ErrorCode::kUnsupported, "{} cannot be an agent: {}", options.model,
                model.template_problem.message);
  SLUICE_ASSIGN(runtime::Sampler sampler,
                make_sampler(context, *running.engine, options.generation, 0));
  SLUICE_ASSIGN(const std::string system, system_prompt(context, options.generation));
  std::unique_ptr<std::FILE, CloseFile> transcript;
  if (!options.transcript.empty()) {
    transcript.reset(std::fopen(options.transcript.c_str(), "ae"));
    if (transcript == nullptr)
      return fail(ErrorCode::kIo, "{} cannot be written", options.transcript);
  }
  SLUICE_TRY(load_weights(context, running));

  CancelToken cancel;
  const InterruptScope scope(cancel);
  const auto syntax = chat::ToolSyntax::of_template(model.chat_template->source(true));
  OwnGeneration generation(options, model, sampler, syntax, cancel);
  std::vector<chat::Tool*> allowed;
  for (const auto& tool : tools) allowed.push_back(tool.get());
  chat::AgentOptions how;
  how.steps_max = options.steps;
  how.native_tools = syntax.in_template();
  how.policy = {options.yes_read_only, options.yes};
  how.cancel = &cancel;
  chat::Agent agent(how, allowed, std::ref(generation));

  Json messages = Json::array();
  if (!system.empty()) messages.push_back({{"role", "system"}, {"content", system}});
  messages.push_back({{"role", "user"}, {"content", options.prompt}});
  Desk desk(context, options, transcript.get());
  desk.event({{"object", "sluice.agent.event"}, {"type", "start"}, {"messages", messages}});
  SLUICE_ASSIGN(const chat::AgentRun done, agent.run(messages, desk.callbacks()));
  desk.event(done_json(done));
  if (!context.options.json) {
    context.print("\n");
    for (const chat::ToolSource& source : done.sources)
      context.print(chat::visible_text(fmt::format("[{}] {}\n", source.title, source.url)));
  }
  SLUICE_TRY(finish_running(context, running));
  return done.finish_reason == "cancelled" ? kExitInterrupted : kExitSuccess;
}

}  // namespace

void add_agent(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  options->generation.tokens_max = kAnswerTokens;
  CLI::App* command =
      app.add_subcommand("agent", "do a request with tools: search, shell, files of one folder");
  command
      ->add_option("MODEL", options->model,
                   "a folder with safetensors, a .gguf file, or the name of a downloaded model")
      ->type_name("PATH")
      ->required();
  command->add_option("-p,--prompt", options->prompt, "the request")->required();
  command->add_option("--folder", options->folder, "the folder to work in, and nothing outside it")
      ->type_name("PATH");
  const CLI::IsMember known({"search", "shell", "files"});
  command->add_option("--tools", options->tools, "those allowed: search, shell, files")
      ->delimiter(',')
      ->check(known);
  command->add_flag("--yes-read-only", options->yes_read_only,
                    "read files of the folder without asking");
  command->add_option("--yes", options->yes, "tools that do everything without asking")
      ->delimiter(',')
      ->check(known);
  command->add_option("--max-steps", options->steps, "answers of the model, at most")
      ->check(CLI::Range(1, 1000));
  command
      ->add_option("--transcript", options->transcript, "add all that happens to a JSON lines file")
      ->type_name("PATH");
  command->add_option("--search-engine", options->engine_name, "searxng, brave or duckduckgo");
  command->add_option("--search-address", options->engine_address, "of the search engine");
  command->add_option("--search-key", options->engine_key, "for Brave's API");
  add_generation_options(*command, options->generation);
  add_engine_options(*command, options->engine);
  command->footer(
      "Examples:\n"
      "  sluice agent Qwen3-8B-6GB --folder notes --yes-read-only -p \"Which note is the "
      "longest?\"\n"
      "  sluice agent Qwen3-8B-6GB --folder app --tools shell,files -p \"Make the tests pass.\"");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
