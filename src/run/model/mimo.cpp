// MiMo 7B: Qwen2's forward pass.
#include "model/qwen.h"

namespace sluice::model {

constinit const Architecture kMimo = {"mimo", read_qwen};

}  // namespace sluice::model
