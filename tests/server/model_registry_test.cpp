// Models that come when they are asked for and leave when there is no room: who leaves, who waits,
// and what becomes of those who wait.
#include "server/model_registry.h"

#include <gmock/gmock.h>

#include <chrono>
#include <map>
#include <thread>

#include "runtime/engines.h"
#include "server/words.h"

namespace sluice::server {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Four models, of which room of them fit into memory at a time.
class ModelRegistryTest : public testing::Test {
 protected:
  explicit ModelRegistryTest(size_t waiting_max = 100)
      : opened_(runtime::open_engine(test::tiny_llama().build(), options())),
        registry_(
            {card("a"), card("b"), card("c"), card("d")},
            [this](size_t index, uint64_t held_bytes) { return load(index, held_bytes); },
            waiting_max) {
    registry_.attach([this](std::function<void()> function) {
      MutexLock lock(mutex_);
      posted_.push_back(std::move(function));
    });
  }
  ~ModelRegistryTest() override { registry_.stop(); }

  static runtime::EngineOptions options() {
    runtime::EngineOptions options = runtime::f32_options();
    options.sessions_max = 100;
    return options;
  }
  static ModelCard card(const std::string& name) {
    return {.name = name, .aliases = {name + "2"}, .identity = {}, .report = {}};
  }

