// The engine under analyze, convert and verify: every block once, modules finished in order, memory
// bounded, and every error returned without a thread left waiting.
#include "stream/stream.h"

#include <gmock/gmock.h>

#include <chrono>
#include <set>
#include <thread>

#include "io/fault.h"
#include "numerics/block_codec.h"
#include "support/models.h"

namespace sluice::stream {
namespace {

using numerics::DType;
using ::testing::HasSubstr;

// Tensors of many shapes: several blocks, one block, vectors, none at all, 3-D, and integers.
test::ModelBuilder sample_model() {
  test::ModelBuilder model(Json::object());
  test::Random random(3);
  const auto add = [&](const std::string& name, DType dtype, numerics::Shape shape) {
    const auto values = random.normals(*numerics::element_count(shape), 1.0f);
    model.add(name, dtype, std::move(shape), values);
  };
  add("a.empty", DType::kBF16, {0, 64});
  add("b.many_blocks", DType::kBF16, {4500, 128});
  add("c.norm", DType::kF32, {128});
  add("d.empty", DType::kBF16, {0});
  add("e.experts", DType::kF16, {3, 2100, 128});
  add("f.one_block", DType::kBF16, {10, 64});
  model.add_bytes("g.integers", DType::kI32, {5, 7}, std::vector<std::byte>(140, std::byte{9}));
  add("h.rows", DType::kF32, {3, 200'000});
  add("i.empty", DType::kF32, {4, 0});
  return model;
}

std::vector<uint32_t> all_of(const families::ModelMap& map) {
  std::vector<uint32_t> modules(map.modules.size());
  for (uint32_t i = 0; i < modules.size(); ++i) modules[i] = i;
  return modules;
}

// What one block showed to a visitor.
struct Seen {
  uint64_t rows;
  std::vector<std::byte> source;
  std::vector<float> values;
};

// Records everything, and checks the order of calls.
class Recorder : public Visitor {
 public:
  explicit Recorder(unsigned workers) : busy_(workers) {}

  Status visit(const RowBlock& block, unsigned worker) override {
    EXPECT_LT(worker, busy_.size());
    EXPECT_FALSE(busy_[worker].exchange(true)) << "two calls for one worker at a time";
    {
      MutexLock lock(mutex_);
      EXPECT_FALSE(finished_set_.contains(block.block.module)) << "visited after it was finished";
      const bool fresh = seen_
                             .emplace(std::pair(block.block.module, block.block.first_row),
                                      Seen{block.block.rows,
                                           {block.source.begin(), block.source.end()},
                                           {block.values.begin(), block.values.end()}})
                             .second;
      EXPECT_TRUE(fresh) << "a block was shown twice";
      ++visits_;
    }
    const Status status = on_visit ? on_visit(block) : Status();
    busy_[worker] = false;
    return status;
  }

  Status finish_module(uint32_t module) override {
    EXPECT_EQ(finishing_.fetch_add(1), 0) << "finish_module was called concurrently";
    {
      MutexLock lock(mutex_);
      finished_.push_back(module);
      EXPECT_TRUE(finished_set_.insert(module).second) << "finished twice";
    }
    const Status status = on_finish ? on_finish(module) : Status();
    finishing_.fetch_sub(1);
    return status;
  }

  std::function<Status(const RowBlock&)> on_visit;
  std::function<Status(uint32_t)> on_finish;
  std::map<std::pair<uint32_t, uint64_t>, Seen> seen_;  // by module and first row
  std::vector<uint32_t> finished_;
  size_t visits_ = 0;

 private:
  Mutex mutex_;
  std::set<uint32_t> finished_set_;
  std::vector<std::atomic<bool>> busy_;
  std::atomic<int> finishing_{0};
};

StreamOptions options_of(unsigned workers) {
  StreamOptions options;
  options.workers = workers;
  options.decode.elements = numerics::decode_elements;
  return options;
}

TEST(Stream, EveryBlockOnceAndModulesInOrder) {
  const auto checkpoint = sample_model().build();
  const auto map = test::plain_map(*checkpoint, DType::kBF16);
  const auto modules = all_of(map);
  for (unsigned workers = 1; workers <= 8; ++workers) {
    SCOPED_TRACE(workers);
    Recorder recorder(workers);
    ASSERT_TRUE(stream_modules(*checkpoint, map, modules, recorder, options_of(workers)));
    EXPECT_EQ(recorder.finished_, modules);
    for (const uint32_t index : modules) {
      const families::OutputModule& module = map.modules[index];
      const io::StoredTensor& tensor = checkpoint->tensors[index];
      std::vector<std::byte> stored(tensor.bytes);
      ASSERT_TRUE(checkpoint->files[0]->read_at(tensor.offset, stored));
      const bool decodes = dtype_info(tensor.info.dtype).is_float;
      std::vector<float> decoded(decodes ? module.elements() : 0);
      if (decodes) numerics::decode_elements(tensor.info.dtype, stored, decoded);
      std::vector<std::byte> source;
      std::vector<float> values;
      uint64_t rows = 0;
      for (auto it = recorder.seen_.lower_bound({index, 0});
           it != recorder.seen_.end() && it->first.first == index; ++it) {
        EXPECT_EQ(it->first.second, rows);
        rows += it->second.rows;
        source.insert(source.end(), it->second.source.begin(), it->second.source.end());
        values.insert(values.end(), it->second.values.begin(), it->second.values.end());
      }
      EXPECT_EQ(rows, module.elements() == 0 ? 0 : module.rows());
      EXPECT_EQ(source, stored);
      EXPECT_EQ(values, decoded);
    }
  }
}

TEST(Stream, OneReaderAndOneWorkerSeeBlocksInOrder) {
  const auto checkpoint = sample_model().build();
  const auto map = test::plain_map(*checkpoint, DType::kBF16);
  Recorder recorder(1);
  std::vector<std::pair<uint32_t, uint32_t>> order;
  recorder.on_visit = [&](const RowBlock& block) -> Status {
    order.emplace_back(block.block.module, block.block.index);
    return {};
  };
  StreamOptions options = options_of(1);
  options.readers = 1;
  ASSERT_TRUE(stream_modules(*checkpoint, map, all_of(map), recorder, options));
  EXPECT_GT(order.size(), 10u);
  EXPECT_TRUE(std::ranges::is_sorted(order));
}

TEST(Stream, OnlyTheModulesAskedForInTheOrderGiven) {
  const auto checkpoint = sample_model().build();
  const auto map = test::plain_map(*checkpoint, DType::kBF16);
  const std::vector<uint32_t> some = {7, 0, 4, 2};
  Recorder recorder(3);
  ASSERT_TRUE(stream_modules(*checkpoint, map, some, recorder, options_of(3)));
  EXPECT_EQ(recorder.finished_, some);
  for (const auto& [key, seen] : recorder.seen_) EXPECT_THAT(some, ::testing::Contains(key.first));

  Recorder nothing(3);
  ASSERT_TRUE(stream_modules(*checkpoint, map, {}, nothing, options_of(3)));
  EXPECT_EQ(nothing.visits_, 0u);
}

TEST(Stream, RowsFollowTheRecipe) {
  // Two halves of one tensor swapped, and heads of four rows uninterleaved.
  test::ModelBuilder model(Json::object());
  std::vector<float> values(8 * 2);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i / 2);
  model.add("w", DType::kF32, {8, 2}, values);
  const auto checkpoint = model.build();
  families::ModelMap map = test::plain_map(*checkpoint, DType::kF32);
  const auto rows_read = [&] {
    Recorder recorder(2);
    const std::vector<uint32_t> first = {0};
    EXPECT_TRUE(stream_modules(*checkpoint, map, first, recorder, options_of(2)));
    std::vector<float> rows;
    for (size_t i = 0; i < 16; i += 2) rows.push_back(recorder.seen_.at({0, 0}).values[i]);
    return rows;
  };
  map.modules[0].recipe.sources = {{.tensor = 0, .first_row = 4, .rows = 4},
                                   {.tensor = 0, .first_row = 0, .rows = 4}};
  EXPECT_THAT(rows_read(), ::testing::ElementsAre(4, 5, 6, 7, 0, 1, 2, 3));
  map.modules[0].recipe.sources = {
      {.tensor = 0, .rows = 8, .order = families::RowOrder::kUninterleaveHeads, .head_rows = 4}};
  EXPECT_THAT(rows_read(), ::testing::ElementsAre(0, 2, 1, 3, 4, 6, 5, 7));
}

TEST(Stream, CompanionsOfEveryBlockComeWithIt) {
  class Accompanied : public Recorder {
   public:
    Accompanied(unsigned workers, const io::Checkpoint& from) : Recorder(workers), from_(from) {}
    // The first bytes of the two tensors before and after, in that order.
    void list_companions(const families::OutputModule&, const Block& block,
                         std::vector<ByteRange>& ranges) const override {
      if (block.module != 4) return;
      for (const uint32_t other : {3u, 1u, 7u}) {
        const io::StoredTensor& tensor = from_.tensors[other];
        ranges.push_back({from_.files[0].get(), tensor.offset,
                          std::min<uint64_t>(tensor.bytes, 5 + block.index), tensor.info.name});
      }
    }

   private:
    const io::Checkpoint& from_;
  };
  const auto checkpoint = sample_model().build();
  const auto map = test::plain_map(*checkpoint, DType::kBF16);
  Accompanied recorder(3, *checkpoint);
  std::atomic<int> accompanied{0};
  recorder.on_visit = [&](const RowBlock& block) -> Status {
    if (block.block.module != 4) {
      EXPECT_TRUE(block.companions.empty());
      return {};
    }
    ++accompanied;
    EXPECT_EQ(block.companions.size(), 3u);
    EXPECT_TRUE(block.companions[0].empty());
    for (const auto& [place, tensor] : {std::pair(1, 1), std::pair(2, 7)}) {
      std::vector<std::byte> expected(5 + block.block.index);
      EXPECT_TRUE(checkpoint->files[0]->read_at(checkpoint->tensors[tensor].offset, expected));
      EXPECT_TRUE(std::ranges::equal(block.companions[place], expected));
    }
    return {};
  };
  ASSERT_TRUE(stream_modules(*checkpoint, map, all_of(map), recorder, options_of(3)));
  EXPECT_EQ(accompanied, 6);
}

TEST(Stream, ValuesAreDecodedOnlyWhenWanted) {
  class Uninterested : public Recorder {
   public:
    using Recorder::Recorder;
    bool wants_values(const families::OutputModule& module) const override {
      return module.path == "c.norm";
    }
  };
  const auto checkpoint = sample_model().build();
  const auto map = test::plain_map(*checkpoint, DType::kBF16);
  Uninterested recorder(2);
  ASSERT_TRUE(stream_modules(*checkpoint, map, all_of(map), recorder, options_of(2)));
  for (const auto& [key, seen] : recorder.seen_)
    EXPECT_EQ(seen.values.empty(), map.modules[key.first].path != "c.norm");
}

// Counts bytes that were read and whose blocks no visitor has let go of.
class CountingSource : public io::ByteSource {
 public:
  CountingSource(std::shared_ptr<io::ByteSource> base, std::atomic<int64_t>& live,
                 std::atomic<int64_t>& live_max)
      : base_(std::move(base)), live_(live), live_max_(live_max) {}
  Status read_at(uint64_t offset, std::span<std::byte> out) const override {
    const auto bytes = static_cast<int64_t>(out.size());
    const int64_t now = live_.fetch_add(bytes) + bytes;
    int64_t before = live_max_.load();
    while (before < now && !live_max_.compare_exchange_weak(before, now)) {
    }
    return base_->read_at(offset, out);
  }
  uint64_t size() const override { return base_->size(); }
  const std::string& label() const override { return base_->label(); }

 private:
  const std::shared_ptr<io::ByteSource> base_;
  std::atomic<int64_t>&live_, &live_max_;
};

TEST(Stream, ReadsOnlySoFarAhead) {
  test::ModelBuilder model(Json::object());
  model.add("w", DType::kBF16, {64 * 2048, 128}, std::vector<float>(64 * 2048 * 128, 0.5f));
  for (const unsigned workers : {1u, 2u, 5u}) {
    SCOPED_TRACE(workers);
    std::atomic<int64_t> live{0}, live_max{0};
    const auto checkpoint = model.build([&](std::shared_ptr<io::ByteSource> base) {
      return std::make_shared<CountingSource>(std::move(base), live, live_max);
    });
    const auto map = test::plain_map(*checkpoint, DType::kBF16);
    Recorder recorder(workers);
    recorder.on_visit = [&](const RowBlock& block) -> Status {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));  // slower than reading
      live -= static_cast<int64_t>(block.source.size());
      return {};
    };
    ASSERT_TRUE(stream_modules(*checkpoint, map, all_of(map), recorder, options_of(workers)));
    EXPECT_EQ(recorder.visits_, 64u);
    EXPECT_LE(live_max, (workers + 2 * reader_count(workers)) * kUnitBytes);
    EXPECT_GT(live_max, kUnitBytes) << "nothing was read ahead";
  }
}

TEST(Stream, ASlowFirstModuleHoldsBackNobodyButTheOrder) {
  const auto checkpoint = sample_model().build();
  const auto map = test::plain_map(*checkpoint, DType::kBF16);
  Recorder recorder(4);
  recorder.on_visit = [](const RowBlock& block) -> Status {
    if (block.block.module == 1 && block.block.index == 0)
      std::this_thread::sleep_for(std::chrono::milliseconds(60));
    return {};
  };
  ASSERT_TRUE(stream_modules(*checkpoint, map, all_of(map), recorder, options_of(4)));
  EXPECT_EQ(recorder.finished_, all_of(map));
}

TEST(Stream, ProgressCountsSourceBytes) {
  class Counter : public NullProgress {
   public:
    void advance(uint64_t bytes) override { total += bytes; }
    std::atomic<uint64_t> total{0};
  };
  const auto checkpoint = sample_model().build();
  const auto map = test::plain_map(*checkpoint, DType::kBF16);
  Counter counter;
  Recorder recorder(3);
  StreamOptions options = options_of(3);
  options.progress = &counter;
  ASSERT_TRUE(stream_modules(*checkpoint, map, all_of(map), recorder, options));
  EXPECT_EQ(counter.total, source_bytes(*checkpoint, map, all_of(map)));
}

TEST(Stream, EveryFailingReadIsReturned) {
  const auto model = sample_model();
  for (const unsigned workers : {1u, 2u, 8u}) {
    for (uint64_t at = 1;; ++at) {
      SCOPED_TRACE(fmt::format("{} workers, read {}", workers, at));
      io::FaultInjector injector({.at = at});
      const auto checkpoint = model.build([&](std::shared_ptr<io::ByteSource> base) {
        return io::faulty_source(std::move(base), injector);
      });
      const auto map = test::plain_map(*checkpoint, DType::kBF16);
      Recorder recorder(workers);
      const Status status =
          stream_modules(*checkpoint, map, all_of(map), recorder, options_of(workers));
      if (!injector.triggered()) {
        EXPECT_TRUE(status);
        break;
      }
      ASSERT_FALSE(status);
      EXPECT_EQ(status.error().code, ErrorCode::kIo);
      EXPECT_THAT(status.error().message, HasSubstr("tensor "));
    }
  }
}

TEST(Stream, EveryFailingVisitIsReturned) {
  const auto checkpoint = sample_model().build();
  const auto map = test::plain_map(*checkpoint, DType::kBF16);
  for (const unsigned workers : {1u, 2u, 8u}) {
    for (int at = 1;; ++at) {
      SCOPED_TRACE(fmt::format("{} workers, visit {}", workers, at));
      std::atomic<int> visits{0};
      Recorder recorder(workers);
      recorder.on_visit = [&](const RowBlock&) -> Status {
        if (++visits == at) return fail(ErrorCode::kCorrupt, "visit {}", at);
        return {};
      };
      const Status status =
          stream_modules(*checkpoint, map, all_of(map), recorder, options_of(workers));
      if (visits < at) {
        EXPECT_TRUE(status);
        break;
      }
      ASSERT_FALSE(status);
      EXPECT_EQ(status.error().message, fmt::format("visit {}", at));
    }
  }
}

// After a failure no module is finished any more: its visitor may have lost the module's state.
TEST(Stream, EveryFailingFinishIsReturnedAndTheLast) {
  const auto checkpoint = sample_model().build();
  const auto map = test::plain_map(*checkpoint, DType::kBF16);
  for (const unsigned workers : {1u, 2u, 8u}) {
    for (uint32_t bad = 0; bad < map.modules.size(); ++bad) {
      SCOPED_TRACE(fmt::format("{} workers, module {}", workers, bad));
      Recorder recorder(workers);
      recorder.on_finish = [&](uint32_t module) -> Status {
        if (module == bad) return fail(ErrorCode::kExhausted, "module {}", module);
        return {};
      };
      const Status status =
          stream_modules(*checkpoint, map, all_of(map), recorder, options_of(workers));
      ASSERT_FALSE(status);
      EXPECT_EQ(status.error().code, ErrorCode::kExhausted);
      EXPECT_EQ(status.error().message, fmt::format("module {}", bad));
      ASSERT_FALSE(recorder.finished_.empty());
      EXPECT_EQ(recorder.finished_.back(), bad);
    }
  }
}

TEST(Stream, CancelledAtEveryBlock) {
  const auto checkpoint = sample_model().build();
  const auto map = test::plain_map(*checkpoint, DType::kBF16);
  for (const unsigned workers : {1u, 3u}) {
    for (int at = 0; at < 14; ++at) {
      SCOPED_TRACE(fmt::format("{} workers, block {}", workers, at));
      CancelToken cancel;
      if (at == 0) cancel.cancel();
      std::atomic<int> visits{0};
      Recorder recorder(workers);
      recorder.on_visit = [&](const RowBlock&) -> Status {
        if (++visits == at) cancel.cancel();
        return {};
      };
      StreamOptions options = options_of(workers);
      options.cancel = &cancel;
      const Status status = stream_modules(*checkpoint, map, all_of(map), recorder, options);
      // Blocks that were read already are still worth visiting; a late cancel changes nothing.
      if (status) {
        EXPECT_EQ(recorder.finished_, all_of(map));
      } else {
        EXPECT_EQ(status.error().code, ErrorCode::kCancelled);
        EXPECT_LT(recorder.finished_.size(), map.modules.size());
      }
      if (at == 0) {
        EXPECT_EQ(visits, 0);
      }
    }
  }
}

TEST(Stream, RefusesSourcesOfTwoTypesInOneModule) {
  const auto checkpoint = sample_model().build();
  families::ModelMap map = test::plain_map(*checkpoint, DType::kBF16);
  families::OutputModule& module = map.modules[5];  // f.one_block, BF16
  module.shape = {20, 64};
  module.recipe.sources.push_back({.tensor = 4, .rows = 10});  // e.experts, F16
  Recorder recorder(1);
  const Status status = stream_modules(*checkpoint, map, all_of(map), recorder, options_of(1));
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, HasSubstr("e.experts"));
  EXPECT_EQ(recorder.visits_, 0u);
}

}  // namespace
}  // namespace sluice::stream
