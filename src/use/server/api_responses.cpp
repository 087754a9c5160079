// The routes of responses.
#include <ctime>

#include "server/api.h"

namespace sluice::server {

void Api::respond(const std::shared_ptr<Exchange>& exchange, const Json& body,
                  const ModelLease& model) {
  const auto previous = previous_response(body);
  if (!previous) return reply_error(*exchange, previous.error(), body);
  std::vector<chat::Message> before;
  if (!previous->empty()) {
    const StoredResponse* stored = responses_.find(*previous);
    if (stored == nullptr)
      return reply_error(
          *exchange,
          {ErrorCode::kNotFound, "previous_response_id: no such response is kept here (any more)"},
          body);
    before = stored->conversation;
  }
  auto parsed = parse_responses_request(in_order(*exchange), defaults(*model), std::move(before));
  if (!parsed) return reply_error(*exchange, parsed.error(), body);
  const auto request = std::make_shared<const ResponsesRequest>(std::move(*parsed));
  beside(exchange, body, [this, request, model]() -> Result<Next> {
    const auto prompts = std::make_shared<std::vector<Prompt>>(1);
    SLUICE_ASSIGN(prompts->front(), chat_prompt(*model, request->chat));
    return [this, request, model, prompts](const auto& to) {
      begin_response(to, model, *request, *prompts);
    };
  });
}

void Api::begin_response(const std::shared_ptr<Exchange>& exchange, const ModelLease& model,
                         const ResponsesRequest& request, const std::vector<Prompt>& prompts) {
  ResponseOptions options{.stream = request.chat.stream,
                          .id = random_id("resp_"),
                          .model = asked_name(request.chat),
                          .created = static_cast<int64_t>(std::time(nullptr)),
                          .echo = request.echo,
                          .prompt = prompts.front().text,
                          .syntax = model->syntax,
                          .tools = request.chat.tools};
  options.echo["store"] = request.store;
  const auto keep = [this, id = options.id, store = request.store, lasting = request.lasting](
                        const Json& response, chat::Message said) {
    if (!store) return;
    StoredResponse stored{response, lasting};
    stored.conversation.push_back(std::move(said));
    responses_.keep(id, std::move(stored));
  };
  const bool marks = !request.chat.tools.is_null() || prompts.front().constraint.has_value();
  generate(exchange, request.chat, prompts, marks, model, [&](auto on_end) {
    return std::make_shared<ResponseAnswer>(exchange, model->chat.tokenizer, std::move(options),
                                            keep, std::move(on_end));
  });
}

void Api::stored_response(const std::shared_ptr<Exchange>& exchange, const Json&) {
  const StoredResponse* stored = responses_.find(name_behind(*exchange, "/v1/responses/"));
  if (stored == nullptr)
    return reply_error(*exchange, {ErrorCode::kNotFound, "no such response is kept here"});
  reply_json(*exchange, stored->response);
}

void Api::delete_response(const std::shared_ptr<Exchange>& exchange, const Json&) {
  const std::string id = name_behind(*exchange, "/v1/responses/");
  if (!responses_.remove(id))
    return reply_error(*exchange, {ErrorCode::kNotFound, "no such response is kept here"});
  reply_json(*exchange, {{"id", id}, {"object", "response"}, {"deleted", true}});
}

}  // namespace sluice::server
