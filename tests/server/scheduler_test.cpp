// Jobs beside each other are what each is alone, whatever waits, shares or is cancelled meanwhile.
#include "server/scheduler.h"

#include <gtest/gtest.h>

#include <map>

#include "runtime/engines.h"
#include "server/words.h"

namespace sluice::server {
namespace {

using runtime::Tokens;

// What became of jobs; events come from another thread.
class Watcher {
 public:
  struct Seen {
    std::string text;
    std::vector<ChosenToken> chosen;
    std::optional<Result<JobResult>> end;
  };

  OnEvent on(int job) {
    return [this, job](JobEvent event) {
      MutexLock lock(mutex_);
      Seen& seen = seen_[job];
      EXPECT_FALSE(seen.end.has_value());
      seen.text += event.text;
      seen.chosen.insert(seen.chosen.end(), event.chosen.begin(), event.chosen.end());
      seen.end = event.end;
      changed_.notify_all();
    };
  }
  Seen await(int job) {
    MutexLock lock(mutex_);
    while (!seen_[job].end) changed_.wait(mutex_);
    return seen_[job];
  }
  void await_text(int job) {
    MutexLock lock(mutex_);
    while (seen_[job].text.empty() && !seen_[job].end) changed_.wait(mutex_);
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::map<int, Seen> seen_ GUARDED_BY(mutex_);
};

class SchedulerTest : public testing::Test {
 protected:
  explicit SchedulerTest(size_t sessions = 3)
      : opened_(runtime::open_engine(test::tiny_llama().build(), options(sessions))),
        model_{opened_.engine, words(), std::nullopt, {}, {}} {}

  static runtime::EngineOptions options(size_t sessions) {
    runtime::EngineOptions options = runtime::f32_options();
    options.sessions_max = sessions;
    options.chunk_tokens = 16;
    return options;
  }
  std::unique_ptr<Scheduler> scheduler(SchedulerOptions options = {.slots = 3}) {
    options.prefill_tokens_beside = 5;
    return std::make_unique<Scheduler>(model_, ops_, options);
  }
  static Job job(size_t prompt_tokens, uint64_t seed, size_t tokens_max) {
    Job job;
    job.prompt = runtime::random_tokens(prompt_tokens, 64, seed);
    job.sampling.seed = seed;
    job.tokens_max = tokens_max;
    return job;
  }
  // The same by itself.
  std::string alone(const Job& job) {
    auto sampler = *runtime::Sampler::open(job.sampling, 64, ops_);
    runtime::Session session = opened_.engine->new_session();
    chat::GenerateOptions options;
    options.tokens_max = job.tokens_max;
    options.stops = job.stops;
    const auto generation = chat::generate(
        model_, session, job.prompt,
        [&](std::span<const float> logits, std::span<const uint32_t> tokens) {
          return sampler.sample(logits, tokens, tokens.size());
        },
        options, [](std::string_view) { return true; }, nullptr);
    SLUICE_CHECK(generation.has_value());
    return generation->text;
  }

