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
  const auto request = parse_embedding_request(body, info.vocabulary, info.hidden_size);
  if (!request) return reply_error(*exchange, request.error(), body);
  auto inputs = tokens_of(*model, request->inputs);
  if (!inputs) return reply_error(*exchange, inputs.error(), body);
  const Pending pending = this->pending(exchange, model);
  EmbeddingAnswer::Options options{.model = requested_model(body).value_or(""),
                                   .base64 = request->base64,
                                   .at_once = model->scheduler.state().slots.size()};
  if (options.model.empty()) options.model = models_.card(0).name;
  // Not the whole of pending: it would hold, by its end, the answer that holds it.
  const Pending for_jobs{
      .exchange = exchange, .model = model, .jobs = pending.jobs, .counted = pending.counted};
  const auto answer = std::make_shared<EmbeddingAnswer>(
      exchange, std::move(options), std::move(*inputs), request->client,
      [this, for_jobs](const std::shared_ptr<Reply>& self, size_t index, Job job) {
        return submit(for_jobs, self, index, std::move(job));
      },
      pending.on_end);
  if (answer->start()) go_on(pending, answer);
}

}  // namespace sluice::server
