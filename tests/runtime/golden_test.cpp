// Trained models against logits computed in f64 and the text they continue with. Skips without the
// real-input folder.
#include <gmock/gmock.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "runtime/engines.h"

namespace sluice::runtime {
namespace {

namespace fs = std::filesystem;

// Of the largest logit: f32 against f64 through a few layers.
constexpr double kRelativeError = 2e-5;

std::string read(const fs::path& path) {
  std::stringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

Logits read_floats(const fs::path& path) {
  const std::string bytes = read(path);
  Logits values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

void expect_close(std::span<const float> found, std::span<const float> expected) {
  ASSERT_EQ(found.size(), expected.size());
  double largest = 0, difference = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    largest = std::max<double>(largest, std::abs(expected[i]));
    difference = std::max<double>(difference, std::abs(double{found[i]} - expected[i]));
  }
  EXPECT_LE(difference, kRelativeError * largest);
}

Tokens greedy(Session& session, const Tokens& prompt, size_t count) {
  Tokens out;
  auto logits = session.append(prompt);
  while (logits && out.size() < count) {
    const auto best = std::ranges::max_element(*logits);
    out.push_back(static_cast<uint32_t>(best - logits->begin()));
    if (out.size() < count) logits = session.append(std::span(&out.back(), 1));
  }
  EXPECT_TRUE(logits.has_value());
  return out;
}

// A sentencepiece vocabulary's text: spaces are U+2581, bytes <0x0A>.
std::string text_of(const Engine& engine, const Tokens& tokens) {
  const auto file = engine.sidecar("tokenizer.json");
  SLUICE_CHECK(file.has_value());
  const auto json = parse_json(*file, "tokenizer.json");
  SLUICE_CHECK(json.has_value());
  std::map<uint32_t, std::string> pieces;
  for (const auto& [piece, id] : (*json)["model"]["vocab"].items()) pieces[id] = piece;
  std::string text;
  for (const uint32_t token : tokens) {
    std::string piece = pieces[token];
    if (piece.starts_with("<0x"))
      piece = static_cast<char>(std::stoi(piece.substr(3), nullptr, 16));
    for (size_t at; (at = piece.find("\u2581")) != std::string::npos;) piece.replace(at, 3, " ");
    text += piece;
  }
  return text.substr(text.starts_with(' ') ? 1 : 0);
}

class Golden : public testing::Test {
 protected:
  void SetUp() override {
    const char* folder = std::getenv("SLUICE_REAL_INPUTS");
    if (folder == nullptr) GTEST_SKIP() << "SLUICE_REAL_INPUTS is not set";
    models_ = fs::path(folder) / "models";
    if (!fs::exists(models_)) GTEST_SKIP() << models_ << " is missing";
  }
  static Opened open(const fs::path& path) {
    auto checkpoint = io::open_checkpoint(path.string());
    SLUICE_CHECK(checkpoint.has_value());
    EngineOptions options = f32_options();
    options.context = 512;
    return open_engine(*checkpoint, options);
  }
  static Json golden(const fs::path& folder) {
    const auto json = parse_json(read(folder / "golden/golden.json"), "golden.json");
    SLUICE_CHECK(json.has_value());
    return *json;
  }
  fs::path models_;
};

TEST_F(Golden, StoriesLogits) {
  const fs::path folder = models_ / "stories260K";
  const auto ids = golden(folder)["ids"].get<Tokens>();
  const Logits expected = read_floats(folder / "golden/logits.f32");
  for (const char* source : {"hf", "gguf/stories260K-f32.gguf"}) {
    SCOPED_TRACE(source);
    const Opened opened = open(folder / source);
    Session session = opened.engine->new_session();
    expect_close(all_logits(*opened.engine, session, ids), expected);
  }
}

TEST_F(Golden, StoriesGreedyText) {
  const fs::path folder = models_ / "stories260K";
  const std::string expected = read(folder / "golden/greedy_from_bos.txt");
  for (const char* source : {"hf", "gguf/stories260K-f32.gguf"}) {
    SCOPED_TRACE(source);
    const Opened opened = open(folder / source);
    Session session = opened.engine->new_session();
    const std::string text = text_of(*opened.engine, greedy(session, {1}, 200));
    EXPECT_EQ(text, expected.substr(0, text.size()));  // the golden text goes on
    EXPECT_GT(text.size(), 400u);
  }
}

// Every type of the story model's GGUF files runs, and predicts about as well.
TEST_F(Golden, StoriesInEveryType) {
  if (!on_processor()) GTEST_SKIP() << "types of the processor";
  const fs::path folder = models_ / "stories260K";
  const auto ids = golden(folder)["ids"].get<Tokens>();
  const double expected = golden(folder)["mean_nll"];
  for (const auto& entry : fs::directory_iterator(folder / "gguf")) {
    SCOPED_TRACE(entry.path());
    const Opened opened = open(entry.path());
    Session session = opened.engine->new_session();
    const Logits logits = all_logits(*opened.engine, session, ids);
    const size_t vocabulary = opened.engine->info().vocabulary;
    double nll = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto row = std::span(logits).subspan(i * vocabulary, vocabulary);
      double sum = 0;
      for (const float value : row) sum += std::exp(double{value});
      nll += std::log(sum) - row[ids[i + 1]];
    }
    nll /= static_cast<double>(ids.size() - 1);
    EXPECT_NEAR(nll, expected, 0.12 * expected) << opened.engine->info().storage;
  }
}

TEST_F(Golden, ExpertsLogitsAndText) {
  const fs::path folder = models_ / "tiny-qwen3-moe";
  const Json json = golden(folder);
  const auto ids = json["ids"].get<Tokens>();
  const Opened opened = open(folder);
  Session session = opened.engine->new_session();
  const Logits logits = all_logits(*opened.engine, session, ids);
  const Logits expected = read_floats(folder / "golden/logits.f32");
  expect_close(std::span(logits).last(expected.size()), expected);
  Session other = opened.engine->new_session();
  const auto greedy_ids = json["greedy_ids"].get<Tokens>();
  EXPECT_EQ(greedy(other, json["greedy_prompt_ids"].get<Tokens>(), greedy_ids.size()), greedy_ids);
}

}  // namespace
}  // namespace sluice::runtime
