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
constexpr std::pair<std::string_view, ReadPath> kReadPaths[] = {
    {"auto", ReadPath::kAuto}, {"io_uring", ReadPath::kRing}, {"threads", ReadPath::kThreads}};
constexpr std::pair<std::string_view, Compat> kCompats[] = {{"transformers", Compat::kTransformers},
                                                            {"mlx", Compat::kMlx}};

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

Result<ReadPath> parse_read_path(std::string_view name) {
  for (const auto& [known, path] : kReadPaths)
    if (known == name) return path;
  return fail(ErrorCode::kInvalidArgument, "\"{}\" is none of auto, io_uring and threads", name);
}

Result<Compat> parse_compat(std::string_view name) {
  for (const auto& [known, compat] : kCompats)
    if (known == name) return compat;
  return fail(ErrorCode::kInvalidArgument, "\"{}\" is none of transformers and mlx", name);
}

}  // namespace sluice::runtime
