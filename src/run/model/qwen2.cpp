// Qwen2 and Qwen2.5.
#include "model/qwen.h"

namespace sluice::model {

Status read_qwen(const Json& config, const std::string& label, ModelConfig& out) {
  SLUICE_TRY(read_decoder(config, label, 1e4, out));
  SLUICE_ASSIGN(const bool used, flag_or(config, "use_sliding_window", false, label));
  SLUICE_ASSIGN(uint32_t window, read_window(config, label));
  if (!used) window = 0;
  int64_t first = 0;
  if (window > 0 && json_find(config, "layer_types") == nullptr) {
    SLUICE_ASSIGN(first, json_int(config, "max_window_layers", 0, 1 << 20, label));
  }
  return read_windows(config, label, window, static_cast<uint64_t>(first), out);
}

constinit const Architecture kQwen2 = {"qwen2", read_qwen};

}  // namespace sluice::model
