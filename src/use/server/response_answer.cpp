#include "server/response_answer.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

namespace sluice::server {
namespace {

std::string_view text_type(bool reasoning) { return reasoning ? "reasoning_text" : "output_text"; }

}  // namespace

std::string random_id(std::string_view prefix) {
  std::random_device random;
  std::string id(prefix);
  for (int i = 0; i < 4; ++i) id += fmt::format("{:08x}", static_cast<uint32_t>(random()));
  return id;
}

ResponseAnswer::ResponseAnswer(std::shared_ptr<Exchange> exchange,
                               const tokenizer::Tokenizer& tokenizer, ResponseOptions options,
                               OnComplete on_complete, OnEnd on_end)
    : exchange_(std::move(exchange)),
      tokenizer_(tokenizer),
      options_(std::move(options)),
      on_complete_(std::move(on_complete)),
      on_end_(std::move(on_end)),
      parser_(options_.syntax, options_.prompt, options_.tools) {}

void ResponseAnswer::take(size_t, JobEvent event) {
  if (ended_) return;
  if (first_token_s_ < 0 && (!event.text.empty() || !event.chosen.empty()))
    first_token_s_ = watch_.seconds();
  if (event.end && !*event.end) return fail_with(event.end->error());
  if (event.end && (*event.end)->finish == chat::Finish::kCancelled)
    return fail_with({ErrorCode::kCancelled, "the server is stopping"});
  begin();
  chosen_.insert(chosen_.end(), event.chosen.begin(), event.chosen.end());
  for (const chat::AnswerPart& part : parser_.feed(event.text)) take_part(part);
  if (!event.end) return;
  for (const chat::AnswerPart& part : parser_.finish()) take_part(part);
  finish(**event.end);
}

void ResponseAnswer::begin() {
  if (std::exchange(begun_, true) || !options_.stream) return;
  exchange_->begin_stream("text/event-stream");
  emit("response.created", {{"response", response("in_progress")}});
  emit("response.in_progress", {{"response", response("in_progress")}});
}

void ResponseAnswer::take_part(const chat::AnswerPart& part) {
  using Part = chat::AnswerPart::Kind;
  switch (part.kind) {
    case Part::kReasoning: return take_text(Kind::kReasoning, part.text);
    case Part::kContent: return take_text(Kind::kMessage, part.text);
    case Part::kCall:
      return open(Kind::kCall, {{"type", "function_call"},
                                {"id", random_id("fc_")},
                                {"call_id", part.id},
                                {"name", part.name},
                                {"arguments", ""}});
    case Part::kArguments: {
      text_ += part.text;
      Json event = place();
      event["delta"] = part.text;
      return emit("response.function_call_arguments.delta", std::move(event));
    }
    case Part::kCallEnd:
      text_ = part.text;
      said_.tool_calls.push_back(
          {item_["call_id"].get<std::string>(), item_["name"].get<std::string>(), text_});
      return close("completed");
    case Part::kCallLost: return close("incomplete");
  }
}

// What is but white space between two items belongs to neither.
std::string ResponseAnswer::spoken(std::string text) {
  text = std::exchange(blank_, {}) + std::move(text);
  if (kind_ == Kind::kMessage || text.find_first_not_of(" \t\r\n") != std::string::npos)
    return text;
  blank_ = std::move(text);
  return {};
}

void ResponseAnswer::take_text(Kind kind, const std::string& given) {
  const bool reasoning = kind == Kind::kReasoning;
  const std::string text = reasoning ? given : spoken(given);
  if (text.empty()) return;
  if (kind_ != kind) {
    Json item = {{"type", reasoning ? "reasoning" : "message"},
                 {"id", random_id(reasoning ? "rs_" : "msg_")},
                 {"content", Json::array()}};
    if (reasoning)
      item["summary"] = Json::array();
    else
      item["role"] = "assistant";
    open(kind, std::move(item));
  }
  text_ += text;
  (reasoning ? said_.reasoning : said_.content) += text;
  Json event = place();
  event["content_index"] = 0;
  event["delta"] = text;
  if (!reasoning) event["logprobs"] = logprobs_list(tokenizer_, chosen_);
  item_chosen_.insert(item_chosen_.end(), chosen_.begin(), chosen_.end());
  chosen_.clear();
  emit(fmt::format("response.{}.delta", text_type(reasoning)), std::move(event));
}

void ResponseAnswer::open(Kind kind, Json item) {
  close("completed");
  kind_ = kind;
  item_ = std::move(item);
  text_.clear();
  blank_.clear();
  item_chosen_.clear();
  item_["status"] = "in_progress";
  emit("response.output_item.added", {{"output_index", output_.size()}, {"item", item_}});
  if (kind == Kind::kCall) return;
  Json event = place();
  event["content_index"] = 0;
  event["part"] = {{"type", text_type(kind == Kind::kReasoning)}, {"text", ""}};
  if (kind == Kind::kMessage) event["part"]["annotations"] = Json::array();
  emit("response.content_part.added", std::move(event));
}

void ResponseAnswer::close_text() {
  const bool reasoning = kind_ == Kind::kReasoning;
  Json part = {{"type", text_type(reasoning)}, {"text", text_}};
  if (!reasoning) {
    part["annotations"] = Json::array();
    part["logprobs"] = logprobs_list(tokenizer_, item_chosen_);
  }
  Json event = place();
  event["content_index"] = 0;
  Json done = event;
  event["text"] = text_;
  if (!reasoning) event["logprobs"] = part["logprobs"];
  emit(fmt::format("response.{}.done", text_type(reasoning)), std::move(event));
  done["part"] = part;
  emit("response.content_part.done", std::move(done));
  item_["content"] = Json::array({std::move(part)});
}

void ResponseAnswer::close(std::string_view status) {
  if (kind_ == Kind::kNone) return;
  if (kind_ == Kind::kCall) {
    item_["arguments"] = text_;
    Json event = place();
    event["name"] = item_["name"];
    event["arguments"] = text_;
    emit("response.function_call_arguments.done", std::move(event));
  } else {
    close_text();
  }
  item_["status"] = status;
  emit("response.output_item.done", {{"output_index", output_.size()}, {"item", item_}});
  output_.push_back(std::move(item_));
  kind_ = Kind::kNone;
}

Json ResponseAnswer::place() const {
  return {{"item_id", item_["id"]}, {"output_index", output_.size()}};
}

void ResponseAnswer::emit(std::string_view type, Json event) {
  if (!options_.stream) return;
  event["type"] = type;
  event["sequence_number"] = sequence_++;
  exchange_->write(fmt::format("event: {}\ndata: {}\n\n", type, dump_json(event)));
}

Json ResponseAnswer::response(std::string_view status) const {
  Json response = options_.echo;
  response["id"] = options_.id;
  response["object"] = "response";
  response["created_at"] = options_.created;
  response["model"] = options_.model;
  response["status"] = status;
  response["output"] = output_;
  response["background"] = false;
  response["error"] = nullptr;
  response["incomplete_details"] = nullptr;
  response["usage"] = nullptr;
  return response;
}

// Thoughts are counted by encoding them, as a token may belong to a mark or to both sides of one.
Json ResponseAnswer::usage() const {
  size_t reasoning = 0;
  if (!said_.reasoning.empty())
    if (const auto tokens = tokenizer_.encode(said_.reasoning, false)) reasoning = tokens->size();
  return {{"input_tokens", result_.prompt_tokens},
          {"input_tokens_details",
           {{"cached_tokens", result_.reused_tokens}, {"cache_write_tokens", 0}}},
          {"output_tokens", result_.tokens},
          {"output_tokens_details", {{"reasoning_tokens", std::min(reasoning, result_.tokens)}}},
          {"total_tokens", result_.prompt_tokens + result_.tokens}};
}

void ResponseAnswer::finish(const JobResult& result) {
  result_ = result;
  const bool cut =
      result.finish == chat::Finish::kLength || result.finish == chat::Finish::kContext;
  close(cut ? "incomplete" : "completed");
  Json whole = response(cut ? "incomplete" : "completed");
  if (cut) whole["incomplete_details"] = {{"reason", "max_output_tokens"}};
  whole["usage"] = usage();
  whole["timings"] = timings_json({&result_, 1});
  on_complete_(whole, said_);
  if (options_.stream) {
    emit(cut ? "response.incomplete" : "response.completed", {{"response", whole}});
    exchange_->end_stream();
  } else {
    exchange_->reply(200, "application/json", dump_json(whole));
  }
  end();
}

void ResponseAnswer::fail_with(const Error& error) {
  if (!options_.stream || !begun_) {
    reply_error(*exchange_, error);
  } else {
    Json whole = response("failed");
    whole["error"] = {{"code", "server_error"}, {"message", error.message}};
    emit("response.failed", {{"response", std::move(whole)}});
    exchange_->end_stream();
  }
  end();
}

void ResponseAnswer::abandon() {
  if (!ended_) end();
}

void ResponseAnswer::end() {
  ended_ = true;
  on_end_(first_token_s_);
}

}  // namespace sluice::server
