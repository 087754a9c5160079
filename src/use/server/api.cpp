#include "server/api.h"

#include <algorithm>
#include <atomic>
#include <ctime>
#include <optional>

#include "server/text.h"

namespace sluice::server {
namespace {

constexpr std::string_view kJson = "application/json";
constexpr std::string_view kHtml = "text/html; charset=utf-8";
// Beside the loop: one huge prompt leaves a thread to the others. Two, since each may take a
// multiple of its text in memory.
constexpr size_t kWorkers = 2;
constexpr size_t kWaitingMax = 256;
constexpr uint64_t kWaitingBytesMax = 32 << 20;

std::string_view phase_name(SlotState::Phase phase) {
  constexpr std::string_view kNames[] = {"idle", "prefill", "decode"};
  return kNames[static_cast<size_t>(phase)];
}

}  // namespace

Api::Api(ModelRegistry& models, ApiOptions options)
    : models_(models),
      options_(std::move(options)),
      agent_(options_.agent),
      sessions_(options_.sessions),
      created_(static_cast<int64_t>(std::time(nullptr))),
      workers_(kWorkers, kWaitingMax, kWaitingBytesMax) {}

void Api::attach(HttpServer& server) {
  server_ = &server;
  models_.attach([&server](std::function<void()> function) { server.post(std::move(function)); });
}

const std::vector<Api::Entry>& Api::routes() {
  static const std::vector<Entry> kRoutes = {
      {"GET", "/", &Api::page},
      {"GET", "/health", &Api::health},
      {"GET", "/v1/models", &Api::models},
      {"GET", "/report", &Api::report},
      {"GET", "/metrics", &Api::metrics},
      {"GET", "/slots", &Api::slots},
      {"POST", "/tokenize", nullptr, &Api::tokenize},
      {"POST", "/detokenize", nullptr, &Api::detokenize},
      {"POST", "/v1/chat/completions", nullptr, &Api::chat},
      {"POST", "/v1/completions", nullptr, &Api::complete},
      {"POST", "/v1/agent/runs", nullptr, &Api::run_agent},
      {"POST", "/v1/agent/approvals", &Api::approve},
      {"POST", "/v1/embeddings", nullptr, &Api::embed},
      {"POST", "/v1/responses", nullptr, &Api::respond},
      {"GET", "/v1/responses/", &Api::stored_response},
      {"DELETE", "/v1/responses/", &Api::delete_response},
      {"GET", "/v1/sessions", &Api::kept_sessions},
      {"POST", "/v1/sessions", nullptr, &Api::save_session},
      {"POST", "/v1/sessions/restore", nullptr, &Api::restore_session},
      {"DELETE", "/v1/sessions/", &Api::delete_session},
  };
  return kRoutes;
}

bool Api::Entry::matches(std::string_view asked) const {
  return path == asked || (path.size() > 1 && path.ends_with('/') && asked.starts_with(path));
}

void Api::handle(const std::shared_ptr<Exchange>& exchange) {
  const HttpRequest& request = exchange->request();
  const Stopwatch watch;
  if (request.method == "OPTIONS") return exchange->reply(204, "text/plain", "");
  const std::string_view method =
      request.method == "HEAD" ? "GET" : std::string_view(request.method);
  const Entry* found = nullptr;
  bool known = false;
  for (const Entry& entry : routes()) {
    if (!entry.matches(request.path)) continue;
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
  if (!exchange->replied()) {
    if (found->model_route != nullptr)
      with_model(exchange, body, found->model_route, watch);
    else
      (this->*found->route)(exchange, body);
  }
  if (exchange->replied()) finished(exchange, watch.seconds(), -1);
}

// Now where the model is in memory, else when it is. Clients that were written for one model may
// name none, which is the first.
void Api::with_model(const std::shared_ptr<Exchange>& exchange, const Json& body, ModelRoute route,
                     const Stopwatch& watch) {
  const auto name = requested_model(body);
  if (!name) return reply_error(*exchange, name.error(), body);
  const auto index = models_.find(*name);
  if (!index)
    return reply_error(
        *exchange,
        {ErrorCode::kNotFound, fmt::format("model: {} is not served here; /v1/models lists what is",
                                           dump_json(name->substr(0, 200)))},
        body);
  if (const ModelLease model = models_.lease(*index)) return (this->*route)(exchange, body, model);
  const auto ticket =
      models_.await(*index, [this, exchange, body, route, watch](const Result<ModelLease>& model) {
        exchange->on_gone(nullptr);
        if (model)
          (this->*route)(exchange, body, *model);
        else
          reply_error(*exchange, model.error());
        if (exchange->replied()) finished(exchange, watch.seconds(), -1);
      });
  if (!ticket) return reply_error(*exchange, ticket.error());
  exchange->on_gone([this, ticket = *ticket, watch, weak = std::weak_ptr(exchange)] {
    models_.forget(ticket);
    if (const auto gone = weak.lock()) finished(gone, watch.seconds(), -1);
  });
}

void Api::finished(const std::shared_ptr<Exchange>& exchange, double request_s,
                   double first_token_s) {
  // 499: the client went before there was a reply, as nginx has it.
  const int status = exchange->status() == 0 ? 499 : exchange->status();
  // By route, since paths are foreign text without end.
  const auto entry = std::ranges::find_if(
      routes(), [&](const Entry& one) { return one.matches(exchange->request().path); });
  ++metrics_.requests[{std::string(entry->path), status}];
  metrics_.request_s.add(request_s);
  if (first_token_s >= 0) metrics_.first_token_s.add(first_token_s);
}

OrderedJson Api::in_order(const Exchange& exchange) {
  auto body = parse_ordered_json(exchange.request().body, "the body");
  return body ? std::move(*body) : OrderedJson();
}

// A request whose prompt is being made. The exchange is let go of on the loop alone.
struct Api::Beside {
  std::shared_ptr<Exchange> exchange;
  std::function<Result<Next>()> work;
  Json fields = Json::object();  // of the body, without their values
  Stopwatch watch = {};
  std::atomic<bool> gone = false;
  std::optional<Result<Next>> next = std::nullopt;
};

void Api::beside(const std::shared_ptr<Exchange>& exchange, const Json& body,
                 std::function<Result<Next>()> work) {
  const auto task = std::make_shared<Beside>(exchange, std::move(work));
  for (const auto& [name, value] : body.items()) task->fields[name] = nullptr;
  exchange->on_gone([weak = std::weak_ptr(task)] {
    if (const auto there = weak.lock()) there->gone = true;
  });
  const bool taken = workers_.post(exchange->request().body.size(), [this, held = task]() mutable {
    std::shared_ptr<Beside> made = std::move(held);
    if (!made->gone) made->next = made->work();
    server_->post([this, made = std::move(made)] { go_on(*made); });
  });
  if (taken)
    ++running_;
  else
    reply_error(*exchange, {ErrorCode::kExhausted,
                            "too many requests are being prepared already; try again later"});
}

void Api::go_on(Beside& made) {
  --running_;
  if (!made.gone && !*made.next)
    reply_error(*made.exchange, made.next->error(), made.fields);
  else if (!made.gone)
    (**made.next)(made.exchange);
  if (made.exchange->replied()) finished(made.exchange, made.watch.seconds(), -1);
}

// The page is one file: what it needs is within it.
void Api::page(const std::shared_ptr<Exchange>& exchange, const Json&) {
  exchange->reply(200, kHtml, options_.page, {{"Content-Security-Policy", options_.page_policy}});
}

void Api::health(const std::shared_ptr<Exchange>& exchange, const Json&) {
  reply_json(*exchange, {{"status", "ok"}});
}

Json Api::model_json(size_t index, const std::string& name) const {
  const ModelCard& card = models_.card(index);
  return {{"id", name},
          {"object", "model"},
          {"created", created_},
          {"owned_by", "sluice"},
          {"sluice",
           {{"loaded", models_.loaded(index) != nullptr},
            {"context", card.context},
            {"parameters", card.parameters},
            {"weight_bytes", card.weight_bytes},
            {"tools", card.tools},
            {"reasoning", card.reasoning},
            {"embeddings", true},
            {"report", !card.report.empty()}}}};
}

void Api::models(const std::shared_ptr<Exchange>& exchange, const Json&) {
  Json list = Json::array();
  for (size_t i = 0; i < models_.size(); ++i) {
    list.push_back(model_json(i, models_.card(i).name));
    for (const std::string& alias : models_.card(i).aliases) list.push_back(model_json(i, alias));
  }
  reply_json(*exchange,
             {{"object", "list"},
              {"data", std::move(list)},
              {"sluice", {{"agent", agent_.offered()}, {"agent_tools", agent_.tools()}}}});
}

void Api::report(const std::shared_ptr<Exchange>& exchange, const Json&) {
  const auto index = models_.find(query_value(exchange->request().query, "model"));
  if (!index || models_.card(*index).report.empty())
    return reply_error(*exchange, {ErrorCode::kNotFound, "this model has no fit report"});
  exchange->reply(200, kHtml, models_.card(*index).report,
                  {{"Content-Security-Policy",
                    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
                    "img-src data:; frame-ancestors 'self'"}});
}

void Api::metrics(const std::shared_ptr<Exchange>& exchange, const Json&) {
  exchange->reply(
      200, "text/plain; version=0.0.4",
      metrics_text(metrics_, {&models_, options_.memory_limit_bytes, uptime_.seconds()}));
}

void Api::slots(const std::shared_ptr<Exchange>& exchange, const Json&) {
  Json list = Json::array();
  for (size_t i = 0; i < models_.size(); ++i) {
    const ServedModel* model = models_.loaded(i);
    if (model == nullptr) continue;
    for (const SlotState& slot : model->scheduler.state().slots)
      list.push_back({{"id", list.size()},
                      {"state", phase_name(slot.phase)},
                      {"model", models_.card(i).name},
                      {"prompt_tokens", slot.prompt_tokens},
                      {"generated_tokens", slot.generated_tokens},
                      {"context", models_.card(i).context}});
  }
  reply_json(*exchange, list);
}

void Api::tokenize(const std::shared_ptr<Exchange>& exchange, const Json& body,
                   const ModelLease& model) {
  const auto request = parse_tokenize_request(body);
  if (!request) return reply_error(*exchange, request.error(), body);
  beside(exchange, body, [model, request = *request]() -> Result<Next> {
    SLUICE_ASSIGN(auto tokens, model->chat.tokenizer.encode(request.content, request.add_special));
    return [tokens = std::move(tokens)](const auto& to) { reply_json(*to, {{"tokens", tokens}}); };
  });
}

void Api::detokenize(const std::shared_ptr<Exchange>& exchange, const Json& body,
                     const ModelLease& model) {
  const auto tokens = parse_detokenize_request(body, model->chat.engine->info().vocabulary);
  if (!tokens) return reply_error(*exchange, tokens.error(), body);
  beside(exchange, body, [model, tokens = *tokens]() -> Result<Next> {
    SLUICE_ASSIGN(auto text, model->chat.tokenizer.decode(tokens, false));
    return [text = std::move(text)](const auto& to) { reply_json(*to, {{"content", text}}); };
  });
}

RequestDefaults Api::defaults(const ServedModel& model) const {
  RequestDefaults defaults;
  defaults.sampling = model.sampling;
  defaults.tokens_max = options_.tokens_max;
  defaults.vocabulary = model.chat.engine->info().vocabulary;
  return defaults;
}

void Api::chat(const std::shared_ptr<Exchange>& exchange, const Json& body,
               const ModelLease& model) {
  auto parsed = parse_chat_request(in_order(*exchange), defaults(*model));
  if (!parsed) return reply_error(*exchange, parsed.error(), body);
  const auto request = std::make_shared<const ChatRequest>(std::move(*parsed));
  beside(exchange, body, [this, request, model]() -> Result<Next> {
    const auto prompts = std::make_shared<std::vector<Prompt>>(1);
    SLUICE_ASSIGN(prompts->front(), chat_prompt(*model, *request));
    return [this, request, model, prompts](const auto& to) {
      AnswerOptions options = answer_options(*request, *prompts);
      options.syntax = model->syntax;
      options.tools = request->tools;
      const bool marks = !request->tools.is_null() || prompts->front().constraint.has_value();
      generate(to, *request, *prompts, marks, model, [&](auto on_end) {
        return std::make_shared<Answer>(to, model->chat.tokenizer, std::move(options),
                                        std::move(on_end));
      });
    };
  });
}

void Api::complete(const std::shared_ptr<Exchange>& exchange, const Json& body,
                   const ModelLease& model) {
  auto parsed = parse_completion_request(in_order(*exchange), defaults(*model));
  if (!parsed) return reply_error(*exchange, parsed.error(), body);
  const auto request = std::make_shared<const CompletionRequest>(std::move(*parsed));
  beside(exchange, body, [this, request, model]() -> Result<Next> {
    const auto prompts = std::make_shared<std::vector<Prompt>>();
    for (const PromptText& text : request->prompts) {
      prompts->emplace_back();
      SLUICE_ASSIGN(prompts->back(), text_prompt(*model, text, request->form));
    }
    return [this, request, model, prompts](const auto& to) {
      AnswerOptions options = answer_options(*request, *prompts);
      options.chat = false;
      options.echo = request->echo;
      options.id = "cmpl" + options.id.substr(options.id.find('-'));
      generate(to, *request, *prompts, false, model, [&](auto on_end) {
        return std::make_shared<Answer>(to, model->chat.tokenizer, std::move(options),
                                        std::move(on_end));
      });
    };
  });
}

std::string Api::asked_name(const GenerationRequest& request) const {
  return request.model.empty() ? models_.card(0).name : request.model;
}

AnswerOptions Api::answer_options(const GenerationRequest& request,
                                  const std::vector<Prompt>& prompts) {
  AnswerOptions options;
  options.stream = request.stream;
  options.include_usage = request.include_usage;
  options.id = fmt::format("chatcmpl-{}-{}", created_, next_id_++);
  options.model = asked_name(request);
  options.created = static_cast<int64_t>(std::time(nullptr));
  for (const Prompt& prompt : prompts)
    options.prompts.insert(options.prompts.end(), request.choices, prompt.text);
  return options;
}

void Api::run_agent(const std::shared_ptr<Exchange>& exchange, const Json& body,
                    const ModelLease& model) {
  if (!agent_.offered())
    return reply_error(
        *exchange,
        {ErrorCode::kNotFound, "this server offers no agent; sluice serve --agent-folder does"});
  auto request = parse_agent_request(in_order(*exchange), defaults(*model), agent_.tools());
  if (!request) return reply_error(*exchange, request.error(), body);
  const Stopwatch watch;
  const auto counted = std::make_shared<bool>(false);
  agent_.begin(*server_, exchange, std::move(*request), model, [this, exchange, watch, counted] {
    if (!std::exchange(*counted, false)) return;
    --running_;
    finished(exchange, watch.seconds(), -1);
  });
  if (exchange->replied()) return;  // refused; handle() counts it
  *counted = true;
  ++running_;
}

void Api::approve(const std::shared_ptr<Exchange>& exchange, const Json& body) {
  if (!body.is_object())
    return reply_error(*exchange, {ErrorCode::kInvalidArgument, "the body should be an object"});
  agent_.approve(exchange, body);
}

Api::Pending Api::pending(const std::shared_ptr<Exchange>& exchange, const ModelLease& model) {
  Pending pending{.exchange = exchange, .model = model};
  pending.on_end = [this, exchange, model, watch = Stopwatch(), jobs = pending.jobs,
                    counted = pending.counted](double first_token_s) {
    for (const uint64_t job : *jobs) model->scheduler.cancel(job);
    if (!*counted) return;  // handle() does
    --running_;
    finished(exchange, watch.seconds(), first_token_s);
  };
  return pending;
}

Status Api::submit(const Pending& pending, const std::shared_ptr<Reply>& reply, size_t index,
                   Job job) {
  job.client = pending.exchange->client() + " " + job.client;
  SLUICE_ASSIGN(const uint64_t number,
                pending.model->scheduler.submit(
                    std::move(job), [server = server_, reply, index](JobEvent event) {
                      server->post([reply, index, event = std::move(event)]() mutable {
                        reply->take(index, std::move(event));
                      });
                    }));
  pending.jobs->push_back(number);
  return {};
}

void Api::go_on(const Pending& pending, const std::shared_ptr<Reply>& reply) {
  *pending.counted = true;
  ++running_;
  pending.exchange->on_gone([weak = std::weak_ptr(reply)] {
    if (const auto there = weak.lock()) there->abandon();
  });
}

// A job for every choice; all of them, or an error.
void Api::generate(const std::shared_ptr<Exchange>& exchange, const GenerationRequest& request,
                   const std::vector<Prompt>& prompts, bool marks, const ModelLease& model,
                   const MakeReply& make_reply) {
  const Pending pending = this->pending(exchange, model);
  const std::shared_ptr<Reply> reply = make_reply(pending.on_end);
  const auto submit_choice = [&](size_t index) -> Status {
    Job job = request.job;
    const Prompt& prompt = prompts[index / request.choices];
    job.prompt = prompt.tokens;
    if (marks) job.shown = model->shown;
    if (prompt.constraint) {
      SLUICE_ASSIGN(auto constraint, prompt.constraint->clone());
      job.constraint = std::make_shared<tokenizer::Constraint>(std::move(constraint));
    }
    job.sampling.seed += index;  // each choice its own draws
    return submit(pending, reply, index, std::move(job));
  };
  for (size_t i = 0; i < prompts.size() * request.choices; ++i)
    if (const Status begun = submit_choice(i); !begun) {
      reply_error(*exchange, begun.error());
      return reply->abandon();
    }
  go_on(pending, reply);
}

}  // namespace sluice::server
