// From logits to a token. What changes the logits, what cuts the list of candidates, and the draw,
// in the order of llama.cpp's default chain:
//   logit bias → token mask → repetition, frequency and presence penalties →
//   top-k → typical → top-p → min-p → temperature → draw.
// Temperature comes last, so the cuts see the model's own probabilities (as mlx_lm's do, which cuts
// top-p, min-p, top-k); interfaces that temper first get the same by dividing the logits before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "kernels/layer_ops.h"

namespace sluice::runtime {

struct LogitBias {
  uint32_t token;
  float bias;  // added to the logit; −∞ forbids the token
};

// The defaults change nothing: a draw from the model's own distribution.
struct SamplerOptions {
  float temperature = 1;  // 0: greedy, the likeliest token, the lowest id among equals
  size_t top_k = 0;       // the k likeliest; 0: all
  float typical_p = 1;    // mass of the tokens closest to the entropy (Meister et al. 2022)
  float top_p = 1;        // the fewest likeliest tokens that hold this mass
  float min_p = 0;        // at least this part of the likeliest token's probability
  float repetition_penalty =
      1;                        // positive logits divided, negative multiplied (Keskar et al. 2019)
  float frequency_penalty = 0;  // subtracted per occurrence
  float presence_penalty = 0;   // subtracted once from what has occurred
  size_t penalty_last_n = 64;   // the tokens that penalties look back on; 0: none
  std::vector<LogitBias> logit_bias{};
  uint64_t seed = 0;
};

struct TokenLogprob {
  uint32_t token;
  float logprob;
};

// Mutable scratch, all allocated when opened; used by one thread at a time. The same options,
// logits, history and position give the same token on every machine: exponentials are LayerOps',
// sums run in a fixed order, and ties go to the lower id.
class Sampler {
 public:
  // Refuses options out of range, naming the option.
  static Result<Sampler> open(SamplerOptions options, size_t vocab_size,
                              const kernels::LayerOps& ops);
  // What open() refuses.
  static Status check(const SamplerOptions& options, size_t vocab_size);

  // From now on with these options, which check() takes: one sampler's scratch, 28 bytes for each
  // token of the vocabulary, serves any number of texts in turn.
  void use(const SamplerOptions& options) { options_ = options; }

  // logits [vocab_size]; NaNs count as −∞. history: the tokens so far, oldest first, for penalties.
  // position: which draw of the seed this is; the number of tokens before it will do, and a token
  // taken back and drawn again then comes out the same. mask: bit t % 32 of word t / 32 allows
  // token t, and what it lacks at the end is forbidden; empty: all are allowed. Fails when no token
  // is left, by the mask or because no logit is above −∞.
  Result<uint32_t> sample(std::span<const float> logits, std::span<const uint32_t> history,
                          uint64_t position, std::span<const uint32_t> mask = {});

  // The tokens that the last call could have drawn with their probabilities, likeliest first; valid
  // until the next call. For speculative decoding, and for tests.
  struct Candidate {
    uint32_t token;
    float logit;  // as the draw used it, before temperature
    double probability;
  };
  std::span<const Candidate> candidates() const { return {candidates_.data(), kept_}; }

  const SamplerOptions& options() const { return options_; }

 private:
  Sampler(SamplerOptions options, size_t vocab_size, const kernels::LayerOps& ops);

  void change_logits(std::span<const uint32_t> history, std::span<const uint32_t> mask);
  void penalize(std::span<const uint32_t> history);
  Result<uint32_t> greedy();
  void gather_candidates();
  void sort_candidates(float cutoff);
  void give_probabilities(double temperature);
  void keep_typical();
  void keep_top_p();
  void keep_min_p();
  uint32_t draw(double unit) const;

  SamplerOptions options_;
  const kernels::LayerOps* ops_;
  std::vector<float> logits_, weights_;  // [vocab_size]; weights: e^(logit − largest)
  std::vector<uint32_t> counts_;         // [vocab_size], zero between calls
  std::vector<Candidate> candidates_;    // [vocab_size] of room; the first kept_ count
  size_t kept_ = 0;
};

// The model's own log-probabilities, before anything of the above: of the n = out.size() likeliest
// tokens, likeliest first, the lower id first among equals.
void top_logprobs(std::span<const float> logits, std::span<TokenLogprob> out);
float logprob_of(std::span<const float> logits, uint32_t token);

}  // namespace sluice::runtime
