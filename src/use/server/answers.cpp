#include "server/answers.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace sluice::server {
namespace {

std::string_view error_type(int status) {
  switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 429: return "rate_limit_error";
    case 501: return "not_implemented_error";
    default: return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

// A change of a stream's message. A part that changes nothing has none.
Json delta_of(const chat::AnswerPart& part) {
  using Kind = chat::AnswerPart::Kind;
  switch (part.kind) {
    case Kind::kContent: return {{"content", part.text}};
    case Kind::kReasoning: return {{"reasoning_content", part.text}};
    case Kind::kCall:
      return {
          {"tool_calls", Json::array({{{"index", part.index},
                                       {"id", part.id},
                                       {"type", "function"},
                                       {"function", {{"name", part.name}, {"arguments", ""}}}}})}};
    case Kind::kArguments:
      return {{"tool_calls",
               Json::array({{{"index", part.index}, {"function", {{"arguments", part.text}}}}})}};
    case Kind::kCallEnd:
    case Kind::kCallLost: break;
  }
  return {};
}

Json token_json(const tokenizer::Tokenizer& tokenizer, uint32_t token, float logprob) {
  const uint32_t ids[] = {token};
  const std::string text = tokenizer.decode(ids, false).value_or("");
  Json bytes = Json::array();
  for (const char c : text) bytes.push_back(static_cast<unsigned char>(c));
  // JSON has no infinity.
  return {{"token", text}, {"logprob", std::max(logprob, -9999.0f)}, {"bytes", std::move(bytes)}};
}

std::string event_text(const Json& event) { return "data: " + dump_json(event) + "\n\n"; }

}  // namespace

std::string error_body(int status, std::string_view message, std::string_view code,
                       std::string_view param) {
  return dump_json({{"error",
                     {{"message", message},
                      {"type", error_type(status)},
                      {"param", param.empty() ? Json() : Json(param)},
                      {"code", code.empty() ? Json() : Json(code)}}}});
}

void reply_json(Exchange& exchange, const Json& json) {
  exchange.reply(200, "application/json", dump_json(json));
}

std::string name_behind(const Exchange& exchange, std::string_view route) {
  return exchange.request().path.substr(route.size());
}

int status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return 400;
    case ErrorCode::kUnsupported: return 501;
    case ErrorCode::kNotFound: return 404;
    case ErrorCode::kExhausted: return 429;
    case ErrorCode::kCancelled: return 503;
    case ErrorCode::kCorrupt:
    case ErrorCode::kIo: return 500;
  }
  return 500;
}

void reply_error(Exchange& exchange, const Error& error, const Json& body) {
  const std::string word = error.message.substr(0, error.message.find_first_of(" :[."));
  const bool named = body.is_object() && body.contains(word);
  const int status = status_of(error.code);
  Headers headers;
  if (status == 429) headers.emplace_back("Retry-After", "1");
  exchange.reply(
      status, "application/json",
      error_body(status, error.message, error_code_name(error.code), named ? word : std::string()),
      headers);
}

Json logprobs_list(const tokenizer::Tokenizer& tokenizer, const std::vector<ChosenToken>& chosen) {
  Json list = Json::array();
  for (const ChosenToken& token : chosen) {
    Json entry = token_json(tokenizer, token.id, token.logprob);
    Json top = Json::array();
    for (const runtime::TokenLogprob& other : token.likeliest)
      top.push_back(token_json(tokenizer, other.token, other.logprob));
    entry["top_logprobs"] = std::move(top);
    list.push_back(std::move(entry));
  }
  return list;
}

Json timings_json(std::span<const JobResult> results) {
  double prompt_s = 0, generated_s = 0;
  size_t generated = 0;
  for (const JobResult& result : results) {
    prompt_s = std::max(prompt_s, result.prefill_s);
    generated_s = std::max(generated_s, result.decode_s);
    generated += result.tokens;
  }
  return {{"prompt_ms", 1000 * prompt_s},
          {"prompt_tokens", results.front().prompt_tokens},
          {"reused_tokens", results.front().reused_tokens},
          {"generated_ms", 1000 * generated_s},
          {"generated_tokens", generated}};
}

struct Answer::Choice {
  Choice(const AnswerOptions& options, std::string_view prompt)
      : parser(options.syntax, prompt, options.tools) {}

