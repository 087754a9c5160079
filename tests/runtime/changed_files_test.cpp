// Files that change under an engine which still reads from them: the right logits or one clear
// error, never wrong logits and never a crash.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "io/build_files.h"
#include "io/page_digests.h"
#include "io/read_ring.h"
#include "runtime/engines.h"

namespace sluice::runtime {
namespace {

using testing::AnyOf;
using testing::HasSubstr;
namespace fs = std::filesystem;

constexpr uint64_t kVocabulary = 64;

struct ModelFile {
  std::string path;
  std::shared_ptr<const io::Checkpoint> checkpoint;
};

// One model as a file that is read past the page cache, opened as often as wanted.
ModelFile on_disk(const test::ModelBuilder& builder, const std::string& path) {
  ModelFile made{path, nullptr};
  made.checkpoint = builder.build([&](const std::shared_ptr<io::ByteSource>& source) {
    std::vector<std::byte> bytes(static_cast<size_t>(source->size()));
    SLUICE_CHECK(source->read_at(0, bytes).has_value());
    if (!fs::exists(path))
      std::ofstream(path, std::ios::binary)
          .write(reinterpret_cast<const char*>(bytes.data()),
                 static_cast<std::streamsize>(bytes.size()));
    auto file = io::open_file_source(path, nullptr, {.file_bytes_min = 0, .read_bytes_min = 4096});
    SLUICE_CHECK(file.has_value());
    return std::move(*file);
  });
  return made;
}

std::vector<test::ModelBuilder> builders() {
  std::vector<test::ModelBuilder> all = {test::tiny_llama({.wide = 16}),
                                         test::tiny_moe({.layers = 4, .wide = 16})};
  if (on_processor()) all.push_back(test::tiny_gguf({.wide = 16}));
  return all;
}

std::vector<ReadPath> read_paths() {
  std::vector<ReadPath> paths = {ReadPath::kThreads};
  if (io::make_read_ring(4)) paths.push_back(ReadPath::kRing);
  return paths;
}

// Three quarters of the weights may stay, at most.
EngineOptions streaming(const std::shared_ptr<const io::Checkpoint>& checkpoint, ReadPath path,
                        bool verify) {
  EngineOptions options = f32_options();
  options.weight_bytes_max = open_engine(checkpoint, options).engine->memory().weights / 4 * 3;
  options.window_bytes = 65536;
  options.reads = path;
  options.verify_reads = verify;
  return options;
}

// In place, leaving no trace in the time of writing.
class Flip {
 public:
  Flip(const std::string& path, uint64_t offset, uint64_t count = 1) : path_(path) {
    const auto time = fs::last_write_time(path_);
    std::fstream file(path_, std::ios::binary | std::ios::in | std::ios::out);
    std::string bytes(static_cast<size_t>(count), '\0');
    file.seekg(static_cast<std::streamoff>(offset));
    file.read(bytes.data(), static_cast<std::streamsize>(count));
    for (char& byte : bytes) byte = static_cast<char>(byte ^ 0x40);
    file.seekp(static_cast<std::streamoff>(offset));
    file.write(bytes.data(), static_cast<std::streamsize>(count));
    file.close();
    fs::last_write_time(path_, time);
  }

