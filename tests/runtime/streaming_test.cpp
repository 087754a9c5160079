// Models larger than the memory for their weights: the same logits bit for bit, at every limit, in
// whatever order and however late the disk answers.
#include <gmock/gmock.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "io/build_files.h"
#include "io/read_ring.h"
#include "runtime/engines.h"
#include "runtime/weight_store.h"

namespace sluice::runtime {
namespace {

using testing::HasSubstr;

constexpr uint64_t kVocabulary = 64;

EngineOptions options_for(uint64_t weight_bytes, uint64_t window_bytes = 0) {
  EngineOptions options = f32_options();
  options.activations = ActivationChoice::kAuto;
  options.weight_bytes_max = weight_bytes;
  options.window_bytes = window_bytes;
  return options;
}

// Answers late, at random, and fails from a given read on.
class SlowSource : public io::ByteSource {
 public:
  struct Switches {
    std::atomic<bool> slow{false};
    std::atomic<int64_t> reads_left{INT64_MAX};
  };
  SlowSource(std::shared_ptr<io::ByteSource> inner, Switches& switches)
      : inner_(std::move(inner)), switches_(switches) {}
  Status read_at(uint64_t offset, std::span<std::byte> out) const override {
    if (switches_.slow)
      std::this_thread::sleep_for(std::chrono::microseconds(offset * 2654435761 % 700));
    if (--switches_.reads_left < 0) return fail(ErrorCode::kIo, "the cable was pulled");
    return inner_->read_at(offset, out);
  }
  uint64_t size() const override { return inner_->size(); }
  const std::string& label() const override { return inner_->label(); }

