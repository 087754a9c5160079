// OpenAI's embeddings: each input run through the model once, the states behind its last norm
// averaged over the tokens and made one long. However many inputs a request has, it takes no more
// sessions at a time than there are.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "server/answers.h"
#include "server/requests.h"

namespace sluice::server {

// One long: divided by the root of its squares' sum. Zeros stay.
std::vector<float> normalized(std::vector<float> values);

// The loop's thread.
class EmbeddingAnswer : public Reply, public std::enable_shared_from_this<EmbeddingAnswer> {
 public:
  // Begins a job for input index, whose events come to take().
  using Submit = std::function<Status(const std::shared_ptr<Reply>& self, size_t index, Job job)>;
  struct Options {
    std::string model;
    bool base64 = false;
    size_t at_once = 1;  // jobs that run at a time
  };
  // inputs: tokens of each, at least one.
  EmbeddingAnswer(std::shared_ptr<Exchange> exchange, Options options,
                  std::vector<std::vector<uint32_t>> inputs, std::string client, Submit submit,
                  OnEnd on_end);

  // Begins the first jobs. When false it has replied already, and on_end was called.
  bool start();
  void take(size_t index, JobEvent event) override;
  void abandon() override;

 private:
  Status submit_next();
  void finish();
  void fail_with(const Error& error);
  void end();

  const std::shared_ptr<Exchange> exchange_;
  const Options options_;
  std::vector<std::vector<uint32_t>> inputs_;
  const std::string client_;
  const Submit submit_;
  const OnEnd on_end_;
  std::vector<std::vector<float>> states_;
  size_t next_ = 0, done_ = 0, tokens_ = 0;
  bool ended_ = false;
};

}  // namespace sluice::server