 private:
  const std::string path_;
};

const Tokens& some_tokens() {
  static const Tokens kTokens = random_tokens(5, kVocabulary, 3);
  return kTokens;
}

Result<Logits> logits_of(Engine& engine) {
  Session session = engine.new_session();
  Logits all;
  for (const uint32_t token : some_tokens()) {
    SLUICE_ASSIGN(const auto logits, session.append({&token, 1}));
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

// Calls test(checkpoint's file, opened engine, right logits) for each model and way of reading.
template <class Test>
void for_all(bool verify, Test&& test) {
  for (const test::ModelBuilder& builder : builders())
    for (const ReadPath path : read_paths()) {
      const io::testing::TemporaryFolder folder;
      const ModelFile file = on_disk(builder, folder.file("weights"));
      const Opened opened = open_engine(file.checkpoint, streaming(file.checkpoint, path, verify));
      const auto right = logits_of(*opened.engine);
      ASSERT_TRUE(right.has_value()) << right.error().message;
      EXPECT_GT(opened.engine->statistics().bytes_read, 0u);
      test(file, *opened.engine, *right);
    }
}

TEST(ChangedFiles, ReplacedByRenaming) {
  for_all(false, [](const ModelFile& file, Engine& engine, const Logits& right) {
    // Another file of the same size takes its name; the old one lives as long as it is open.
    fs::copy_file(file.path, file.path + ".new");
    const Flip all(file.path + ".new", 0, fs::file_size(file.path));
    fs::rename(file.path + ".new", file.path);
    const auto found = logits_of(engine);
    if (found)
      EXPECT_EQ(*found, right);
    else
      EXPECT_THAT(found.error().message, AnyOf(HasSubstr("replaced"), HasSubstr("written to")));
  });
}

TEST(ChangedFiles, Truncated) {
  for_all(false, [](const ModelFile& file, Engine& engine, const Logits&) {
    fs::resize_file(file.path, fs::file_size(file.path) / 3);
    const auto found = logits_of(engine);
    ASSERT_FALSE(found.has_value());
    EXPECT_EQ(found.error().code, ErrorCode::kCorrupt);
    EXPECT_THAT(found.error().message, HasSubstr(file.path));
    EXPECT_THAT(found.error().message,
                AnyOf(HasSubstr("the file ends at"), HasSubstr("resized from")));
  });
}

// As `cp other model` does: shortened, then filled again, so that the size tells nothing
// afterwards. A read that was under way may have met the short file.
TEST(ChangedFiles, OverwrittenByACopy) {
  for_all(false, [](const ModelFile& file, Engine& engine, const Logits&) {
    const auto size = fs::file_size(file.path);
    std::ofstream(file.path, std::ios::binary) << std::string(size, 'x');
    ASSERT_EQ(fs::file_size(file.path), size);
    const auto found = logits_of(engine);
    ASSERT_FALSE(found.has_value());
    EXPECT_EQ(found.error().code, ErrorCode::kCorrupt);
    EXPECT_THAT(found.error().message, AnyOf(HasSubstr("was written to while the model was in use"),
                                             HasSubstr("the file ends at")));
  });
}

// Any bit that turns on disk ends the step or does not matter; once it is right again, so is the
// engine.
TEST(ChangedFiles, FlippedBitsAreFound) {
  for_all(true, [](const ModelFile& file, Engine& engine, const Logits& right) {
    const uint64_t size = fs::file_size(file.path);
    test::Random random(size);
    int found_out = 0;
    for (int i = 0; i < 12; ++i) {
      const uint64_t offset = random.below(size);
      const Flip flip(file.path, offset);
      const auto found = logits_of(engine);
      if (found) {  // of what stays in memory, or is not used
        EXPECT_EQ(*found, right) << offset;
      } else {
        ++found_out;
        EXPECT_EQ(found.error().code, ErrorCode::kCorrupt);
        EXPECT_THAT(found.error().message, HasSubstr(file.path));
        EXPECT_THAT(found.error().message,
                    HasSubstr(fmt::format("at offset {} ", offset / 4096 * 4096)));
      }
      const Flip back(file.path, offset);
      const auto again = logits_of(engine);
      ASSERT_TRUE(again.has_value()) << again.error().message;
      EXPECT_EQ(*again, right);
    }
    EXPECT_GT(found_out, 0);
  });
}

// Without digests the same would have gone unnoticed: what the test above shows is theirs.
TEST(ChangedFiles, FlippedBitsPassWithoutDigests) {
  for_all(false, [](const ModelFile& file, Engine& engine, const Logits& right) {
    const uint64_t size = fs::file_size(file.path);
    const Flip most(file.path, size / 8, size / 8 * 7);
    const auto found = logits_of(engine);
    EXPECT_TRUE(!found || *found != right);
  });
}

TEST(ChangedFiles, DigestsAreKept) {
  const io::testing::TemporaryFolder folder;
  const auto builder = test::tiny_llama({.wide = 16});
  const std::string kept = folder.file("pages");
  class Notes : public NullLog {
   public:
    void info(std::string_view message) override { text += std::string(message) + "\n"; }
    void warn(std::string_view message) override { text += std::string(message) + "\n"; }
    std::string text;
  };
  NullProgress progress;
  // Runs the model; what was said while it was loaded, or the error.
  const auto run = [&](uint64_t digest_bytes) {
    const ModelFile file = on_disk(builder, folder.file("weights"));
    const EngineOptions options = streaming(file.checkpoint, ReadPath::kThreads, true);
    ThreadPool pool(2);
    Notes notes;
    auto engine = Engine::plan(file.checkpoint, options, pool);
    SLUICE_CHECK(engine.has_value());
    EXPECT_EQ((*engine)->memory().digests, digest_bytes);
    (*engine)->keep_digests({folder.file("no/such/folder/pages"), kept});
    const Status loaded = (*engine)->load(notes, progress);
    if (!loaded) return loaded.error().message;
    const auto logits = logits_of(**engine);
    return logits ? notes.text : logits.error().message;
  };
  (void)on_disk(builder, folder.file("weights"));
  const uint64_t size = fs::file_size(folder.file("weights")), bytes = (size + 4095) / 4096 * 4;
  EXPECT_THAT(run(bytes), HasSubstr("are read once now"));
  EXPECT_THAT(run(bytes), Not(HasSubstr("are read once now")));
  {  // a change that nothing else tells
    const Flip most(folder.file("weights"), size / 2, size / 2);
    EXPECT_THAT(run(bytes), HasSubstr("digest was kept in " + kept));
    const Flip back(folder.file("weights"), size / 2, size / 2);
  }
  // Damaged: said, and taken anew.
  const Flip damage(kept, fs::file_size(kept) - 40);
  EXPECT_THAT(run(bytes), AllOf(HasSubstr("damaged"), HasSubstr("are read once now")));
  EXPECT_THAT(run(bytes), Not(HasSubstr("damaged")));
  // The time of writing says that the file may be another one.
  fs::last_write_time(folder.file("weights"), fs::file_time_type::clock::now());
  EXPECT_THAT(run(bytes), AllOf(HasSubstr("other files"), HasSubstr("are read once now")));
}

}  // namespace
}  // namespace sluice::runtime
