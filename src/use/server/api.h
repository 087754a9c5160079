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
#include "server/agent_api.h"
#include "server/answers.h"
#include "server/embeddings.h"
#include "server/http_server.h"
#include "server/metrics.h"
#include "server/model_registry.h"
#include "server/prompts.h"
#include "server/requests.h"
#include "server/response_answer.h"
#include "server/response_store.h"
#include "server/responses.h"
#include "server/session_store.h"
#include "server/workers.h"

namespace sluice::server {

// Responses that later ones may continue.
inline constexpr size_t kResponsesMax = 1000;
inline constexpr uint64_t kResponseBytesMax = 64 << 20;

struct ApiOptions {
  size_t tokens_max = 0;            // of an answer; 0: the context
  uint64_t memory_limit_bytes = 0;  // for the gauges
  SessionStoreOptions sessions = {};
  std::string page, page_policy;  // HTML, and its Content-Security-Policy
  AgentOffer agent;
};

// The loop's thread.
class Api {
 public:
  // models outlives it.
  Api(ModelRegistry& models, ApiOptions options);

  // Where jobs' events are posted to; before the first request.
  void attach(HttpServer& server);
  void handle(const std::shared_ptr<Exchange>& exchange);
  void count_refused(int status) { ++metrics_.requests[{"refused", status}]; }
  // Requests that are being answered.
  size_t running() const { return running_; }
  // Ends agents' runs, which use the scheduler, and what is made beside the loop. Before that
  // stops, and the server goes: nothing is posted to it any more.
  void stop() {
    agent_.stop();
    workers_.stop();
  }

 private:
  using Route = void (Api::*)(const std::shared_ptr<Exchange>&, const Json& body);
  using ModelRoute = void (Api::*)(const std::shared_ptr<Exchange>&, const Json& body,
                                   const ModelLease& model);
  struct Entry {
    std::string_view method, path;
    Route route = nullptr;
    ModelRoute model_route = nullptr;  // in its place: of the model that the body names

    // A path that ends with a slash is that of all names behind it.
    bool matches(std::string_view asked) const;
  };
  // A request that jobs are being submitted for.
  struct Pending {
    std::shared_ptr<Exchange> exchange;
    ModelLease model;
    std::shared_ptr<std::vector<uint64_t>> jobs = std::make_shared<std::vector<uint64_t>>();
    std::shared_ptr<bool> counted = std::make_shared<bool>(false);  // as running
    Reply::OnEnd on_end = {};
  };
  using MakeReply = std::function<std::shared_ptr<Reply>(Reply::OnEnd on_end)>;
  // What is done on the loop next.
  using Next = std::function<void(const std::shared_ptr<Exchange>& exchange)>;
  struct Beside;
  static const std::vector<Entry>& routes();
  // The body of a request that has been read, as it was written: the order of a schema's keys, and
  // of a tool's, is the client's.
  static OrderedJson in_order(const Exchange& exchange);

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
  void tokenize(const std::shared_ptr<Exchange>& exchange, const Json& body,
                const ModelLease& model);
  void detokenize(const std::shared_ptr<Exchange>& exchange, const Json& body,
                  const ModelLease& model);
  void chat(const std::shared_ptr<Exchange>& exchange, const Json& body, const ModelLease& model);
  void complete(const std::shared_ptr<Exchange>& exchange, const Json& body,
                const ModelLease& model);
  void run_agent(const std::shared_ptr<Exchange>& exchange, const Json& body,
                 const ModelLease& model);
  void approve(const std::shared_ptr<Exchange>& exchange, const Json& body);

  void respond(const std::shared_ptr<Exchange>& exchange, const Json& body,
               const ModelLease& model);
  void stored_response(const std::shared_ptr<Exchange>& exchange, const Json&);
  void embed(const std::shared_ptr<Exchange>& exchange, const Json& body, const ModelLease& model);
  void begin_embedding(const std::shared_ptr<Exchange>& exchange, const ModelLease& model,
                       EmbeddingAnswer::Options options, std::vector<std::vector<uint32_t>> inputs,
                       const std::string& client);
  void kept_sessions(const std::shared_ptr<Exchange>& exchange, const Json&);
  void save_session(const std::shared_ptr<Exchange>& exchange, const Json& body,
                    const ModelLease& model);
  void restore_session(const std::shared_ptr<Exchange>& exchange, const Json& body,
                       const ModelLease& model);
  void delete_session(const std::shared_ptr<Exchange>& exchange, const Json&);
  void delete_response(const std::shared_ptr<Exchange>& exchange, const Json&);

  void with_model(const std::shared_ptr<Exchange>& exchange, const Json& body, ModelRoute route,
                  const Stopwatch& watch);
  Json model_json(size_t index, const std::string& name) const;
  RequestDefaults defaults(const ServedModel& model) const;
  // work: with the session, on the scheduler's thread.
  void with_session(const std::shared_ptr<Exchange>& exchange, const ModelLease& model,
                    const SessionRequest& request, SlotWish wish,
                    std::function<Status(runtime::Session& session)> work);
  Json session_json(const KeptSession& kept) const;
  Pending pending(const std::shared_ptr<Exchange>& exchange, const ModelLease& model);
  Status submit(const Pending& pending, const std::shared_ptr<Reply>& reply, size_t index, Job job);
  // All jobs are submitted: from now on the request counts as running.
  void go_on(const Pending& pending, const std::shared_ptr<Reply>& reply);
  void begin_response(const std::shared_ptr<Exchange>& exchange, const ModelLease& model,
                      const ResponsesRequest& request, const std::vector<Prompt>& prompts);
  std::string asked_name(const GenerationRequest& request) const;
  AnswerOptions answer_options(const GenerationRequest& request,
                               const std::vector<Prompt>& prompts);
  // marks: those of calls and thinking stay in the text.
  void generate(const std::shared_ptr<Exchange>& exchange, const GenerationRequest& request,
                const std::vector<Prompt>& prompts, bool marks, const ModelLease& model,
                const MakeReply& make_reply);
  void finished(const std::shared_ptr<Exchange>& exchange, double request_s, double first_token_s);

  ModelRegistry& models_;
  const ApiOptions options_;
  AgentApi agent_;
  HttpServer* server_ = nullptr;
  SessionStore sessions_;
  ResponseStore responses_{kResponsesMax, kResponseBytesMax};
  Metrics metrics_;
  Stopwatch uptime_;
  int64_t created_ = 0;
  uint64_t next_id_ = 1;
  size_t running_ = 0;
  Workers workers_;  // last: their work uses all of the above
};

}  // namespace sluice::server
