// Journals over arbitrary bytes: the valid part is a prefix of whole lines, reads the same again,
// and goes on after the tail has been cut.
#include <string>
#include <vector>

#include "allocation_bound.h"
#include "io/fault.h"
#include "io/journal.h"

namespace {

using sluice::Json;
using sluice::Status;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const sluice::fuzz::AllocationBound bound(size);
  const auto bytes = std::as_bytes(std::span(data, size));
  std::vector<Json> records;
  const auto keep = [&](const Json& record) -> Status {
    records.push_back(record);
    return {};
  };
  const auto source = sluice::io::memory_source("fuzz", {bytes.begin(), bytes.end()});
  const auto end = sluice::io::read_journal(*source, keep);
  SLUICE_CHECK(end.has_value());
  SLUICE_CHECK(end->records == records.size() && end->valid_bytes <= size);
  SLUICE_CHECK(end->torn == (end->valid_bytes < size));
  SLUICE_CHECK(end->valid_bytes == 0 || data[end->valid_bytes - 1] == '\n');

  sluice::io::MemoryStorage storage;
  auto file = storage.open("j", sluice::io::OpenMode::kCreateNew);
  SLUICE_CHECK(file.has_value() && (*file)->append(bytes).has_value());
  const std::vector<Json> first = std::move(records);
  records.clear();
  auto journal = sluice::io::Journal::open(storage, "j", keep);
  if (!journal) {  // somebody else's file stays as it is
    SLUICE_CHECK(first.empty() && (*storage.open_source("j"))->size() == size);
    return 0;
  }
  SLUICE_CHECK(records == first);
  SLUICE_CHECK((*journal)->append({{"n", 1}}).has_value());
  records.clear();
  const auto again = sluice::io::read_journal(**storage.open_source("j"), keep);
  SLUICE_CHECK(again.has_value() && !again->torn && records.size() == first.size() + 1);
  return 0;
}
