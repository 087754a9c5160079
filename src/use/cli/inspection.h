// What is known of a model before any of its weights are read, with them at hand or from its
// configuration alone: sizes, what it would take, and whether it can be prepared and run. `sluice
// inspect` shows it.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "allocate/devices.h"
#include "cli/model.h"

namespace sluice::cli {

// What sizes follow from.
enum class Basis {
  kWeights,   // the tensors of weight files
  kConfig,    // the tensors that the configuration calls for
  kEstimate,  // the configuration's widths, of a family without a table
};

struct RoleSize {
  uint64_t modules = 0, elements = 0;
};

struct StoredSize {
  uint64_t tensors = 0, bytes = 0;
  std::string lossless;  // the format that such blocks move to unchanged, in a float16 model
};

// Bytes of the weight files at a uniform format, as `quantize` writes them.
struct UniformSize {
  numerics::QuantFormat format;
  uint64_t bytes = 0;
  uint64_t smaller_group = 0;  // modules whose rows the group does not divide
};

// The formats by which devices are compared: group 64 and unquantized.
bool is_yardstick(const numerics::QuantFormat& format);

struct DeviceFit {
  allocate::DeviceProfile device;
  uint64_t weight_bytes_max = 0;        // beside keys and values, and scratch; 0: nothing is left
  const UniformSize* widest = nullptr;  // of the yardsticks; null: none fits
};

struct Inspection {
  Basis basis = Basis::kWeights;
  std::string model_type, family;  // family: the table's, "generic", or empty
  std::shared_ptr<const io::Checkpoint> checkpoint;
  // Of the language model, where a model has other parts. modules is empty for estimates.
  families::ModelMap map;
  uint64_t parameters = 0, active_parameters = 0;
  uint64_t experts = 0, experts_per_token = 0;  // 0: none
  uint64_t source_bytes = 0;                    // 0: not known
  uint64_t source_files = 0;
  std::map<std::string, RoleSize> roles;
  std::map<std::string, StoredSize> stored;  // by type; with weights only
  std::vector<UniformSize> uniform;
  std::optional<Error> refused;  // why it cannot be prepared
  std::string prepares_if;       // on what that depends, where weights have to be seen for it
  std::string runs_not;          // why there is no forward pass for it; empty: there is

  uint64_t context_tokens = 0, kv_bytes = 0;
  std::vector<allocate::DeviceProfile> devices;

  const UniformSize* uniform_at(const numerics::QuantFormat& format) const;
  // Not beyond the life of this.
  DeviceFit fit(const allocate::DeviceProfile& device) const;
};

// path: a model, config.json, its folder or the index beside it. Errors: what open_model() says,
// unless it is that the model is not supported and its configuration tells its size.
Result<Inspection> inspect_model(Context& context, const std::string& path,
                                 const std::string& dtype, const std::string& only_layers,
                                 uint64_t context_tokens);

}  // namespace sluice::cli
