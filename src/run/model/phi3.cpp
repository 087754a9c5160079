// Phi-3, Phi-3.5 and Phi-4: fused projections, a window where the configuration names one.
#include "model/architecture.h"

namespace sluice::model {
namespace {

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  SLUICE_TRY(read_decoder(config, label, 1e4, out));
  out.fused_projections = true;
  SLUICE_ASSIGN(const uint32_t window, read_window(config, label));
  return read_windows(config, label, window, 0, out);
}

}  // namespace

constinit const Architecture kPhi3 = {"phi3", configure};

}  // namespace sluice::model
