// Mistral Small 3.1 and 3.2, Devstral and Magistral Small: Mistral as the language model of a model
// that sees. The text models of later ones scale queries by their position, which is not known
// here.
#include "model/architecture.h"

namespace sluice::model {
namespace {

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  SLUICE_TRY(expect_text(config, "model_type", "mistral", label));
  SLUICE_TRY(read_decoder(config, label, 1e4, out));
  SLUICE_ASSIGN(const uint32_t window, read_window(config, label));
  return read_windows(config, label, window, out.dims.layers, out);
}

}  // namespace

constinit const Architecture kMistral3 = {"mistral3", configure};

}  // namespace sluice::model
