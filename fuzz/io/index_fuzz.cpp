// The shard index over arbitrary bytes. Every file it names must be safe to join to a folder.
#include <string_view>

#include "allocation_bound.h"
#include "io/names.h"
#include "io/safetensors_index.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const sluice::fuzz::AllocationBound bound(size);
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto index = sluice::io::parse_safetensors_index(text, "fuzz");
  if (!index) return 0;
  for (const auto& file : index->files) {
    SLUICE_CHECK(sluice::io::is_bare_file_name(file));
    SLUICE_CHECK(file.find('/') == std::string::npos && file != "..");
  }
  for (const auto& entry : index->entries) SLUICE_CHECK(entry.file < index->files.size());
  return 0;
}
