#include "server/embeddings.h"

#include <bit>
#include <cmath>

#include "base/base64.h"

namespace sluice::server {

static_assert(std::endian::native == std::endian::little);

std::vector<float> normalized(std::vector<float> values) {
  double squares = 0;
  for (const float value : values) squares += double{value} * value;
  if (squares == 0) return values;
  const double scale = 1 / std::sqrt(squares);
  for (float& value : values) value = static_cast<float>(value * scale);
  return values;
}

EmbeddingAnswer::EmbeddingAnswer(std::shared_ptr<Exchange> exchange, Options options,
                                 std::vector<std::vector<uint32_t>> inputs, std::string client,
                                 Submit submit, OnEnd on_end)
    : exchange_(std::move(exchange)),
      options_(std::move(options)),
      inputs_(std::move(inputs)),
      client_(std::move(client)),
      submit_(std::move(submit)),
      on_end_(std::move(on_end)),
      states_(inputs_.size()) {}

bool EmbeddingAnswer::start() {
  while (next_ < inputs_.size() && next_ < options_.at_once)
    if (const Status begun = submit_next(); !begun) {
      fail_with(begun.error());
      return false;
    }
  return true;
}

Status EmbeddingAnswer::submit_next() {
  Job job;
  job.embeds = true;
  job.prompt = std::move(inputs_[next_]);
  job.client = client_;
  SLUICE_TRY(submit_(shared_from_this(), next_, std::move(job)));
  ++next_;
  return {};
}

void EmbeddingAnswer::take(size_t index, JobEvent event) {
  if (ended_ || !event.end) return;
  if (!*event.end) return fail_with(event.end->error());
  if ((*event.end)->finish == chat::Finish::kCancelled)
    return fail_with({ErrorCode::kCancelled, "the server is stopping"});
  states_[index] = normalized(std::move(event.state));
  tokens_ += (*event.end)->prompt_tokens;
  if (++done_ == states_.size()) return finish();
  if (next_ == inputs_.size()) return;
  if (const Status begun = submit_next(); !begun) fail_with(begun.error());
}

void EmbeddingAnswer::finish() {
  Json data = Json::array();
  for (const std::vector<float>& state : states_)
    data.push_back({{"object", "embedding"},
                    {"index", data.size()},
                    {"embedding", options_.base64 ? Json(base64(std::as_bytes(std::span(state))))
                                                  : Json(state)}});
  exchange_->reply(200, "application/json",
                   dump_json({{"object", "list"},
                              {"model", options_.model},
                              {"data", std::move(data)},
                              {"usage", {{"prompt_tokens", tokens_}, {"total_tokens", tokens_}}}}));
  end();
}

void EmbeddingAnswer::fail_with(const Error& error) {
  reply_error(*exchange_, error);
  end();
}

void EmbeddingAnswer::abandon() {
  if (!ended_) end();
}

void EmbeddingAnswer::end() {
  ended_ = true;
  on_end_(-1);
}

}  // namespace sluice::server
