#include "allocate/sensitivity.h"

#include <algorithm>
#include <cmath>

#include "allocate/data/embedded.h"
#include "base/json.h"

namespace sluice::allocate {
namespace {

constexpr double kAlphaMax = 1e9;

Result<double> weight_at(const Json& object, std::string_view key, std::string_view label) {
  SLUICE_ASSIGN(const double value, json_number(object, key, label));
  if (!(value >= 0 && value <= kAlphaMax))
    return fail(ErrorCode::kCorrupt, "{}: key \"{}\" should lie in [0, {}], found {}", label, key,
                kAlphaMax, value);
  return value;
}

Result<RoleWeight> parse_role(const Json& object, std::string_view label) {
  RoleWeight weight;
  SLUICE_ASSIGN(weight.alpha, weight_at(object, "alpha", label));
  if (json_find(object, "alpha_per_layer") != nullptr) {
    SLUICE_ASSIGN(weight.alpha_per_layer, weight_at(object, "alpha_per_layer", label));
  }
  return weight;
}

Result<double> parse_factor(const Json& depth, std::string_view key, std::string_view label) {
  if (json_find(depth, key) == nullptr) return 1.0;
  SLUICE_ASSIGN(const Json* object, json_object(depth, key, label));
  return weight_at(*object, "factor", label);
}

}  // namespace

std::string SensitivityTable::id() const {
  return fmt::format("{}@{}", name, digest.hex().substr(0, 16));
}

Result<SensitivityTable> parse_sensitivity(std::string_view text, std::string_view label) {
  SLUICE_ASSIGN(const Json json, parse_json(text, label));
  if (!json.is_object())
    return fail(ErrorCode::kCorrupt, "{}: should be an object, found {}", label, json.type_name());
  SLUICE_ASSIGN(const int64_t version, json_int(json, "version", 1, INT32_MAX, label));
  if (version != 1)
    return fail(ErrorCode::kUnsupported,
                "{}: sensitivity table version {} is newer than this program knows (1)", label,
                version);
  SensitivityTable table;
  SLUICE_ASSIGN(table.name, json_string(json, "name", label));
  table.digest = digest_of(dump_json(json));
  if (json_find(json, "unit") != nullptr) {
    SLUICE_ASSIGN(const std::string unit, json_string(json, "unit", label));
    if (unit != "nats")
      return fail(
          ErrorCode::kUnsupported,
          "{}: weights are in \"{}\"; this program knows \"nats\" and tables without a unit", label,
          unit);
    table.in_nats = true;
  }

  if (json_find(json, "default") != nullptr) {
    SLUICE_ASSIGN(const Json* object, json_object(json, "default", label));
    SLUICE_ASSIGN(table.fallback, parse_role(*object, fmt::format("{}: default", label)));
  }
  if (json_find(json, "roles") != nullptr) {
    SLUICE_ASSIGN(const Json* roles, json_object(json, "roles", label));
    for (const auto& [role, object] : roles->items()) {
      SLUICE_ASSIGN(table.roles[role], parse_role(object, fmt::format("{}: role {}", label, role)));
    }
  }
  if (json_find(json, "depth") != nullptr) {
    SLUICE_ASSIGN(const Json* depth, json_object(json, "depth", label));
    SLUICE_ASSIGN(table.first_layer_factor, parse_factor(*depth, "first_layer", label));
    SLUICE_ASSIGN(table.last_layer_factor, parse_factor(*depth, "last_layer", label));
  }
  if (json_find(json, "modules") != nullptr) {
    SLUICE_ASSIGN(const Json* modules, json_object(json, "modules", label));
    for (const auto& entry : modules->items()) {
      SLUICE_ASSIGN(table.modules[entry.key()], weight_at(*modules, entry.key(), label));
    }
  }
  return table;
}

SensitivityTable builtin_sensitivity() {
  auto table = parse_sensitivity(embedded_sensitivity_json(), "built-in sensitivity table");
  SLUICE_CHECK(table.has_value());
  return std::move(*table);
}

std::vector<double> module_weights(const SensitivityTable& table, std::span<const Item> items) {
  int last_layer = -1;
  bool has_head = false;
  for (const Item& item : items) {
    last_layer = std::max(last_layer, item.layer);
    has_head |= item.role == "head";
  }
  const double layers = static_cast<double>(last_layer) + 1;
  const auto role_weight = [&](std::string_view role) {
    const auto found = table.roles.find(role);
    const RoleWeight& weight = found == table.roles.end() ? table.fallback : found->second;
    return weight.alpha + weight.alpha_per_layer * layers;
  };

  std::vector<double> weights;
  weights.reserve(items.size());
  for (const Item& item : items) {
    if (!item.quantizable) {
      weights.push_back(0);
      continue;
    }
    const auto measured = table.modules.find(item.tensor_name());
    if (measured != table.modules.end()) {
      weights.push_back(measured->second);
      continue;
    }
    double weight = role_weight(item.role);
    if (item.role == "embedding" && !has_head) weight += role_weight("head");
    if (item.layer == 0) {
      weight *= table.first_layer_factor;
    } else if (item.layer >= 0 && item.layer == last_layer) {
      weight *= table.last_layer_factor;
    }
    weights.push_back(weight);
  }
  return weights;
}

}  // namespace sluice::allocate
