// The route of embeddings.
#include "server/api.h"
#include "server/embeddings.h"

namespace sluice::server {
namespace {

Result<std::vector<std::vector<uint32_t>>> tokens_of(const ServedModel& model,
                                                     const std::vector<PromptText>& inputs) {
  std::vector<std::vector<uint32_t>> all;
  for (const PromptText& input : inputs) {
    std::vector<uint32_t>& tokens = all.emplace_back();
    if (const auto* given = std::get_if<std::vector<uint32_t>>(&input)) {
      tokens = *given;
    } else {
      SLUICE_ASSIGN(tokens, model.chat.tokenizer.encode(std::get<std::string>(input), true));
    }
    const Status fits = chat::check_prompt(tokens, model.chat.engine->info().context);
    if (!fits)
      return fail(fits.error().code, "input[{}]: {}", all.size() - 1, fits.error().message);
  }
  return all;
}

}  // namespace

void Api::embed(const std::shared_ptr<Exchange>& exchange, const Json& body,
                const ModelLease& model) {
  const runtime::ModelInfo& info = model->chat.engine->info();
  auto parsed = parse_embedding_request(body, info.vocabulary, info.hidden_size);
  if (!parsed) return reply_error(*exchange, parsed.error(), body);
  const auto request = std::make_shared<const EmbeddingRequest>(std::move(*parsed));
  std::string name = requested_model(body).value_or("");
  if (name.empty()) name = models_.card(0).name;
  beside(exchange, body, [this, request, model, name = std::move(name)]() -> Result<Next> {
    SLUICE_ASSIGN(auto tokens, tokens_of(*model, request->inputs));
    return [this, request, model, name, tokens = std::move(tokens)](const auto& to) {
      begin_embedding(to, model, {.model = name, .base64 = request->base64}, tokens,
                      request->client);
    };
  });
}

void Api::begin_embedding(const std::shared_ptr<Exchange>& exchange, const ModelLease& model,
                          EmbeddingAnswer::Options options,
                          std::vector<std::vector<uint32_t>> inputs, const std::string& client) {
  const Pending pending = this->pending(exchange, model);
  options.at_once = model->scheduler.state().slots.size();
  // Not the whole of pending: it would hold, by its end, the answer that holds it.
  const Pending for_jobs{
      .exchange = exchange, .model = model, .jobs = pending.jobs, .counted = pending.counted};
  const auto answer = std::make_shared<EmbeddingAnswer>(
      exchange, std::move(options), std::move(inputs), client,
      [this, for_jobs](const std::shared_ptr<Reply>& self, size_t index, Job job) {
        return submit(for_jobs, self, index, std::move(job));
      },
      pending.on_end);
  if (answer->start()) go_on(pending, answer);
}

}  // namespace sluice::server
