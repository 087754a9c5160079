// What llama.cpp's architectures are in Hugging Face's terms, and how each one's metadata becomes
// its configuration. One entry per architecture; what all have in common is in gguf_config.cpp.
#pragma once

#include <span>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "io/gguf_fields.h"

namespace sluice::io {

// Caps on foreign integers, well above any model known and below anything that could overflow.
inline constexpr uint64_t kGgufLayersMax = 4096;
inline constexpr uint64_t kGgufWidthMax = 1 << 24;
inline constexpr uint64_t kGgufHeadsMax = 1 << 16;
inline constexpr uint64_t kGgufExpertsMax = 1 << 16;
inline constexpr uint64_t kGgufContextMax = uint64_t{1} << 32;

struct GgufArchitecture {
  std::string_view name;        // general.architecture
  std::string_view model_type;  // Hugging Face's
  std::string_view class_name;
  bool sparse = false;  // with experts
  // Heads may be rotated in part (rope.dimension_count).
  bool rotates_part = false;
  // Latent attention, of whose heads the common keys tell nothing.
  bool latent = false;
  // Layers may see windows, which complete() writes down.
  bool windows = false;
  // Parameters that others would have to refuse: complete() says them.
  std::span<const std::string_view> understood{};
  // config: what all architectures have, which it changes and adds to. Null: nothing.
  Status (*complete)(const GgufFields& fields, Json& config) = nullptr;
};

// kUnsupported for others than those, with or without experts.
Result<const GgufArchitecture*> find_gguf_architecture(const GgufHeader& header,
                                                       const std::string& label);

}  // namespace sluice::io
