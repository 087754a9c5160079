// The whole tensor list of a configuration, from its family's own table.
#pragma once

#include "families/fake_checkpoint.h"
#include "families/family.h"

namespace sluice::families {

// The tensors that the configuration calls for. The rules under test supply names and shapes, so
// that only totals can be held against it.
inline FakeCheckpoint complete(const Json& config, const Family& family) {
  FakeCheckpoint fake(config);
  const auto tensors = outlined_tensors(*fake.build(), family);
  if (!tensors) return fake;
  for (const io::TensorInfo& info : *tensors) fake.add(info.name, info.shape, info.dtype);
  return fake;
}

}  // namespace sluice::families
