// The journal survives what interrupts it: torn tails, flipped bits, failing storage.
#include "io/journal.h"

#include <gmock/gmock.h>

#include "io/fault.h"
#include "support/models.h"

namespace sluice::io {
namespace {

using ::testing::HasSubstr;

std::vector<Json> some_records() {
  return {{{"kind", "test"}, {"version", 1}},
          {{"module", 0}, {"error", 0.1}, {"name", "a \"quoted\" näme\n"}},
          Json::object(),
          {{"nested", {{"list", {1, 2.5, nullptr, true}}}}},
          {{"complete", true}}};
}

std::string text_of(const std::vector<Json>& records) {
  std::string text;
  for (const Json& record : records) text += journal_line(record);
  return text;
}

std::shared_ptr<ByteSource> source_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return memory_source("test.journal", {bytes.begin(), bytes.end()});
}

struct Read {
  JournalEnd end;
  std::vector<Json> records;
};

Read read_all(std::string_view text) {
  Read read;
  const auto end = read_journal(*source_of(text), [&](const Json& record) -> Status {
    read.records.push_back(record);
    return {};
  });
  EXPECT_TRUE(end) << end.error().message;
  if (end) read.end = *end;
  return read;
}

void put(MemoryStorage& storage, const std::string& path, std::string_view text) {
  auto file = storage.open(path, OpenMode::kCreateOrOpen);
  ASSERT_TRUE(file);
  ASSERT_TRUE((*file)->truncate(0));
  ASSERT_TRUE((*file)->append(std::as_bytes(std::span(text))));
}

std::string get(MemoryStorage& storage, const std::string& path) {
  return *read_text(**storage.open_source(path), UINT64_MAX);
}

const RecordCallback kIgnore = [](const Json&) -> Status { return {}; };

// Number of whole lines in the first `bytes` bytes.
size_t whole_lines(const std::vector<Json>& records, size_t bytes) {
  size_t count = 0;
  for (size_t end = 0; count < records.size(); ++count) {
    end += journal_line(records[count]).size();
    if (end > bytes) break;
  }
  return count;
}

TEST(Journal, RoundTrip) {
  const auto records = some_records();
  const std::string text = text_of(records);
  const Read read = read_all(text);
  EXPECT_EQ(read.records, records);
  EXPECT_EQ(read.end.records, records.size());
  EXPECT_EQ(read.end.valid_bytes, text.size());
  EXPECT_FALSE(read.end.torn);
}

TEST(Journal, ALineHoldsItsDigest) {
  const std::string line = journal_line({{"a", 1}});
  EXPECT_EQ(line, fmt::format("{{\"xxh3\":\"{}\",\"record\":{{\"a\":1}}}}\n",
                              digest_of(std::string_view("{\"a\":1}")).hex()));
}

TEST(Journal, EmptyFileHoldsNothing) {
  const Read read = read_all("");
  EXPECT_EQ(read.end.records, 0u);
  EXPECT_FALSE(read.end.torn);
}

TEST(Journal, TornAtEveryByteLosesOnlyTheLastLine) {
  const auto records = some_records();
  const std::string text = text_of(records);
  for (size_t bytes = 0; bytes < text.size(); ++bytes) {
    SCOPED_TRACE(bytes);
    const Read read = read_all(std::string_view(text).substr(0, bytes));
    const size_t whole = whole_lines(records, bytes);
    ASSERT_EQ(read.records.size(), whole);
    EXPECT_TRUE(std::equal(read.records.begin(), read.records.end(), records.begin()));
    EXPECT_EQ(read.end.valid_bytes,
              text_of({records.begin(), records.begin() + static_cast<ptrdiff_t>(whole)}).size());
    EXPECT_EQ(read.end.torn, read.end.valid_bytes != bytes);
  }
}

TEST(Journal, AnyFlippedBitLosesThatLineAndWhatFollows) {
  const auto records = some_records();
  const std::string text = text_of(records);
  for (size_t bit = 0; bit < text.size() * 8; ++bit) {
    SCOPED_TRACE(bit);
    std::string damaged = text;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    const Read read = read_all(damaged);
    ASSERT_EQ(read.records.size(), whole_lines(records, bit / 8));
    EXPECT_TRUE(std::equal(read.records.begin(), read.records.end(), records.begin()));
    EXPECT_TRUE(read.end.torn);
  }
}

TEST(Journal, ValidLinesAfterDamageAreNotBelieved) {
  const std::string first = journal_line({{"n", 1}}), second = journal_line({{"n", 2}});
  for (const std::string& noise : {std::string("\n"), std::string("x\n"), std::string("{}\n"),
                                   std::string(200, '\0') + "\n", first.substr(0, 20) + "\n"}) {
    const Read read = read_all(first + noise + second);
    EXPECT_EQ(read.end.records, 1u);
    EXPECT_EQ(read.end.valid_bytes, first.size());
    EXPECT_TRUE(read.end.torn);
  }
}

TEST(Journal, LongLinesPassThroughSmallReads) {
  test::Random random(1);
  std::vector<Json> records;
  for (const size_t length : {1'000'000ul, 1ul, 3'500'000ul, 1'048'576ul, 0ul}) {
    std::string noise(length, 'x');
    for (char& c : noise) c = static_cast<char>('a' + random.below(26));
    records.push_back({{"noise", std::move(noise)}});
  }
  EXPECT_EQ(read_all(text_of(records)).records, records);
}

TEST(Journal, AnEndlessLineIsGivenUpAsTorn) {
  const std::string line = journal_line({{"n", 1}});
  const Read read = read_all(line + std::string(kJournalLineBytesMax + (3 << 20), 'x'));
  EXPECT_EQ(read.end.records, 1u);
  EXPECT_TRUE(read.end.torn);
}

TEST(Journal, CallbackErrorsAreReturned) {
  const auto end = read_journal(*source_of(text_of(some_records())), [](const Json& record) {
    return record.contains("module") ? Status(fail(ErrorCode::kInvalidArgument, "not mine"))
                                     : Status();
  });
  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(end.error().message, "not mine");
}

TEST(Journal, ReadErrorsAreReturned) {
  FaultInjector injector({.at = 1});
  const auto source = faulty_source(source_of(text_of(some_records())), injector);
  const auto end = read_journal(*source, kIgnore);
  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().code, ErrorCode::kIo);
}

