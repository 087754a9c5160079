// The safetensors container: strict reading of headers, and rendering of ours. As strict as the
// reference reader: header ≤ 100,000,000 bytes, checked sizes, offsets contiguous from 0 without
// holes or overlap, the last end equal to the file's length. docs/formats.md#safetensors
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "io/byte_source.h"
#include "io/tensor_info.h"

namespace sluice::io {

inline constexpr uint64_t kSafetensorsHeaderBytesMax = 100'000'000;
// Tensor data of files we write starts on a multiple of this, so that direct reads waste little.
inline constexpr uint64_t kDataAlignment = 16 * 1024;

struct SafetensorsHeader {
  std::vector<StoredTensor> tensors;  // in order of offset; offsets from the start of the file
  std::map<std::string, std::string> metadata;
  uint64_t data_start = 0;
  std::string text_digest;  // of the raw header bytes, part of the source's identity
};

// file: the index to record in each StoredTensor.
Result<SafetensorsHeader> read_safetensors_header(const ByteSource& source, uint32_t file);

// One file of an output: its tensors in order of offset and the header that describes them.
struct SafetensorsLayout {
  std::string header;             // length prefix and padded JSON; data starts at header.size()
  std::vector<uint64_t> offsets;  // of each tensor, from the start of the file
  uint64_t file_bytes = 0;
};

// tensors in the order they are laid out; metadata {"format": "mlx"}; data starts on
// kDataAlignment. Requires validated shapes.
SafetensorsLayout layout_safetensors(std::span<const TensorInfo> tensors);

}  // namespace sluice::io
