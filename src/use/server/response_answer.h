// Replies of OpenAI's Responses API from what a job tells: a response with its items of thoughts,
// words and calls, whole or as a stream of events.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "chat/conversation.h"
#include "server/answers.h"

namespace sluice::server {

// Thirty-two random hexadecimal digits behind a prefix: not to be guessed by other clients.
std::string random_id(std::string_view prefix);

struct ResponseOptions {
  bool stream = false;
  std::string id = {}, model = {};
  int64_t created = 0;  // seconds since 1970
  Json echo = {};       // fields that repeat the request
  std::string prompt = {};
  chat::ToolSyntax syntax{chat::ToolFamily::kGeneric};
  OrderedJson tools = {};  // that the model was told of; null: none
};

class ResponseAnswer : public Reply {
 public:
  // Called with what was said, when it was said to its end.
  using OnComplete = std::function<void(const Json& response, chat::Message said)>;
  ResponseAnswer(std::shared_ptr<Exchange> exchange, const tokenizer::Tokenizer& tokenizer,
                 ResponseOptions options, OnComplete on_complete, OnEnd on_end);

  void take(size_t choice, JobEvent event) override;
  void abandon() override;

 private:
  enum class Kind : uint8_t { kNone, kReasoning, kMessage, kCall };

  void begin();
  void take_part(const chat::AnswerPart& part);
  void take_text(Kind kind, const std::string& text);
  void open(Kind kind, Json item);
  void close(std::string_view status);
  void close_text();
  std::string spoken(std::string text);
  Json response(std::string_view status) const;
  Json usage() const;
  Json place() const;
  void emit(std::string_view type, Json event);
  void finish(const JobResult& result);
  void fail_with(const Error& error);
  void end();

  const std::shared_ptr<Exchange> exchange_;
  const tokenizer::Tokenizer& tokenizer_;
  const ResponseOptions options_;
  const OnComplete on_complete_;
  const OnEnd on_end_;
  chat::ToolCallParser parser_;
  Json output_ = Json::array();  // finished items
  Kind kind_ = Kind::kNone;      // of item_
  Json item_;                    // what is being said
  std::string text_;             // of item_: content or arguments
  std::string blank_;            // white space that may turn out to be between two items
  std::vector<ChosenToken> chosen_, item_chosen_;  // not sent yet; of the item
  chat::Message said_{.role = chat::Role::kAssistant};
  JobResult result_;
  Stopwatch watch_;
  double first_token_s_ = -1;
  uint64_t sequence_ = 0;
  bool begun_ = false, ended_ = false;
};

}  // namespace sluice::server
