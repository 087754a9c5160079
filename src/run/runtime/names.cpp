// Spellings of the engine's choices.
#include <array>

#include "runtime/engine.h"

namespace sluice::runtime {
namespace {

constexpr std::pair<std::string_view, KvType> kKvTypes[] = {
    {"f32", KvType::kF32}, {"f16", KvType::kF16}, {"q8", KvType::kQ8}, {"q4", KvType::kQ4}};
constexpr std::pair<std::string_view, ActivationChoice> kActivations[] = {
    {"auto", ActivationChoice::kAuto},
    {"f32", ActivationChoice::kF32},
    {"i8", ActivationChoice::kI8}};

}  // namespace

Result<KvType> parse_kv_type(std::string_view name) {
  for (const auto& [known, type] : kKvTypes)
    if (known == name) return type;
  return fail(ErrorCode::kInvalidArgument, "\"{}\" is none of f32, f16, q8 and q4", name);
}

std::string_view kv_type_name(KvType type) {
  for (const auto& [name, known] : kKvTypes)
    if (known == type) return name;
  SLUICE_CHECK(false);
}

Result<ActivationChoice> parse_activations(std::string_view name) {
  for (const auto& [known, choice] : kActivations)
    if (known == name) return choice;
  return fail(ErrorCode::kInvalidArgument, "\"{}\" is none of auto, f32 and i8", name);
}

}  // namespace sluice::runtime
