#include "io/journal.h"

#include <algorithm>

#include "base/digest.h"

namespace sluice::io {
namespace {

constexpr std::string_view kDigestKey = "{\"xxh3\":\"";
constexpr std::string_view kRecordKey = "\",\"record\":";
constexpr size_t kDigestDigits = 32;
constexpr size_t kRecordStart = kDigestKey.size() + kDigestDigits + kRecordKey.size();
constexpr uint64_t kReadBytes = 1024 * 1024;

// The record's text, or nothing when the line is not one of ours or its digest does not match.
std::string_view record_text(std::string_view line) {
  if (line.size() <= kRecordStart || !line.starts_with(kDigestKey) || line.back() != '}' ||
      line.substr(kDigestKey.size() + kDigestDigits, kRecordKey.size()) != kRecordKey)
    return {};
  const std::string_view text = line.substr(kRecordStart, line.size() - kRecordStart - 1);
  const auto digest = Digest::from_hex(line.substr(kDigestKey.size(), kDigestDigits));
  return digest && *digest == digest_of(text) ? text : std::string_view{};
}

// Hands out a source's lines while holding no more than one of them and a read's worth.
class LineReader {
 public:
  explicit LineReader(const ByteSource& source) : source_(source) {}

  // The next complete line without its newline, valid until the next call; empty at the end or
  // when what is left holds no newline within kJournalLineBytesMax.
  Result<std::string_view> next() {
    while (true) {
      const size_t end = buffer_.find('\n', start_);
      if (end != std::string::npos) {
        const std::string_view line(buffer_.data() + start_, end - start_);
        start_ = end + 1;
        return line;
      }
      const uint64_t left = source_.size() - offset_;
      if (left == 0 || buffer_.size() - start_ > kJournalLineBytesMax) return std::string_view{};
      buffer_.erase(0, start_);
      start_ = 0;
      const size_t held = buffer_.size();
      const size_t wanted = std::min(left, kReadBytes);
      buffer_.resize(held + wanted);
      SLUICE_TRY(source_.read_at(offset_,
                                 std::as_writable_bytes(std::span(buffer_)).subspan(held, wanted)));
      offset_ += wanted;
    }
  }

 private:
  const ByteSource& source_;
  std::string buffer_;
  size_t start_ = 0;
  uint64_t offset_ = 0;
};

// Whether a file without a valid record may be the beginning of one of ours: what is there of the
// first line's start agrees, but for zeros (which a power cut may leave) and one damaged byte.
Result<bool> may_be_journal(const ByteSource& source) {
  std::byte start[kDigestKey.size()] = {};
  const size_t there = std::min(source.size(), uint64_t{kDigestKey.size()});
  SLUICE_TRY(source.read_at(0, std::span(start).first(there)));
  size_t matching = 0, foreign = 0;
  for (size_t i = 0; i < there; ++i) {
    const auto c = std::to_integer<char>(start[i]);
    matching += c == kDigestKey[i] || c == '\0';
    foreign += c != kDigestKey[i] && c != '\0';
  }
  return foreign == 0 || (foreign == 1 && matching > 1);
}

}  // namespace

std::string journal_line(const Json& record) {
  const std::string text = dump_json(record);
  return fmt::format("{}{}{}{}}}\n", kDigestKey, digest_of(text).hex(), kRecordKey, text);
}

Result<JournalEnd> read_journal(const ByteSource& source, const RecordCallback& callback) {
  LineReader lines(source);
  JournalEnd end;
  while (true) {
    SLUICE_ASSIGN(const std::string_view line, lines.next());
    const std::string_view text = record_text(line);
    if (text.empty()) break;
    const auto record = parse_json(text, source.label());
    if (!record) break;
    SLUICE_TRY(callback(*record));
    ++end.records;
    end.valid_bytes += line.size() + 1;
  }
  end.torn = end.valid_bytes < source.size();
  return end;
}

Result<std::unique_ptr<Journal>> Journal::open(Storage& storage, const std::string& path,
                                               const RecordCallback& callback) {
  SLUICE_ASSIGN(auto file, storage.open(path, OpenMode::kCreateOrOpen));
  SLUICE_ASSIGN(const auto source, storage.open_source(path));
  SLUICE_ASSIGN(const JournalEnd end, read_journal(*source, callback));
  if (end.torn && end.records == 0) {
    SLUICE_ASSIGN(const bool ours, may_be_journal(*source));
    if (!ours)
      return fail(ErrorCode::kInvalidArgument,
                  "{}: exists and was not written by Sluice; choose another file or remove it",
                  path);
  }
  if (end.torn) SLUICE_TRY(file->truncate(end.valid_bytes));
  return std::unique_ptr<Journal>(new Journal(std::move(file)));
}

Status Journal::append(const Json& record) {
  const std::string line = journal_line(record);
  return file_->append(std::as_bytes(std::span(line)));
}

}  // namespace sluice::io
