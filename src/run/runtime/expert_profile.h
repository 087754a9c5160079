// Which experts a model's runs use, kept from one run to the next, so that the next begins with
// those that the last one ended with.
#pragma once

#include <string>
#include <string_view>

#include "base/digest.h"
#include "runtime/engine.h"

namespace sluice::runtime {

// Beside a model's weights.
inline constexpr std::string_view kExpertProfileName = "sluice_experts.json";
inline constexpr uint64_t kExpertProfileBytesMax = 64 << 20;

// JSON: docs/formats.md#experts-profile.
std::string expert_profile_text(const ExpertShares& shares, const Digest& model);
// name: for messages. kInvalidArgument: another model's.
Result<ExpertShares> parse_expert_profile(std::string_view text, const std::string& name,
                                          const Digest& model);

}  // namespace sluice::runtime
