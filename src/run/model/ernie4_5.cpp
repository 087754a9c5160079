// ERNIE 4.5, dense: llama, whose rotation turns neighbouring dimensions.
#include "model/architecture.h"

namespace sluice::model {
namespace {

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  SLUICE_TRY(read_decoder(config, label, 5e5, out));
  out.ropes[0].style = RopeStyle::kInterleaved;
  return {};
}

}  // namespace

constinit const Architecture kErnie4_5 = {"ernie4_5", configure};

}  // namespace sluice::model
