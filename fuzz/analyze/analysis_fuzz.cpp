// Analysis files whose records are the input's lines, given the digests that let them through. An
// analysis that loads must be written back the same, and answer for the size of any choice.
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "allocation_bound.h"
#include "analyze/analysis.h"
#include "base/json.h"
#include "io/journal.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const sluice::fuzz::AllocationBound bound(size);
  using namespace sluice;
  std::string_view text(reinterpret_cast<const char*>(data), size);
  std::string file;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const auto record = parse_json(text.substr(0, end), "fuzz");
    text.remove_prefix(std::min(end + 1, text.size()));
    if (record) file += io::journal_line(*record);
  }
  const auto bytes = std::as_bytes(std::span(file));
  const auto analysis =
      analyze::load_analysis(*io::memory_source("fuzz", {bytes.begin(), bytes.end()}));
  if (!analysis) return 0;
  const auto header = analyze::header_from_json(header_to_json(analysis->header), "again");
  SLUICE_CHECK(header.has_value() && *header == analysis->header);
  std::vector<uint32_t> first, last;
  for (const analyze::ModuleRecord& record : analysis->records) {
    const auto again = analyze::record_from_json(record_to_json(record), "again");
    SLUICE_CHECK(again.has_value() && again->item == record.item && again->shape == record.shape);
    first.push_back(0);
    last.push_back(static_cast<uint32_t>(record.item.candidates.size() - 1));
  }
  (void)analysis->exact_bytes(first);
  (void)analysis->exact_bytes(last);
  return 0;
}
