// Replies of OpenAI's API from what jobs tell: whole, or as a stream of events. One Answer serves
// one request, whatever number of choices it has.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/json.h"
#include "chat/tool_calls.h"
#include "server/http_server.h"
#include "server/scheduler.h"

namespace sluice::server {

// {"error": {"message", "type", "param", "code"}}; param: null when empty.
std::string error_body(int status, std::string_view message, std::string_view code,
                       std::string_view param = {});
int status_of(ErrorCode code);
void reply_json(Exchange& exchange, const Json& json);
// What a request's path names behind that of its route.
std::string name_behind(const Exchange& exchange, std::string_view route);
// A reply that says so; the field that the message begins with is the param where body has it.
void reply_error(Exchange& exchange, const Error& error, const Json& body = {});

// Where the events of one request's jobs go. The loop's thread.
class Reply {
 public:
  // Called once, when every choice has ended or the client has gone; first_token_s < 0: there was
  // no token.
  using OnEnd = std::function<void(double first_token_s)>;
  virtual ~Reply() = default;

  virtual void take(size_t choice, JobEvent event) = 0;
  // Nobody listens any more.
  virtual void abandon() = 0;
};

// [{"token", "logprob", "bytes", "top_logprobs"}]
Json logprobs_list(const tokenizer::Tokenizer& tokenizer, const std::vector<ChosenToken>& chosen);
// results: of every choice, at least one.
Json timings_json(std::span<const JobResult> results);

struct AnswerOptions {
  bool chat = true;
  bool stream = false, include_usage = false;
  std::string id = {}, model = {};        // "chatcmpl-…"
  int64_t created = 0;                    // seconds since 1970
  std::vector<std::string> prompts = {};  // by choice: what the model continues
  bool echo = false;                      // the prompt goes before the text
  chat::ToolSyntax syntax{chat::ToolFamily::kGeneric};
  OrderedJson tools = {};  // that the model was told of; null: none
};

class Answer : public Reply {
 public:
  Answer(std::shared_ptr<Exchange> exchange, const tokenizer::Tokenizer& tokenizer,
         AnswerOptions options, OnEnd on_end);
  ~Answer() override;

  void take(size_t choice, JobEvent event) override;
  void abandon() override;

 private:
  struct Choice;

  std::vector<chat::AnswerPart> parts_of(size_t index, const JobEvent& event);
  void stream_parts(size_t index, const std::vector<chat::AnswerPart>& parts, Json logprobs);
  void keep_parts(size_t index, const std::vector<chat::AnswerPart>& parts);
  std::string_view finish_reason(size_t index) const;
  void send(const Json& event);
  void send_choice(size_t index, Json delta, Json logprobs, Json finish_reason);
  Json envelope(std::string_view object) const;
  Json logprobs_json(const std::vector<ChosenToken>& chosen) const;
  Json usage_json() const;
  std::vector<JobResult> results() const;
  Json choice_json(size_t index) const;
  void finish();
  void fail_all(const Error& error);
  void end();

  const std::shared_ptr<Exchange> exchange_;
  const tokenizer::Tokenizer& tokenizer_;
  const AnswerOptions options_;
  const OnEnd on_end_;
  std::vector<Choice> choices_;
  Stopwatch watch_;
  double first_token_s_ = -1;
  bool begun_ = false, ended_ = false;
};

}  // namespace sluice::server