  chat::ToolCallParser parser;
  std::string content, reasoning;
  Json calls = Json::array();
  std::map<size_t, std::pair<std::string, std::string>> begun;  // ids and names by index
  std::vector<ChosenToken> chosen;
  JobResult result;
  bool ended = false;
};

Answer::Answer(std::shared_ptr<Exchange> exchange, const tokenizer::Tokenizer& tokenizer,
               AnswerOptions options, OnEnd on_end)
    : exchange_(std::move(exchange)),
      tokenizer_(tokenizer),
      options_(std::move(options)),
      on_end_(std::move(on_end)) {
  for (const std::string& prompt : options_.prompts) {
    // Thinking and calls are told apart in chats alone; a text is what the model wrote.
    choices_.emplace_back(options_, prompt);
    if (options_.echo) choices_.back().content = prompt;
  }
}

Answer::~Answer() = default;

void Answer::take(size_t index, JobEvent event) {
  if (ended_) return;
  Choice& choice = choices_[index];
  if (first_token_s_ < 0 && (!event.text.empty() || !event.chosen.empty()))
    first_token_s_ = watch_.seconds();
  if (event.end && !*event.end) return fail_all(event.end->error());
  if (event.end && (*event.end)->finish == chat::Finish::kCancelled)
    return fail_all({ErrorCode::kCancelled, "the server is stopping"});
  const std::vector<chat::AnswerPart> parts = parts_of(index, event);
  if (options_.stream)
    stream_parts(index, parts, event.chosen.empty() ? Json() : logprobs_json(event.chosen));
  else
    keep_parts(index, parts);
  if (!options_.stream)
    choice.chosen.insert(choice.chosen.end(), event.chosen.begin(), event.chosen.end());
  if (!event.end) return;
  choice.result = **event.end;
  choice.ended = true;
  if (options_.stream) send_choice(index, Json::object(), {}, finish_reason(index));
  if (std::ranges::all_of(choices_, [](const Choice& c) { return c.ended; })) finish();
}

std::vector<chat::AnswerPart> Answer::parts_of(size_t index, const JobEvent& event) {
  if (!options_.chat) {
    if (event.text.empty()) return {};
    return {{.kind = chat::AnswerPart::Kind::kContent, .text = event.text}};
  }
  Choice& choice = choices_[index];
  std::vector<chat::AnswerPart> parts = choice.parser.feed(event.text);
  if (event.end)
    for (chat::AnswerPart& part : choice.parser.finish()) parts.push_back(std::move(part));
  return parts;
}

void Answer::stream_parts(size_t index, const std::vector<chat::AnswerPart>& parts, Json logprobs) {
  for (const chat::AnswerPart& part : parts) {
    Json delta = delta_of(part);
    if (!delta.is_null()) send_choice(index, std::move(delta), std::exchange(logprobs, Json()), {});
  }
  if (!logprobs.is_null()) send_choice(index, {{"content", ""}}, std::move(logprobs), {});
}

// Of calls, only those that are complete; of others, what the model wrote.
void Answer::keep_parts(size_t index, const std::vector<chat::AnswerPart>& parts) {
  using Kind = chat::AnswerPart::Kind;
  Choice& choice = choices_[index];
  for (const chat::AnswerPart& part : parts) {
    if (part.kind == Kind::kContent || part.kind == Kind::kCallLost) choice.content += part.text;
    if (part.kind == Kind::kReasoning) choice.reasoning += part.text;
    if (part.kind == Kind::kCall) choice.begun[part.index] = {part.id, part.name};
    if (part.kind != Kind::kCallEnd) continue;
    const auto& [id, name] = choice.begun[part.index];
    choice.calls.push_back({{"id", id},
                            {"type", "function"},
                            {"function", {{"name", name}, {"arguments", part.text}}}});
  }
}

// Cut off by max_tokens is cut off, even behind a call that was complete.
std::string_view Answer::finish_reason(size_t index) const {
  const Choice& choice = choices_[index];
  const chat::Finish finish = choice.result.finish;
  if (finish == chat::Finish::kLength || finish == chat::Finish::kContext) return "length";
  return choice.parser.complete_calls() > 0 ? "tool_calls" : "stop";
}

Json Answer::envelope(std::string_view object) const {
  return {{"id", options_.id},
          {"object", object},
          {"created", options_.created},
          {"model", options_.model},
          {"system_fingerprint", nullptr}};
}

