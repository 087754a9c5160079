// The GGUF reader and everything rebuilt from its metadata, over arbitrary bytes. Accepted tensors
// must lie inside the file.
#include "allocation_bound.h"
#include "io/gguf.h"
#include "io/gguf_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const sluice::fuzz::AllocationBound bound(size);
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  const auto source = sluice::io::memory_source("fuzz", {bytes, bytes + size});
  const auto header = sluice::io::read_gguf_header(*source, 0);
  if (!header) return 0;
  SLUICE_CHECK(header->split.index < header->split.count);
  for (const auto& tensor : header->tensors) {
    SLUICE_CHECK(tensor.offset >= header->data_start);
    SLUICE_CHECK(tensor.offset <= size && tensor.bytes <= size - tensor.offset);
  }
  // Rebuilt files are JSON again whatever the metadata held.
  if (const auto config = sluice::io::rebuild_config(*header, *source))
    SLUICE_CHECK(sluice::parse_json(sluice::dump_json(*config), "config").has_value());
  (void)sluice::io::rebuild_generation_config(*header);
  if (const auto files = sluice::io::rebuild_tokenizer(*header, "fuzz"))
    for (const auto& file : *files)
      SLUICE_CHECK(sluice::parse_json(file.text, file.name).has_value());
  return 0;
}
