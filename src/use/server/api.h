// The routes: what each path and method does. Everything runs on the HTTP server's loop, but for
// generation itself, which is the scheduler's, and for templates, tokens and schemas, which a few
// threads beside the loop make. docs/server.md describes it from outside.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "server/answers.h"
#include "server/http_server.h"
#include "server/metrics.h"
#include "server/requests.h"
#include "server/scheduler.h"
#include "server/workers.h"

namespace sluice::server {

struct ApiOptions {
  std::string name;                  // of the model, as clients ask for it
  std::vector<std::string> aliases;  // names that mean the same
  runtime::SamplerOptions sampling;  // the model's own settings
  size_t tokens_max = 0;             // of an answer; 0: the context
  uint64_t memory_limit_bytes = 0;   // for the gauges
  std::string page, page_policy;     // HTML, and its Content-Security-Policy
  std::string report;                // HTML; empty: the model has none
};

// The loop's thread.
class Api {
 public:
  // model, scheduler outlive it.
  Api(const chat::ChatModel& model, Scheduler& scheduler, ApiOptions options);

  // Where jobs' events are posted to; before the first request.
  void attach(HttpServer& server) { server_ = &server; }
  void handle(const std::shared_ptr<Exchange>& exchange);
  void count_refused(int status) { ++metrics_.requests[{"refused", status}]; }
  // Requests that are being answered.
  size_t running() const { return running_; }
  // Before the server goes: nothing is posted to it any more.
  void stop() { workers_.stop(); }

 private:
  using Route = void (Api::*)(const std::shared_ptr<Exchange>&, const Json& body);
  struct Entry {
    std::string_view method, path;
    Route route;
  };
  struct Prompt {
    std::vector<uint32_t> tokens;
    std::string text;
    std::optional<tokenizer::Constraint> constraint;
  };
  // What is done on the loop next.
  using Next = std::function<void(const std::shared_ptr<Exchange>& exchange)>;
  struct Beside;
  static const std::vector<Entry>& routes();

  // Work runs beside the loop, and may not hold the exchange; what it returns then runs on the loop
  // unless the client has gone. An error is the reply; body: for the name of a field in it.
  void beside(const std::shared_ptr<Exchange>& exchange, const Json& body,
              std::function<Result<Next>()> work);
  void go_on(Beside& made);

  void page(const std::shared_ptr<Exchange>& exchange, const Json&);
  void health(const std::shared_ptr<Exchange>& exchange, const Json&);
  void models(const std::shared_ptr<Exchange>& exchange, const Json&);
  void report(const std::shared_ptr<Exchange>& exchange, const Json&);
  void metrics(const std::shared_ptr<Exchange>& exchange, const Json&);
  void slots(const std::shared_ptr<Exchange>& exchange, const Json&);
  void tokenize(const std::shared_ptr<Exchange>& exchange, const Json& body);
  void detokenize(const std::shared_ptr<Exchange>& exchange, const Json& body);
  void embeddings(const std::shared_ptr<Exchange>& exchange, const Json&);
  void chat(const std::shared_ptr<Exchange>& exchange, const Json& body);
  void complete(const std::shared_ptr<Exchange>& exchange, const Json& body);

  Status check_model(const std::string& name) const;
  Json model_json(const std::string& name) const;
  RequestDefaults defaults() const;
  Result<Prompt> chat_prompt(const ChatRequest& request) const;
  Result<Prompt> text_prompt(const PromptText& text) const;
  Status constrain(const ChatRequest& request, Prompt& prompt) const;
  Status constrain_to(const chat::AnswerForm& form, std::string_view before, Prompt& prompt) const;
  void generate(const std::shared_ptr<Exchange>& exchange, const GenerationRequest& request,
                const std::vector<Prompt>& prompts, AnswerOptions answer);
  void finished(const std::shared_ptr<Exchange>& exchange, double request_s, double first_token_s);

  const chat::ChatModel& model_;
  Scheduler& scheduler_;
  const ApiOptions options_;
  // How the model calls tools, and the marks of that.
  chat::ToolSyntax syntax_;
  std::vector<uint32_t> shown_;
  HttpServer* server_ = nullptr;
  Metrics metrics_;
  Stopwatch uptime_;
  int64_t created_ = 0;
  uint64_t next_id_ = 1;
  size_t running_ = 0;
  Workers workers_;  // last: their work uses all of the above
};

}  // namespace sluice::server
