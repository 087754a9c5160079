// SmolLM3: llama, and every so many layers one that does not rotate.
#include "model/architecture.h"

namespace sluice::model {
namespace {

constexpr uint64_t kNopeInterval = 4;

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  SLUICE_TRY(read_decoder(config, label, 2e6, out));
  SLUICE_ASSIGN(const uint64_t interval,
                integer_or(config, "no_rope_layer_interval", 1, 1 << 20, kNopeInterval, label));
  SLUICE_TRY(read_rope_layers(config, label, interval, out));
  SLUICE_ASSIGN(const bool windows, flag_or(config, "use_sliding_window", false, label));
  if (windows)
    return fail(ErrorCode::kUnsupported, "{}: use_sliding_window is not known for this family",
                label);
  return {};
}

}  // namespace

constinit const Architecture kSmollm3 = {"smollm3", configure};

}  // namespace sluice::model
