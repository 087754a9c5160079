// A conversion that finds a journal of the input's lines, given the digests that let them through.
// It is refused, or it goes on to the bytes of an undisturbed run.
#include <string>
#include <string_view>

#include "convert/conversions.h"
#include "io/journal.h"

namespace {

using namespace sluice;

const test::Job& job() {
  static const test::Job tiny = test::job_of(test::tiny_llama({.vocab = 2, .layers = 1}));
  return tiny;
}

const test::Files& reference() {
  static const test::Files files = test::converted(job());
  return files;
}

// The journal's first record as this build would write it, so that records behind it are reached.
const std::string& header_line() {
  static const std::string line = [] {
    io::MemoryStorage storage;
    test::make_work_folder(storage);
    NullLog log;
    convert::ConvertOptions options = test::convert_options(log);
    options.before_publishing = [](const std::string&) -> Status {
      return fail(ErrorCode::kIo, "stop");
    };
    SLUICE_CHECK(!test::convert_into(storage, job(), options));
    const std::string text =
        *io::read_text(**storage.open_source(convert::journal_path(test::kOut)), UINT64_MAX);
    return text.substr(0, text.find('\n') + 1);
  }();
  return line;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  const bool own_header = text.starts_with('h');
  if (own_header) text.remove_prefix(1);
  std::string journal = own_header ? header_line() : "";
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const auto record = parse_json(text.substr(0, end), "fuzz");
    text.remove_prefix(std::min(end + 1, text.size()));
    if (record) journal += io::journal_line(*record);
  }
  io::MemoryStorage storage;
  test::make_work_folder(storage);
  auto file = storage.open(convert::journal_path(test::kOut), io::OpenMode::kCreateNew);
  SLUICE_CHECK(file && (*file)->append(std::as_bytes(std::span(journal))));
  NullLog log;
  const auto summary = test::convert_into(storage, job(), test::convert_options(log));
  if (summary)
    SLUICE_CHECK(test::files_under(storage, test::kOut) == reference());
  else
    SLUICE_CHECK(!storage.exists(test::kOut));
  return 0;
}