void Answer::send(const Json& event) {
  if (!std::exchange(begun_, true)) {
    exchange_->begin_stream("text/event-stream");
    for (size_t i = 0; i < choices_.size(); ++i) {
      if (options_.chat)
        send_choice(i, {{"role", "assistant"}, {"content", ""}}, {}, {});
      else if (options_.echo)
        send_choice(i, {{"content", choices_[i].content}}, {}, {});
    }
  }
  exchange_->write(event_text(event));
}

void Answer::send_choice(size_t index, Json delta, Json logprobs, Json finish_reason) {
  Json choice = {{"index", index}, {"logprobs", std::move(logprobs)}};
  choice["finish_reason"] = std::move(finish_reason);
  if (options_.chat)
    choice["delta"] = std::move(delta);
  else
    choice["text"] = delta.value("content", "");
  Json event = envelope(options_.chat ? "chat.completion.chunk" : "text_completion");
  event["choices"] = Json::array({std::move(choice)});
  send(event);
}

Json Answer::logprobs_json(const std::vector<ChosenToken>& chosen) const {
  Json content = logprobs_list(tokenizer_, chosen);
  if (options_.chat) return {{"content", std::move(content)}};
  Json tokens = Json::array(), values = Json::array(), likeliest = Json::array();
  for (const Json& entry : content) {
    Json map = Json::object();
    for (const Json& other : entry["top_logprobs"])
      map[other["token"].get<std::string>()] = other["logprob"];
    tokens.push_back(entry["token"]);
    values.push_back(entry["logprob"]);
    likeliest.push_back(std::move(map));
  }
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", std::move(values)},
          {"top_logprobs", std::move(likeliest)}};
}

// A prompt counts once, however many answers it has.
Json Answer::usage_json() const {
  size_t prompt = 0, reused = 0, generated = 0;
  for (size_t i = 0; i < choices_.size(); ++i) {
    const JobResult& result = choices_[i].result;
    generated += result.tokens;
    if (i > 0 && options_.prompts[i] == options_.prompts[i - 1]) continue;
    prompt += result.prompt_tokens;
    reused += result.reused_tokens;
  }
  return {{"prompt_tokens", prompt},
          {"completion_tokens", generated},
          {"total_tokens", prompt + generated},
          {"prompt_tokens_details", {{"cached_tokens", reused}}}};
}

std::vector<JobResult> Answer::results() const {
  std::vector<JobResult> results;
  for (const Choice& choice : choices_) results.push_back(choice.result);
  return results;
}

Json Answer::choice_json(size_t index) const {
  const Choice& choice = choices_[index];
  Json json = {{"index", index},
               {"finish_reason", finish_reason(index)},
               {"logprobs", choice.chosen.empty() ? Json() : logprobs_json(choice.chosen)}};
  if (!options_.chat) {
    json["text"] = choice.content;
    return json;
  }
  json["message"] = {{"role", "assistant"}, {"content", choice.content}, {"refusal", nullptr}};
  if (!choice.reasoning.empty()) json["message"]["reasoning_content"] = choice.reasoning;
  if (!choice.calls.empty()) {
    json["message"]["tool_calls"] = choice.calls;
    if (choice.content.empty()) json["message"]["content"] = nullptr;
  }
  return json;
}

void Answer::finish() {
  if (options_.stream) {
    // The last event with choices, or the one without, tells how long it took.
    Json event = envelope(options_.chat ? "chat.completion.chunk" : "text_completion");
    event["choices"] = Json::array();
    event["timings"] = timings_json(results());
    if (options_.include_usage) event["usage"] = usage_json();
    send(event);
    exchange_->write("data: [DONE]\n\n");
    exchange_->end_stream();
    return end();
  }
  Json reply = envelope(options_.chat ? "chat.completion" : "text_completion");
  reply["choices"] = Json::array();
  for (size_t i = 0; i < choices_.size(); ++i) reply["choices"].push_back(choice_json(i));
  reply["usage"] = usage_json();
  reply["timings"] = timings_json(results());
  exchange_->reply(200, "application/json", dump_json(reply));
  end();
}

void Answer::fail_all(const Error& error) {
  if (!begun_) {
    reply_error(*exchange_, error);
  } else {
    const int status = status_of(error.code);
    exchange_->write("data: " + error_body(status, error.message, error_code_name(error.code)) +
                     "\n\n");
    exchange_->end_stream();
  }
  end();
}

void Answer::abandon() {
  if (!ended_) end();
}

void Answer::end() {
  ended_ = true;
  on_end_(first_token_s_);
}

}  // namespace sluice::server
