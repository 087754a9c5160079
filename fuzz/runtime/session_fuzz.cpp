// Session files. Behind the input comes the digest that fits it, so that what lies behind that
// check is reached; the input's last byte says whether the digest is wrong all the same. Thirty-two
// zeros stand for the model's own digest. What is loaded can be gone on with; what is refused
// leaves the session as it was.
#include <algorithm>
#include <string>

#include "allocation_bound.h"
#include "base/log.h"
#include "io/checkpoint.h"
#include "runtime/engine.h"
#include "support/models.h"

namespace {

using namespace sluice;

constexpr uint32_t kFirst[] = {3, 1, 4};

struct Fixture {
  Fixture() {
    runtime::EngineOptions options;
    options.context = 8;
    options.sessions_max = 2;
    NullLog log;
    NullProgress progress;
    auto opened = runtime::Engine::open(test::tiny_llama({.vocab = 16, .layers = 1}).build(),
                                        options, pool, log, progress);
    SLUICE_CHECK(opened.has_value());
    engine = std::move(*opened);
  }
  ThreadPool pool{1};
  std::shared_ptr<runtime::Engine> engine;
};

Fixture& fixture() {
  static Fixture fixture;
  return fixture;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  runtime::Session session = fixture().engine->new_session();
  SLUICE_CHECK(session.append(kFirst).has_value());
  const fuzz::AllocationBound bound(size);
  std::string content(reinterpret_cast<const char*>(data), size - 1);
  const std::string model = fixture().engine->info().identity.hex();
  if (const size_t at = content.find(std::string(model.size(), '0')); at != std::string::npos)
    content.replace(at, model.size(), model);
  Hasher hasher;
  hasher.update(content);
  std::string digest = hasher.finish().hex();
  const bool damaged = data[size - 1] % 8 == 7;
  if (damaged) digest[data[size - 1] / 8] ^= 1;  // one of 32 digits
  content += digest;
  const auto bytes = std::as_bytes(std::span(content));
  const Status loaded = session.load(*io::memory_source("fuzz", {bytes.begin(), bytes.end()}));
  if (!loaded) {
    SLUICE_CHECK(!loaded.error().message.empty());
    SLUICE_CHECK(std::ranges::equal(session.tokens(), kFirst));
    return 0;
  }
  SLUICE_CHECK(!damaged && session.size() <= session.context());
  // Keys may hold any bits: what comes of them are logits, or a sentence about numbers.
  if (session.size() == session.context()) session.rewind(session.size() - 1);
  const uint32_t next = 2;
  const auto logits = session.append({&next, 1});
  if (!logits) SLUICE_CHECK(logits.error().code == ErrorCode::kCorrupt);
  return 0;
}