 private:
  std::shared_ptr<io::ByteSource> inner_;
  Switches& switches_;
};

std::shared_ptr<const io::Checkpoint> slowed(const std::shared_ptr<const io::Checkpoint>& whole,
                                             SlowSource::Switches& switches) {
  auto copy = std::make_shared<io::Checkpoint>(*whole);
  for (auto& file : copy->files) file = std::make_shared<SlowSource>(file, switches);
  // Views into the tensors' own names.
  copy->by_name.clear();
  for (uint32_t i = 0; i < copy->tensors.size(); ++i)
    copy->by_name.emplace(copy->tensors[i].info.name, i);
  return copy;
}

struct Outcome {
  Logits logits;
  StreamStatistics statistics;
  uint64_t weights = 0;
};

// The same models as files large enough for reads past the page cache.
std::vector<std::shared_ptr<const io::Checkpoint>> models_on_disk(const std::string& folder) {
  int files = 0;
  const auto write = [&](const std::shared_ptr<io::ByteSource>& source) {
    std::vector<std::byte> bytes(static_cast<size_t>(source->size()));
    SLUICE_CHECK(source->read_at(0, bytes).has_value());
    const std::string path = fmt::format("{}/{}", folder, files++);
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    auto file = io::open_file_source(path, nullptr, {.file_bytes_min = 0, .read_bytes_min = 4096});
    SLUICE_CHECK(file.has_value());
    return std::move(*file);
  };
  return that_run({test::tiny_llama({.wide = 16}).build(write),
                   test::tiny_moe({.layers = 4, .wide = 16}).build(write),
                   test::tiny_gguf({.wide = 16}).build(write)});
}

// A prompt in chunks, then tokens one by one.
Outcome run(const std::shared_ptr<const io::Checkpoint>& checkpoint, const EngineOptions& options) {
  const Opened opened = open_engine(checkpoint, options);
  Session session = opened.engine->new_session();
  Outcome out{all_logits(*opened.engine, session, random_tokens(40, kVocabulary, 1)), {}, 0};
  for (const uint32_t token : random_tokens(6, kVocabulary, 2)) {
    const auto logits = session.append({&token, 1});
    EXPECT_TRUE(logits.has_value());
    if (logits) out.logits.insert(out.logits.end(), logits->begin(), logits->end());
  }
  out.statistics = opened.engine->statistics();
  out.weights = opened.engine->memory().weights;
  return out;
}

std::vector<std::shared_ptr<const io::Checkpoint>> models() {
  return that_run({test::tiny_llama().build(), test::tiny_moe({.layers = 4}).build(),
                   test::tiny_latent({.layers = 3}).build(),
                   test::tiny_latent({.layers = 2}, "deepseek_v2").build(),
                   test::tiny_latent({.layers = 2}, "deepseek_v32").build(),
                   test::with_blocks(test::tiny_latent(), "self_attn.kv_b_proj.weight").build(),
                   test::tiny_gguf().build()});
}

// The least that weights can do with, by what the refusal says is needed.
bool opens(const std::shared_ptr<const io::Checkpoint>& checkpoint, uint64_t bytes,
           uint64_t window_bytes) {
  return try_open(checkpoint, options_for(bytes, window_bytes)).has_value();
}
uint64_t floor_of(const std::shared_ptr<const io::Checkpoint>& checkpoint, uint64_t most,
                  uint64_t window_bytes) {
  uint64_t low = 0, high = most;
  while (low + 1024 < high) {
    const uint64_t middle = (low + high) / 2;
    (opens(checkpoint, middle, window_bytes) ? high : low) = middle;
  }
  return high;
}

TEST(Streaming, MemoryDoesNotMatter) {
  for (const auto& checkpoint : models()) {
    SCOPED_TRACE(checkpoint->path);
    const Outcome whole = run(checkpoint, options_for(0));
    EXPECT_EQ(whole.statistics.bytes_read, 0u);
    for (const uint64_t window : {uint64_t{4096}, uint64_t{0}}) {
      const uint64_t least = floor_of(checkpoint, whole.weights, window);
      EXPECT_LT(least, whole.weights);
      for (const uint64_t share : {0, 10, 25, 50, 75, 99}) {
        const uint64_t limit = least + (whole.weights - least) * share / 100;
        const Outcome part = run(checkpoint, options_for(limit, window));
        EXPECT_EQ(part.logits, whole.logits) << share << " %";
        EXPECT_LE(part.weights, limit);
        EXPECT_GT(part.statistics.bytes_read, 0u);
      }
    }
  }
}

TEST(Streaming, LateAnswersDoNotMatter) {
  for (const auto& checkpoint : models()) {
    const Outcome whole = run(checkpoint, options_for(0));
    SlowSource::Switches switches;
    switches.slow = true;
    const uint64_t least = floor_of(checkpoint, whole.weights, 8192);
    for (const uint64_t limit : {least, (least + whole.weights) / 2})
      EXPECT_EQ(run(slowed(checkpoint, switches), options_for(limit, 8192)).logits, whole.logits);
  }
}

TEST(Streaming, ChunksAndThreadsDoNotMatter) {
  for (const auto& checkpoint : models()) {
    EngineOptions resident = options_for(0);
    resident.activations = any_activations();
    const Outcome whole = run(checkpoint, resident);
    for (const size_t chunk : {1, 7, 512})
      for (const size_t threads : {1, 3}) {
        EngineOptions options = options_for(floor_of(checkpoint, whole.weights, 4096), 4096);
        options.activations = any_activations();
        options.chunk_tokens = chunk;
        const Opened opened = open_engine(checkpoint, options, threads);
        Session session = opened.engine->new_session();
        const Logits found = all_logits(*opened.engine, session, random_tokens(40, kVocabulary, 1));
        expect_same(found, Logits(whole.logits.begin(),
                                  whole.logits.begin() + static_cast<ptrdiff_t>(found.size())));
      }
  }
}

// Nothing of a step that failed stays, and the next one works when the disk does.
TEST(Streaming, ReadErrorsEndTheStep) {
  for (const auto& checkpoint : models()) {
    const Outcome whole = run(checkpoint, options_for(0));
    SlowSource::Switches switches;
    const uint64_t least = floor_of(checkpoint, whole.weights, 4096);
    const Opened opened = open_engine(slowed(checkpoint, switches), options_for(least, 4096));
    Session session = opened.engine->new_session();
    const Tokens tokens = random_tokens(40, kVocabulary, 1);
    for (const int64_t reads : {0, 1, 5, 17}) {
      switches.reads_left = reads;
      const auto failed = session.append(tokens);
      ASSERT_FALSE(failed.has_value()) << reads;
      EXPECT_EQ(failed.error().code, ErrorCode::kIo);
      EXPECT_THAT(failed.error().message, HasSubstr("cable"));
      EXPECT_EQ(session.size(), 0u);
    }
    switches.reads_left = INT64_MAX;
    EXPECT_EQ(all_logits(*opened.engine, session, tokens),
              Logits(whole.logits.begin(), whole.logits.begin() + 40 * kVocabulary));
  }
}

TEST(Streaming, ReadPathsDoNotMatter) {
  const io::testing::TemporaryFolder folder;
  const bool has_ring = io::make_read_ring(4).has_value();
  for (const auto& checkpoint : models_on_disk(folder.path())) {
    const Outcome whole = run(checkpoint, options_for(0));
    const uint64_t least = floor_of(checkpoint, whole.weights, 65536);
    for (const uint64_t limit : {least, (least + whole.weights) / 2})
      for (const ReadPath path : {ReadPath::kThreads, ReadPath::kRing}) {
        if (path == ReadPath::kRing && !has_ring) continue;
        EngineOptions options = options_for(limit, 65536);
        options.reads = path;
        const Opened opened = open_engine(checkpoint, options);
        EXPECT_EQ(opened.engine->reads_by_ring(), path == ReadPath::kRing);
        const Outcome part = run(checkpoint, options);
        EXPECT_EQ(part.logits, whole.logits) << limit;
        EXPECT_GT(part.statistics.bytes_read, 0u);
        EXPECT_GE(part.statistics.bytes_fetched, part.statistics.bytes_read);
      }
  }
  if (!has_ring) GTEST_SKIP() << "this system has no io_uring; the rest passed";
}

// What was read is read again, into the same places: the engine goes on as if nothing had happened.
TEST(Streaming, ReadsCanBeRepeated) {
  const io::testing::TemporaryFolder folder;
  for (const auto& checkpoint : models_on_disk(folder.path())) {
    const Outcome whole = run(checkpoint, options_for(0));
    const uint64_t least = floor_of(checkpoint, whole.weights, 65536);
    const Opened opened =
        open_engine(checkpoint, options_for((3 * least + whole.weights) / 4, 65536));
    Session session = opened.engine->new_session();
    Logits found;
    for (const uint64_t seed : {1, 2}) {
      const uint64_t begin = opened.engine->statistics().bytes_read;
      opened.engine->record_reads();
      const Logits some =
          all_logits(*opened.engine, session, random_tokens(seed == 1 ? 40 : 6, kVocabulary, seed));
      found.insert(found.end(), some.begin(), some.end());
      opened.engine->stop_recording_reads();
      const uint64_t end = opened.engine->statistics().bytes_read;
      ASSERT_TRUE(opened.engine->replay_reads().has_value());
      const uint64_t again = opened.engine->statistics().bytes_read - end;
      EXPECT_GT(again, 0u);
      // Rows of embeddings are not read ahead.
      EXPECT_LE(again, end - begin + 65536);
    }
    EXPECT_EQ(found, whole.logits);
  }
}

TEST(Streaming, ExpertsMayComeAndGoBetweenSteps) {
  const auto checkpoint = test::tiny_moe({.layers = 4, .wide = 4}).build();
  const Outcome whole = run(checkpoint, options_for(0));
  const uint64_t least = floor_of(checkpoint, whole.weights, 4096);
  const Opened opened = open_engine(checkpoint, options_for((least + whole.weights) / 2, 4096));
  Engine& engine = *opened.engine;
  EXPECT_FALSE(engine.adapt_memory());  // nothing is tight
  Session session = engine.new_session();
  Logits found = all_logits(engine, session, random_tokens(40, kVocabulary, 1));
  const uint64_t most = engine.resize_experts(UINT64_MAX);
  uint64_t share = 0;
  for (const uint32_t token : random_tokens(6, kVocabulary, 2)) {
    const uint64_t taken = engine.resize_experts(most * (share = (share + 3) % 5) / 5);
    EXPECT_GT(taken, 0u);
    EXPECT_LE(taken, most);
    const auto logits = session.append({&token, 1});
    ASSERT_TRUE(logits.has_value());
    found.insert(found.end(), logits->begin(), logits->end());
  }
  EXPECT_EQ(found, whole.logits);
}

// Guesses at the next layer's experts change what is read when, and nothing else.
TEST(Streaming, GuessesDoNotMatter) {
  const auto checkpoint = test::tiny_moe({.layers = 4, .wide = 4}).build();
  const Outcome whole = run(checkpoint, options_for(0));
  const uint64_t least = floor_of(checkpoint, whole.weights, 4096);
  SlowSource::Switches switches;
  for (const bool slow : {false, true})
    for (const uint64_t share : {0, 20, 50, 90}) {
      switches.slow = slow;
      const EngineOptions options =
          options_for(least + (whole.weights - least) * share / 100, 4096);
      const Outcome part = run(slowed(checkpoint, switches), options);
      EXPECT_EQ(part.logits, whole.logits) << share;
      EXPECT_LE(part.statistics.guesses_right, part.statistics.guesses);
      if (share == 0) {
        EXPECT_GT(part.statistics.guesses_right, 0u);
      }
      EngineOptions without = options;
      without.lookahead = false;
      const Outcome patient = run(slowed(checkpoint, switches), without);
      EXPECT_EQ(patient.logits, whole.logits);
      EXPECT_EQ(patient.statistics.guesses, 0u);
    }
  // A guess that cannot be read is nobody's error until it is needed.
  const EngineOptions options = options_for(least, 4096);
  const Opened opened = open_engine(slowed(checkpoint, switches), options);
  Session session = opened.engine->new_session();
  const Tokens tokens = random_tokens(6, kVocabulary, 1);
  for (const int64_t reads : {30, 60, 90}) {
    session.rewind(0);
    switches.reads_left = reads;
    for (const uint32_t token : tokens)
      if (!session.append({&token, 1})) break;
  }
  switches.reads_left = INT64_MAX;
  session.rewind(0);
  EXPECT_EQ(all_logits(*opened.engine, session, tokens),
            Logits(whole.logits.begin(), whole.logits.begin() + 6 * kVocabulary));
}

// The next run begins with the experts that this one used most.
TEST(Streaming, ARunBeginsWhereTheLastOneEnded) {
  const auto checkpoint = test::tiny_moe({.layers = 4, .wide = 4}).build();
  const uint64_t whole = run(checkpoint, options_for(0)).weights;
  const EngineOptions options = options_for(whole / 4 * 3);
  const Opened first = open_engine(checkpoint, options);
  Session session = first.engine->new_session();
  for (int i = 0; i < 20; ++i) {
    const uint32_t token = 7;
    ASSERT_TRUE(session.append({&token, 1}).has_value());
  }
  const ExpertShares shares = first.engine->expert_shares();
  ASSERT_EQ(shares.size(), 4u);
  const Opened second = open_engine(checkpoint, options);
  ASSERT_TRUE(second.engine->start_from(shares).has_value());
  Session again = second.engine->new_session();
  const uint32_t token = 7;
  ASSERT_TRUE(again.append({&token, 1}).has_value());
  const StreamStatistics found = second.engine->statistics();
  EXPECT_EQ(found.experts_there, found.experts_requested);
  EXPECT_FALSE(second.engine->start_from({{0.5}}).has_value());
}

TEST(Streaming, RefusesBelowTheFloor) {
  const auto opened = try_open(test::tiny_moe().build(), options_for(1000));
  ASSERT_FALSE(opened.has_value());
  EXPECT_EQ(opened.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(opened.error().message, HasSubstr("weights may take only"));
}

// Experts that were used are there for the next token; each of a prompt's is read once.
TEST(Streaming, ExpertsAreKept) {
  const auto checkpoint = test::tiny_moe({.layers = 4}).build();
  const uint64_t whole = run(checkpoint, options_for(0)).weights;
  const Opened opened = open_engine(checkpoint, options_for(whole - 20'000));
  Session session = opened.engine->new_session();
  ASSERT_TRUE(session.append(random_tokens(40, kVocabulary, 1)).has_value());
  const StreamStatistics prompt = opened.engine->statistics();
  EXPECT_LE(prompt.experts_requested, 16u);  // four of four layers, each once
  EXPECT_GT(prompt.experts_requested, 8u);
  EXPECT_EQ(prompt.experts_there, 0u);
  for (const uint32_t token : random_tokens(8, kVocabulary, 2))
    ASSERT_TRUE(session.append({&token, 1}).has_value());
  const StreamStatistics end = opened.engine->statistics();
  EXPECT_EQ(end.experts_requested - prompt.experts_requested, 8u * 4 * 2);
  EXPECT_GT(end.experts_there * 2, end.experts_requested);
}

}  // namespace
}  // namespace sluice::runtime