  // On the registry's thread.
  Result<ModelLease> load(size_t index, uint64_t held_bytes) {
    MutexLock lock(mutex_);
    ++attempts_;
    if (index == broken_) return fail(ErrorCode::kCorrupt, "weights are damaged");
    if (held_bytes > 0 && there_ >= room_)
      return fail(ErrorCode::kExhausted, "it does not fit beside others");
    chat::ChatModel model{opened_.engine, words(), std::nullopt, {}, {}};
    ++there_;
    return ModelLease(new ServedModel(std::move(model), {}, ops_, {}), [this](ServedModel* left) {
      delete left;
      MutexLock held(mutex_);
      --there_;
    });
  }
  // Whoever asks for this model, by name; what came of it is in seen_.
  uint64_t ask(const std::string& name) {
    const auto ticket = registry_.await(*registry_.find(name), [this, name](auto model) {
      seen_.push_back(model ? name : name + ": " + model.error().message);
      if (model) leases_[name] = *model;
    });
    EXPECT_TRUE(ticket.has_value());
    return ticket.value_or(0);
  }
  // What the loop would do, until nothing is left to do.
  void pump() {
    for (int idle = 0; idle < 20; ++idle) {
      std::vector<std::function<void()>> functions;
      {
        MutexLock lock(mutex_);
        functions.swap(posted_);
      }
      for (const auto& function : functions) function(), idle = 0;
      registry_.advance();
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  std::vector<size_t> loaded() { return registry_.state().loaded; }

  runtime::Opened opened_;
  const kernels::LayerOps& ops_ = kernels::layer_ops(test::widest_simd());
  std::optional<size_t> broken_;
  size_t room_ = 2;
  std::vector<std::string> seen_;
  std::map<std::string, ModelLease> leases_;
  Mutex mutex_;
  size_t there_ GUARDED_BY(mutex_) = 0, attempts_ GUARDED_BY(mutex_) = 0;
  std::vector<std::function<void()>> posted_ GUARDED_BY(mutex_);
  ModelRegistry registry_;
};

TEST_F(ModelRegistryTest, NamesAndAliases) {
  EXPECT_EQ(registry_.find("c"), 2u);
  EXPECT_EQ(registry_.find("c2"), 2u);
  EXPECT_EQ(registry_.find(""), 0u);
  EXPECT_EQ(registry_.find("e"), std::nullopt);
  EXPECT_EQ(registry_.lease(0), nullptr);
}

TEST_F(ModelRegistryTest, TheLeastRecentlyUsedLeaves) {
  for (const char* name : {"a", "b"}) {
    ask(name);
    pump();
  }
  EXPECT_THAT(loaded(), ElementsAre(0, 1));
  leases_.clear();
  EXPECT_NE(registry_.lease(0), nullptr);  // so that b was left alone for longer
  ask("c");
  pump();
  EXPECT_THAT(loaded(), ElementsAre(0, 2));
  EXPECT_THAT(seen_, ElementsAre("a", "b", "c"));
  EXPECT_EQ(registry_.state().loads, 3u);
}

TEST_F(ModelRegistryTest, WhoeverHoldsAModelKeepsIt) {
  room_ = 1;
  ask("a");
  pump();
  ask("b");
  pump();
  EXPECT_THAT(loaded(), ElementsAre(0));
  EXPECT_EQ(registry_.lease(0), nullptr);  // it is to leave
  ask("a");                                // behind b
  pump();
  EXPECT_THAT(seen_, ElementsAre("a"));
  EXPECT_EQ(registry_.state().scheduler.queued, 2u);
  leases_.erase("a");
  pump();
  EXPECT_THAT(loaded(), ElementsAre(1));
  EXPECT_THAT(seen_, ElementsAre("a", "b"));
  leases_.clear();
  pump();
  EXPECT_THAT(loaded(), ElementsAre(0));
  EXPECT_THAT(seen_, ElementsAre("a", "b", "a"));
}

TEST_F(ModelRegistryTest, NobodyLeavesForThoseWhoHaveGone) {
  room_ = 1;
  ask("a");
  pump();
  const uint64_t ticket = ask("b");
  pump();
  EXPECT_EQ(registry_.lease(0), nullptr);
  registry_.forget(ticket);
  pump();
  EXPECT_NE(registry_.lease(0), nullptr);
  EXPECT_THAT(seen_, ElementsAre("a"));
  EXPECT_EQ(registry_.state().loads, 1u);
}

TEST_F(ModelRegistryTest, FailuresAreTold) {
  ask("a");
  pump();
  broken_ = 1;
  ask("b");
  ask("c");
  pump();
  ASSERT_EQ(seen_.size(), 3u);
  EXPECT_THAT(seen_[1], HasSubstr("b: the model b could not be loaded: weights are damaged"));
  EXPECT_EQ(seen_[2], "c");
  EXPECT_THAT(loaded(), ElementsAre(0, 2));
  broken_.reset();
  leases_.clear();
  ask("b");
  pump();
  EXPECT_EQ(seen_.back(), "b");
}

TEST_F(ModelRegistryTest, EverybodyLeavesForOneThatNeedsAll) {
  for (const char* name : {"a", "b"}) {
    ask(name);
    pump();
  }
  leases_.clear();
  room_ = 0;
  ask("d");
  pump();
  EXPECT_THAT(loaded(), ElementsAre(3));
}

TEST_F(ModelRegistryTest, AStopRefusesThoseWhoWait) {
  room_ = 1;
  ask("a");
  pump();
  ask("b");
  pump();
  registry_.drain();
  EXPECT_THAT(seen_, ElementsAre("a", "b: the server is stopping"));
  EXPECT_EQ(registry_.await(1, [](auto) {}).error().code, ErrorCode::kCancelled);
}

class CrowdedRegistryTest : public ModelRegistryTest {
 protected:
  CrowdedRegistryTest() : ModelRegistryTest(2) {}
};

TEST_F(CrowdedRegistryTest, TooManyWait) {
  ask("a");
  ask("b");
  EXPECT_EQ(registry_.await(1, [](auto) {}).error().code, ErrorCode::kExhausted);
  pump();
  EXPECT_THAT(seen_, ElementsAre("a", "b"));
}

// Takes turns with itself on two threads; fails where a turn is taken while another is held.
TEST(Turns, OneAtATime) {
  Turns turns;
  int held = 0, taken = 0;
  const auto take = [&] {
    for (int i = 0; i < 1000; ++i) {
      const Turn turn(&turns);
      EXPECT_EQ(++held, 1);
      ++taken;
      --held;
    }
  };
  {
    Thread other(take);
    take();
  }
  EXPECT_EQ(taken, 2000);
}

}  // namespace
}  // namespace sluice::server