  runtime::Opened opened_;
  chat::ChatModel model_;
  const kernels::LayerOps& ops_ = kernels::layer_ops(test::widest_simd());
};

TEST_F(SchedulerTest, JobsBesideEachOtherAreWhatTheyAreAlone) {
  std::vector<Job> jobs;
  std::vector<std::string> expected;
  for (uint64_t i = 0; i < 10; ++i) {
    jobs.push_back(job(3 + 11 * i, i % 7, 4 + 3 * i));  // some begin alike
    expected.push_back(alone(jobs.back()));
  }
  Watcher watcher;
  const auto scheduler = this->scheduler();
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(scheduler->submit(jobs[i], watcher.on(i)).has_value());
  for (int i = 0; i < 10; ++i) {
    const Watcher::Seen seen = watcher.await(i);
    ASSERT_TRUE(seen.end->has_value());
    EXPECT_EQ(seen.text, expected[i]) << i;
    EXPECT_EQ((*seen.end)->tokens, jobs[i].tokens_max);
    EXPECT_EQ((*seen.end)->finish, chat::Finish::kLength);
  }
  const SchedulerState state = scheduler->state();
  EXPECT_EQ(state.running + state.queued, 0u);
  EXPECT_GT(state.generated_tokens, 0u);
}

TEST_F(SchedulerTest, SharesWhatPromptsBeginWith) {
  Watcher watcher;
  const auto scheduler = this->scheduler();
  const Job first = job(60, 1, 5);
  const std::string expected = alone(first);
  ASSERT_TRUE(scheduler->submit(first, watcher.on(0)).has_value());
  EXPECT_EQ((*watcher.await(0).end)->reused_tokens, 0u);
  // Three at once: one takes the session up again, the others fork it.
  for (int i = 1; i < 4; ++i) ASSERT_TRUE(scheduler->submit(first, watcher.on(i)).has_value());
  for (int i = 1; i < 4; ++i) {
    const Watcher::Seen seen = watcher.await(i);
    EXPECT_EQ((*seen.end)->reused_tokens, 59u);
    EXPECT_EQ(seen.text, expected);
  }
}

TEST_F(SchedulerTest, StopsAtStringsAndTellsProbabilities) {
  Watcher watcher;
  const auto scheduler = this->scheduler();
  Job job = this->job(10, 3, 30);
  job.logprobs = 4;
  const std::string whole = alone(job);
  job.stops = {whole.substr(whole.size() / 2, 6)};
  const std::string expected = alone(job);
  ASSERT_LT(expected.size(), whole.size());
  ASSERT_TRUE(scheduler->submit(job, watcher.on(0)).has_value());
  const Watcher::Seen seen = watcher.await(0);
  EXPECT_EQ(seen.text, expected);
  EXPECT_EQ((*seen.end)->finish, chat::Finish::kStop);
  ASSERT_EQ(seen.chosen.size(), (*seen.end)->tokens);
  for (const ChosenToken& token : seen.chosen) {
    ASSERT_EQ(token.likeliest.size(), 4u);
    EXPECT_LE(token.logprob, token.likeliest[0].logprob);
    EXPECT_GE(token.likeliest[0].logprob, token.likeliest[3].logprob);
  }
}

TEST_F(SchedulerTest, EndsWhereTheContextIsFull) {
  Watcher watcher;
  const auto scheduler = this->scheduler();
  ASSERT_TRUE(scheduler->submit(job(250, 5, 0), watcher.on(0)).has_value());
  const Watcher::Seen seen = watcher.await(0);
  EXPECT_EQ((*seen.end)->finish, chat::Finish::kContext);
  EXPECT_EQ(seen.text, alone(job(250, 5, 0)));
  const auto too_long = scheduler->submit(job(256, 5, 0), watcher.on(1));
  ASSERT_FALSE(too_long.has_value());
  EXPECT_EQ(too_long.error().code, ErrorCode::kInvalidArgument);
}

TEST_F(SchedulerTest, CancelsWhatRunsAndWhatWaits) {
  Watcher watcher;
  const auto scheduler = this->scheduler({.slots = 1, .queue_max = 2});
  Job endless = job(4, 9, 0);
  const auto running = scheduler->submit(endless, watcher.on(0));
  watcher.await_text(0);
  const auto waiting = scheduler->submit(endless, watcher.on(1));
  ASSERT_TRUE(scheduler->submit(job(4, 2, 3), watcher.on(2)).has_value());
  const auto refused = scheduler->submit(endless, watcher.on(3));
  if (!refused) {  // unless the first has filled its context already
    EXPECT_EQ(refused.error().code, ErrorCode::kExhausted);
  }
  scheduler->cancel(*waiting);
  scheduler->cancel(*running);
  EXPECT_TRUE(watcher.await(0).end->has_value());
  EXPECT_TRUE(watcher.await(1).end->has_value());
  const Watcher::Seen last = watcher.await(2);
  EXPECT_EQ(last.text, alone(job(4, 2, 3)));
}

TEST_F(SchedulerTest, DrainsAndStops) {
  Watcher watcher;
  const auto scheduler = this->scheduler({.slots = 1});
  ASSERT_TRUE(scheduler->submit(job(4, 9, 0), watcher.on(0)).has_value());
  watcher.await_text(0);
  scheduler->drain();
  const auto refused = scheduler->submit(job(4, 1, 1), watcher.on(1));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kCancelled);
  scheduler->stop();
  EXPECT_TRUE(watcher.await(0).end->has_value());
  scheduler->cancel(1);
}

TEST_F(SchedulerTest, RefusesSamplingOutOfRange) {
  Watcher watcher;
  const auto scheduler = this->scheduler();
  Job wrong = job(4, 1, 1);
  wrong.sampling.temperature = -1;
  EXPECT_FALSE(scheduler->submit(wrong, watcher.on(0)).has_value());
}

}  // namespace
}  // namespace sluice::server