TEST(Journal, OpenGoesOnWhereItStopped) {
  const auto records = some_records();
  MemoryStorage storage;
  for (size_t i = 0; i < records.size(); ++i) {
    std::vector<Json> seen;
    auto journal = Journal::open(storage, "j", [&](const Json& record) -> Status {
      seen.push_back(record);
      return {};
    });
    ASSERT_TRUE(journal) << journal.error().message;
    EXPECT_EQ(seen,
              std::vector<Json>(records.begin(), records.begin() + static_cast<ptrdiff_t>(i)));
    ASSERT_TRUE((*journal)->append(records[i]));
    ASSERT_TRUE((*journal)->sync());
  }
  EXPECT_EQ(get(storage, "j"), text_of(records));
}

TEST(Journal, OpenCutsATornTailAtEveryByte) {
  const auto records = some_records();
  const std::string text = text_of(records);
  for (size_t bytes = 0; bytes < text.size(); bytes += 3) {
    SCOPED_TRACE(bytes);
    MemoryStorage storage;
    put(storage, "j", text.substr(0, bytes));
    auto journal = Journal::open(storage, "j", kIgnore);
    ASSERT_TRUE(journal) << journal.error().message;
    for (size_t i = whole_lines(records, bytes); i < records.size(); ++i)
      ASSERT_TRUE((*journal)->append(records[i]));
    EXPECT_EQ(get(storage, "j"), text);
  }
}

// The kernel may leave zeros where a torn append never arrived.
TEST(Journal, OpenCutsZerosLeftByAPowerCut) {
  const std::string line = journal_line({{"n", 1}});
  for (const std::string& text : {line + std::string(5000, '\0'), std::string(300, '\0'),
                                  line.substr(0, 7) + std::string(90, '\0')}) {
    MemoryStorage storage;
    put(storage, "j", text);
    ASSERT_TRUE(Journal::open(storage, "j", kIgnore));
    EXPECT_EQ(get(storage, "j"), text.starts_with(line) ? line : "");
  }
}

TEST(Journal, OpenRefusesAFileThatIsNoJournal) {
  for (const std::string& text :
       {std::string("GGUF\3\0\0\0 and twenty gigabytes of somebody's weights"),
        std::string("{\"model_type\": \"llama\"}\n"), std::string("x"), std::string("\n\n\n")}) {
    MemoryStorage storage;
    put(storage, "j", text);
    const auto journal = Journal::open(storage, "j", kIgnore);
    ASSERT_FALSE(journal) << text;
    EXPECT_EQ(journal.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(journal.error().message, HasSubstr("j: "));
    EXPECT_EQ(get(storage, "j"), text) << "somebody's file was cut";
  }
}

TEST(Journal, EveryFailingOperationIsReturned) {
  const auto job = [](Storage& storage) -> Status {
    auto journal = Journal::open(storage, "j", kIgnore);
    if (!journal) return std::unexpected(journal.error());
    SLUICE_TRY((*journal)->append({{"n", 2}}));
    return (*journal)->sync();
  };
  const std::string start = journal_line({{"n", 1}}) + "{\"xxh3";
  const std::string done = journal_line({{"n", 1}}) + journal_line({{"n", 2}});
  for (uint64_t at = 1;; ++at) {
    SCOPED_TRACE(at);
    MemoryStorage storage;
    put(storage, "j", start);
    FaultInjector injector({.at = at, .torn = true});
    const auto faulty = faulty_storage(storage, injector);
    const Status status = job(*faulty);
    EXPECT_EQ(status.has_value(), !injector.triggered());
    if (!injector.triggered()) {
      EXPECT_EQ(get(storage, "j"), done);
      break;
    }
    // What is there is still a journal that goes on.
    ASSERT_TRUE(job(storage));
    EXPECT_THAT(get(storage, "j"), ::testing::StartsWith(done));
  }
}

}  // namespace
}  // namespace sluice::io
