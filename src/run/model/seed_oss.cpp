// Seed-OSS: llama with biases on q, k and v.
#include "model/architecture.h"

namespace sluice::model {
namespace {

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  return read_decoder(config, label, 1e4, out);
}

}  // namespace

constinit const Architecture kSeedOss = {"seed_oss", configure};

}  // namespace sluice::model
