#include "server/api.h"

#include <algorithm>
#include <ctime>

#include "chat/reasoning.h"
namespace sluice::server {
namespace {

constexpr std::string_view kJson = "application/json";
constexpr std::string_view kHtml = "text/html; charset=utf-8";

void reply_json(Exchange& exchange, const Json& json) {
  exchange.reply(200, kJson, dump_json(json));
}

std::string_view phase_name(SlotState::Phase phase) {
  constexpr std::string_view kNames[] = {"idle", "prefill", "decode"};
  return kNames[static_cast<size_t>(phase)];
}

// The body of a request that has been read, as it was written: the order of a schema's keys, and of
// a tool's, is the client's.
OrderedJson in_order(const Exchange& exchange) {
  auto body = parse_ordered_json(exchange.request().body, "the body");
  return body ? std::move(*body) : OrderedJson();
}

// Without a template that lists tools, a system prompt of ours does, and calls and results are
// text.
std::vector<chat::Message> described(std::vector<chat::Message> messages,
                                     const OrderedJson& tools) {
  for (chat::Message& message : messages) {
    for (const chat::MessageCall& call : std::exchange(message.tool_calls, {}))
      message.content += chat::ToolSyntax::written(call.name, call.arguments);
    if (message.role != chat::Role::kTool) continue;
    message.role = chat::Role::kUser;
    message.content = chat::ToolSyntax::written_result(message.name, message.content);
  }
  if (tools.is_null()) return messages;
  const bool has_system = !messages.empty() && (messages[0].role == chat::Role::kSystem ||
                                                messages[0].role == chat::Role::kDeveloper);
  if (!has_system) messages.insert(messages.begin(), {.role = chat::Role::kSystem});
  std::string& system = messages[0].content;
  system += (system.empty() ? "" : "\n\n") + chat::ToolSyntax::describe(tools);
  return messages;
}

}  // namespace

Api::Api(const chat::ChatModel& model, Scheduler& scheduler, ApiOptions options)
    : model_(model),
      scheduler_(scheduler),
      options_(std::move(options)),
      syntax_(chat::ToolSyntax::of_template(
          model.chat_template ? std::string_view(model.chat_template->source(true)) : "")),
      shown_(syntax_.shown_tokens(model.tokenizer)),
      created_(static_cast<int64_t>(std::time(nullptr))) {}

const std::vector<Api::Entry>& Api::routes() {
  static const std::vector<Entry> kRoutes = {
      {"GET", "/", &Api::page},
      {"GET", "/health", &Api::health},
      {"GET", "/v1/models", &Api::models},
      {"GET", "/report", &Api::report},
      {"GET", "/metrics", &Api::metrics},
      {"GET", "/slots", &Api::slots},
      {"POST", "/tokenize", &Api::tokenize},
      {"POST", "/detokenize", &Api::detokenize},
      {"POST", "/v1/embeddings", &Api::embeddings},
      {"POST", "/v1/chat/completions", &Api::chat},
      {"POST", "/v1/completions", &Api::complete},
  };
  return kRoutes;
}

// Counted by route, since paths are foreign text without end.
void Api::handle(const std::shared_ptr<Exchange>& exchange) {
  const HttpRequest& request = exchange->request();
  const Stopwatch watch;
  if (request.method == "OPTIONS") return exchange->reply(204, "text/plain", "");
  const std::string_view method =
      request.method == "HEAD" ? "GET" : std::string_view(request.method);
  const Entry* found = nullptr;
  bool known = false;
  for (const Entry& entry : routes()) {
    if (entry.path != request.path) continue;
    known = true;
    if (entry.method == method) found = &entry;
  }
  if (found == nullptr) {
    const int status = known ? 405 : 404;
    exchange->reply(status, kJson,
                    error_body(status, known ? "this path takes another method" : "no such path",
                               known ? "method_not_allowed" : "not_found"));
    return count_refused(status);
  }
  Json body;
  if (method == "POST") {
    auto parsed = parse_json(request.body, "the body");
    if (!parsed)
      reply_error(*exchange, {ErrorCode::kInvalidArgument, parsed.error().message});
    else
      body = std::move(*parsed);
  }
  if (!exchange->replied()) (this->*found->route)(exchange, body);
  if (exchange->replied()) finished(exchange, watch.seconds(), -1);
}

void Api::finished(const std::shared_ptr<Exchange>& exchange, double request_s,
                   double first_token_s) {
  // 499: the client went before there was a reply, as nginx has it.
  const int status = exchange->status() == 0 ? 499 : exchange->status();
  ++metrics_.requests[{exchange->request().path, status}];
  metrics_.request_s.add(request_s);
  if (first_token_s >= 0) metrics_.first_token_s.add(first_token_s);
}

// The page is one file: what it needs is within it.
void Api::page(const std::shared_ptr<Exchange>& exchange, const Json&) {
  exchange->reply(200, kHtml, options_.page, {{"Content-Security-Policy", options_.page_policy}});
}

void Api::health(const std::shared_ptr<Exchange>& exchange, const Json&) {
  reply_json(*exchange, {{"status", "ok"}});
}

Json Api::model_json(const std::string& name) const {
  const runtime::ModelInfo& info = model_.engine->info();
  return {{"id", name},
          {"object", "model"},
          {"created", created_},
          {"owned_by", "sluice"},
          {"sluice",
           {{"loaded", true},
            {"context", info.context},
            {"parameters", info.parameters},
            {"weight_bytes", info.weight_bytes},
            {"tools", model_.chat_template.has_value()},
            {"reasoning",
             model_.chat_template && chat::knows_thinking(model_.chat_template->source(false))},
            {"embeddings", false},
            {"report", !options_.report.empty()}}}};
}

void Api::models(const std::shared_ptr<Exchange>& exchange, const Json&) {
  Json list = Json::array({model_json(options_.name)});
  for (const std::string& alias : options_.aliases) list.push_back(model_json(alias));
  reply_json(*exchange, {{"object", "list"},
                         {"data", std::move(list)},
                         {"sluice", {{"agent", false}, {"agent_tools", Json::array()}}}});
}

void Api::report(const std::shared_ptr<Exchange>& exchange, const Json&) {
  if (options_.report.empty())
    return reply_error(*exchange, {ErrorCode::kNotFound, "this model has no fit report"});
  exchange->reply(200, kHtml, options_.report,
                  {{"Content-Security-Policy",
                    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
                    "img-src data:; frame-ancestors 'self'"}});
}

void Api::metrics(const std::shared_ptr<Exchange>& exchange, const Json&) {
  exchange->reply(200, "text/plain; version=0.0.4",
                  metrics_text(metrics_, {scheduler_.state(), options_.name, model_.engine.get(),
                                          options_.memory_limit_bytes, uptime_.seconds()}));
}

void Api::slots(const std::shared_ptr<Exchange>& exchange, const Json&) {
  Json list = Json::array();
  for (const SlotState& slot : scheduler_.state().slots)
    list.push_back({{"id", list.size()},
                    {"state", phase_name(slot.phase)},
                    {"model", options_.name},
                    {"prompt_tokens", slot.prompt_tokens},
                    {"generated_tokens", slot.generated_tokens},
                    {"context", model_.engine->info().context}});
  reply_json(*exchange, list);
}

void Api::tokenize(const std::shared_ptr<Exchange>& exchange, const Json& body) {
  const auto request = parse_tokenize_request(body);
  if (!request) return reply_error(*exchange, request.error(), body);
  const auto tokens = model_.tokenizer.encode(request->content, request->add_special);
  if (!tokens) return reply_error(*exchange, tokens.error());
  reply_json(*exchange, {{"tokens", *tokens}});
}

void Api::detokenize(const std::shared_ptr<Exchange>& exchange, const Json& body) {
  const auto tokens = parse_detokenize_request(body, model_.engine->info().vocabulary);
  if (!tokens) return reply_error(*exchange, tokens.error(), body);
  const auto text = model_.tokenizer.decode(*tokens, false);
  if (!text) return reply_error(*exchange, text.error());
  reply_json(*exchange, {{"content", *text}});
}

void Api::embeddings(const std::shared_ptr<Exchange>& exchange, const Json&) {
  reply_error(*exchange, {ErrorCode::kUnsupported,
                          "this server makes no embeddings: the engine gives logits, no states"});
}

RequestDefaults Api::defaults() const {
  RequestDefaults defaults;
  defaults.sampling = options_.sampling;
  defaults.tokens_max = options_.tokens_max;
  defaults.vocabulary = model_.engine->info().vocabulary;
  return defaults;
}

// Clients that were written for one model often name another; none at all means the one there is.
Status Api::check_model(const std::string& name) const {
  if (name.empty() || name == options_.name || std::ranges::count(options_.aliases, name) > 0)
    return {};
  return fail(ErrorCode::kNotFound, "model: {} is not served here; /v1/models lists what is",
              dump_json(name.substr(0, 200)));
}

Result<Api::Prompt> Api::chat_prompt(const ChatRequest& request) const {
  Prompt prompt;
  tokenizer::ChatInput input;
  input.variables = request.variables;
  const bool listed = syntax_.in_template();
  if (listed && !request.tools.is_null()) input.tools = dump_json(request.tools);
  const auto messages = listed ? request.messages : described(request.messages, request.tools);
  SLUICE_ASSIGN(prompt.tokens,
                chat::render_conversation(model_, messages, std::move(input), &prompt.text));
  SLUICE_TRY(constrain(request, prompt));
  return prompt;
}

Status Api::constrain(const ChatRequest& request, Prompt& prompt) const {
  using Mode = chat::ToolChoice::Mode;
  const Mode mode = request.tool_choice.mode;
  if (mode == Mode::kRequired || mode == Mode::kNamed) {
    SLUICE_ASSIGN(prompt.constraint, syntax_.constraint(model_.tokenizer, request.tools,
                                                        request.tool_choice, prompt.text));
  } else if (request.form) {
    const auto enabled = request.variables.find("enable_thinking");
    const bool thinks = enabled == request.variables.end() || enabled->second != "false";
    auto constraint = chat::constrain_answer(model_.tokenizer, *request.form, prompt.text,
                                             thinks ? syntax_.thinking() : chat::ThinkingMarks{});
    if (!constraint)
      return fail(ErrorCode::kInvalidArgument, "response_format: {}", constraint.error().message);
    prompt.constraint = std::move(*constraint);
  } else if (!request.tools.is_null()) {
    SLUICE_ASSIGN(prompt.constraint, syntax_.own_calls(model_.tokenizer, request.tools,
                                                       request.tool_choice.parallel, prompt.text));
  }
  return {};
}

Result<Api::Prompt> Api::text_prompt(const PromptText& text) const {
  Prompt prompt;
  if (const auto* tokens = std::get_if<std::vector<uint32_t>>(&text)) {
    prompt.tokens = *tokens;
    SLUICE_ASSIGN(prompt.text, model_.tokenizer.decode(*tokens, false));
  } else {
    prompt.text = std::get<std::string>(text);
    SLUICE_ASSIGN(prompt.tokens, model_.tokenizer.encode(prompt.text, true));
  }
  return prompt;
}

void Api::chat(const std::shared_ptr<Exchange>& exchange, const Json& body) {
  const auto request = parse_chat_request(in_order(*exchange), defaults());
  if (!request) return reply_error(*exchange, request.error(), body);
  if (const Status known = check_model(request->model); !known)
    return reply_error(*exchange, known.error(), body);
  auto prompt = chat_prompt(*request);
  if (!prompt) return reply_error(*exchange, prompt.error(), body);
  std::vector<Prompt> prompts;
  prompts.push_back(std::move(*prompt));
  generate(exchange, *request, prompts, {.chat = true, .syntax = syntax_, .tools = request->tools});
}

void Api::complete(const std::shared_ptr<Exchange>& exchange, const Json& body) {
  const auto request = parse_completion_request(in_order(*exchange), defaults());
  if (!request) return reply_error(*exchange, request.error(), body);
  if (const Status known = check_model(request->model); !known)
    return reply_error(*exchange, known.error(), body);
  std::vector<Prompt> prompts;
  for (const PromptText& text : request->prompts) {
    auto prompt = text_prompt(text);
    if (!prompt) return reply_error(*exchange, prompt.error(), body);
    if (request->form) {
      auto constraint = chat::constrain_answer(model_.tokenizer, *request->form, {});
      if (!constraint)
        return reply_error(
            *exchange,
            {ErrorCode::kInvalidArgument, "response_format: " + constraint.error().message}, body);
      prompt->constraint = std::move(*constraint);
    }
    prompts.push_back(std::move(*prompt));
  }
  generate(exchange, *request, prompts, {.chat = false, .echo = request->echo});
}

// A job for every choice; all of them, or an error.
void Api::generate(const std::shared_ptr<Exchange>& exchange, const GenerationRequest& request,
                   const std::vector<Prompt>& prompts, AnswerOptions options) {
  options.stream = request.stream;
  options.include_usage = request.include_usage;
  options.id = fmt::format("{}-{}-{}", options.chat ? "chatcmpl" : "cmpl", created_, next_id_++);
  options.model = request.model.empty() ? options_.name : request.model;
  options.created = static_cast<int64_t>(std::time(nullptr));
  const bool calls = options.chat && !options.tools.is_null(), chats = options.chat;
  for (const Prompt& prompt : prompts)
    options.prompts.insert(options.prompts.end(), request.choices, prompt.text);
  const Stopwatch watch;
  const auto jobs = std::make_shared<std::vector<uint64_t>>();
  const auto counted = std::make_shared<bool>(false);
  const auto answer =
      std::make_shared<Answer>(exchange, model_.tokenizer, std::move(options),
                               [this, exchange, watch, jobs, counted](double first_token_s) {
                                 for (const uint64_t job : *jobs) scheduler_.cancel(job);
                                 if (!*counted) return;  // handle() does
                                 --running_;
                                 finished(exchange, watch.seconds(), first_token_s);
                               });
  for (size_t i = 0; i < prompts.size() * request.choices; ++i) {
    Job job = request.job;
    const Prompt& prompt = prompts[i / request.choices];
    job.prompt = prompt.tokens;
    if (calls || (chats && prompt.constraint)) job.shown = shown_;
    if (prompt.constraint) {
      auto constraint = prompt.constraint->clone();
      if (!constraint) {
        reply_error(*exchange, constraint.error());
        return answer->abandon();
      }
      job.constraint = std::make_shared<tokenizer::Constraint>(std::move(*constraint));
    }
    job.client = exchange->client() + " " + job.client;
    job.sampling.seed += i;  // each choice its own draws
    const auto number =
        scheduler_.submit(std::move(job), [server = server_, answer, i](JobEvent event) {
          server->post([answer, i, event = std::move(event)]() mutable {
            answer->take(i, std::move(event));
          });
        });
    if (!number) {
      reply_error(*exchange, number.error());
      return answer->abandon();
    }
    jobs->push_back(*number);
  }
  *counted = true;
  ++running_;
  exchange->on_gone([weak = std::weak_ptr(answer)] {
    if (const auto there = weak.lock()) there->abandon();
  });
}

}  // namespace sluice::server
