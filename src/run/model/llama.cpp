// Llama 2 to 3.3 and SmolLM2. Its sliding_window belongs to layer_types: without them it is not
// used.
#include "model/architecture.h"

namespace sluice::model {
namespace {

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  SLUICE_TRY(read_decoder(config, label, 1e4, out));
  SLUICE_ASSIGN(const uint32_t window, read_window(config, label));
  return read_windows(config, label, window, out.dims.layers, out);
}

}  // namespace

constinit const Architecture kLlama = {"llama", configure};

}  // namespace sluice::model
