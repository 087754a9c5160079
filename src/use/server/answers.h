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
// A reply that says so; the field that the message begins with is the param where body has it.
void reply_error(Exchange& exchange, const Error& error, const Json& body = {});

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

// The loop's thread.
class Answer {
 public:
  // on_end: once, when every choice has ended or the client has gone; first_token_s < 0: there was
  // none.
  using OnEnd = std::function<void(double first_token_s)>;
  Answer(std::shared_ptr<Exchange> exchange, const tokenizer::Tokenizer& tokenizer,
         AnswerOptions options, OnEnd on_end);
  ~Answer();

  void take(size_t choice, JobEvent event);
  bool ended() const { return ended_; }
  // Nobody listens any more.
  void abandon();

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
  Json token_json(uint32_t token, float logprob) const;
  Json usage_json() const;
  Json timings_json() const;
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
