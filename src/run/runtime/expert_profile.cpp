#include "runtime/expert_profile.h"

#include <cmath>

#include "base/json.h"

namespace sluice::runtime {
namespace {

constexpr std::string_view kFormat = "sluice-expert-profile";
constexpr uint64_t kVersion = 1;
constexpr double kScale = 1e4;  // shares are kept to four digits

std::unexpected<Error> damaged(const std::string& name) {
  return fail(ErrorCode::kCorrupt, "{}: no profile of experts, or a damaged one", name);
}

Result<std::vector<double>> parse_layer(const Json& list, const std::string& name) {
  if (!list.is_array()) return damaged(name);
  std::vector<double> shares;
  for (const Json& share : list) {
    if (!share.is_number_unsigned() || share.get<uint64_t>() > kScale) return damaged(name);
    shares.push_back(share.get<double>() / kScale);
  }
  return shares;
}

}  // namespace

std::string expert_profile_text(const ExpertShares& shares, const Digest& model) {
  Json layers = Json::array();
  for (const std::vector<double>& layer : shares) {
    Json& list = layers.emplace_back(Json::array());
    for (const double share : layer) list.push_back(std::lround(share * kScale));
  }
  return dump_json({{"format", kFormat},
                    {"version", kVersion},
                    {"model", model.hex()},
                    {"shares_per_10000", std::move(layers)}}) +
         "\n";
}

Result<ExpertShares> parse_expert_profile(std::string_view text, const std::string& name,
                                          const Digest& model) {
  SLUICE_ASSIGN(const Json json, parse_json(text, name));
  const Json* format = json_find(json, "format");
  const Json* version = json_find(json, "version");
  const Json* digest = json_find(json, "model");
  const Json* layers = json_find(json, "shares_per_10000");
  if (format == nullptr || *format != kFormat || version == nullptr || *version != kVersion ||
      digest == nullptr || layers == nullptr || !layers->is_array())
    return damaged(name);
  if (*digest != model.hex())
    return fail(ErrorCode::kInvalidArgument, "{}: of another model", name);
  ExpertShares shares;
  for (const Json& layer : *layers) {
    SLUICE_ASSIGN(shares.emplace_back(), parse_layer(layer, name));
  }
  return shares;
}

}  // namespace sluice::runtime
