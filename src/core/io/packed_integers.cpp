// Integers of few bits with a scale and a zero per group: compressed-tensors' pack-quantized, GPTQ
// and AWQ.
#include <algorithm>
#include <optional>

#include "base/checked.h"
#include "io/packed_joiner.h"

namespace sluice::io {
namespace {

using numerics::DType;
using numerics::Shape;

constexpr uint64_t kWordBits = 32;
constexpr std::string_view kCodes = ".qweight", kZeros = ".qzeros", kScales = ".scales",
                           kIndices = ".g_idx", kWeight = ".weight";

// One way in which weights may be packed. group 0: one for the whole row.
struct Grouping {
  uint8_t bits = 0;
  uint32_t group = 0;
  bool in_order = true;  // columns of a group follow each other
  bool operator==(const Grouping&) const = default;
};

uint64_t groups_of(uint64_t columns, uint64_t group) {
  return group == 0 ? 1 : columns / group + (columns % group != 0);
}

uint32_t span_of(const Grouping& grouping, uint64_t columns) {
  return grouping.group == 0 ? static_cast<uint32_t>(columns) : grouping.group;
}

uint8_t middle(uint8_t bits) { return static_cast<uint8_t>(1u << (bits - 1)); }

bool flag(const Json& settings, std::string_view key, bool otherwise) {
  const Json* value = json_find(settings, key);
  return value != nullptr && value->is_boolean() ? value->get<bool>() : otherwise;
}

// ---- compressed-tensors ----

// Of one entry of config_groups; nothing for entries that pack no integers.
Result<std::optional<Grouping>> grouping_of(const Joiner& joiner, const Json& entry) {
  const Json* weights = json_find(entry, "weights");
  const Json* type = weights != nullptr ? json_find(*weights, "type") : nullptr;
  if (type == nullptr || *type != "int") return std::nullopt;
  const std::string where = joiner.label() + ": config_groups";
  Grouping grouping;
  SLUICE_ASSIGN(const int64_t bits, json_int(*weights, "num_bits", 1, 32, where));
  if (bits != 4 && bits != 8)
    return fail(ErrorCode::kUnsupported,
                "{}: packed integers of {} bits are not supported, only of 4 and 8", where, bits);
  grouping.bits = static_cast<uint8_t>(bits);
  if (!flag(*weights, "symmetric", true))
    return fail(ErrorCode::kUnsupported,
                "{}: packed integers with zero points (symmetric: false) are not supported", where);
  const Json* strategy = json_find(*weights, "strategy");
  if (strategy != nullptr && *strategy == "group") {
    SLUICE_ASSIGN(const int64_t group, json_int(*weights, "group_size", 1, 1 << 20, where));
    grouping.group = static_cast<uint32_t>(group);
  } else if (strategy != nullptr && *strategy != "channel" && *strategy != "tensor") {
    return fail(ErrorCode::kUnsupported, "{}: strategy {} is not known", where,
                dump_json(*strategy));
  }
  const Json* order = json_find(*weights, "actorder");
  grouping.in_order = order == nullptr || order->is_null() || *order == "weight" ||
                      *order == "static" || *order == false;
  return grouping;
}

// The values' columns if the parts are packed like that.
std::optional<uint64_t> columns_as(const Grouping& grouping, const Shape& codes,
                                   const Shape& scales) {
  const auto bits = checked_mul(codes.back(), kWordBits);
  if (!bits) return std::nullopt;
  const uint64_t columns = *bits / grouping.bits;
  if (columns == 0 || columns > UINT32_MAX || scales.back() != groups_of(columns, grouping.group))
    return std::nullopt;
  return columns;
}

// ---- GPTQ and AWQ ----

struct ColumnPacked {
  StoredTensor *codes, *zeros, *scales, *indices;
};

Result<ColumnPacked> parts_beside(Joiner& joiner, StoredTensor& codes) {
  const std::string stem = codes.info.name.substr(0, codes.info.name.size() - kCodes.size());
  const ColumnPacked parts{&codes, joiner.find(stem, kZeros), joiner.find(stem, kScales),
                           joiner.find(stem, kIndices)};
  for (const auto& [part, ending] :
       {std::pair{parts.scales, kScales}, std::pair{parts.zeros, kZeros}})
    if (part == nullptr)
      return fail(ErrorCode::kCorrupt, "{}: {} has no {} beside it", joiner.path(),
                  described(codes), ending.substr(1));
  return parts;
}

Result<Grouping> grouping_from(const Joiner& joiner, const Json& settings,
                               std::string_view bits_key, std::string_view group_key) {
  const std::string where = joiner.label() + ": quantization_config";
  SLUICE_ASSIGN(const int64_t bits, json_int(settings, bits_key, 1, 32, where));
  SLUICE_ASSIGN(const int64_t group, json_int(settings, group_key, -1, 1 << 20, where));
  if (bits != 4 && bits != 8)
    return fail(ErrorCode::kUnsupported, "{}: {} bits are not supported, only 4 and 8", where,
                bits);
  if (group == 0) return fail(ErrorCode::kCorrupt, "{}: {} is 0", where, group_key);
  return Grouping{static_cast<uint8_t>(bits), group < 0 ? 0 : static_cast<uint32_t>(group)};
}

bool is_matrix(const StoredTensor& tensor, DType dtype, const std::optional<uint64_t>& rows,
               const std::optional<uint64_t>& columns) {
  return rows && columns && tensor.info.dtype == dtype &&
         tensor.info.shape == Shape{*rows, *columns};
}

// Codes [K·bits/32, N] by input, or [K, N·bits/32]; zeros [groups, N·bits/32]; scales [groups, N].
Status join_columns(Joiner& joiner, const Grouping& grouping, const ColumnPacked& parts, bool awq,
                    Packing packing) {
  StoredTensor& codes = *parts.codes;
  const uint64_t per_word = kWordBits / grouping.bits;
  if (codes.info.dtype != DType::kI32 || codes.info.shape.size() != 2)
    return fail(ErrorCode::kCorrupt, "{}: {} should be I32 with two axes", joiner.path(),
                described(codes));
  const auto packed_axis = checked_mul(codes.info.shape[awq ? 1 : 0], per_word);
  const uint64_t other_axis = codes.info.shape[awq ? 0 : 1];
  const uint64_t columns = awq ? other_axis : packed_axis.value_or(0);
  const uint64_t rows = awq ? packed_axis.value_or(0) : other_axis;
  const uint64_t groups = groups_of(columns, grouping.group);
  const std::string how =
      grouping.group == 0
          ? fmt::format(" at {} bits and one group", grouping.bits)
          : fmt::format(" at {} bits and groups of {}", grouping.bits, grouping.group);
  if (rows == 0 || columns == 0 || columns > UINT32_MAX || rows > UINT32_MAX)
    return fail(ErrorCode::kCorrupt, "{}: {} has no such shape", joiner.path(), described(codes));
  if (columns % 8 != 0 || rows % per_word != 0)
    return fail(ErrorCode::kUnsupported, "{}: {} has {} rows of {} columns, no multiples of {}",
                joiner.path(), described(codes), rows, columns, 8);
  if (!is_plain_float(parts.scales->info.dtype) ||
      !is_matrix(*parts.scales, parts.scales->info.dtype, groups, rows))
    return joiner.misfit(*parts.scales, codes, how);
  if (!is_matrix(*parts.zeros, DType::kI32, groups, rows / per_word))
    return joiner.misfit(*parts.zeros, codes, how);
  if (parts.indices != nullptr &&
      (parts.indices->info.dtype != DType::kI32 || parts.indices->info.shape != Shape{columns}))
    return joiner.misfit(*parts.indices, codes, how);

  packing.kind = PackingKind::kIntegers;
  packing.columns_spanned = span_of(grouping, columns);
  packing.model_dtype = parts.scales->info.dtype;
  packing.bits = grouping.bits;
  packing.zero = middle(grouping.bits);
  packing.has_zeros = true;
  // Fields of a byte are elements.
  const bool nibbles = grouping.bits == 4;
  const DType field = nibbles ? DType::kU32 : DType::kU8;
  packing.parts[0] =
      awq ? columns_of(codes, DType::kU32, PartOrder::kAwqColumns) : columns_of(codes, DType::kU32);
  packing.parts[1] = columns_of(*parts.scales, parts.scales->info.dtype);
  packing.parts[2] = columns_of(*parts.zeros, field,
                                awq       ? PartOrder::kAwqColumns
                                : nibbles ? PartOrder::kNibbleColumns
                                          : PartOrder::kColumns);
  packing.part_count = 3;
  if (parts.indices != nullptr) {
    packing.has_indices = true;
    packing.parts[packing.part_count++] = part_of(*parts.indices, static_cast<uint32_t>(rows));
  }
  const std::string& name = codes.info.name;
  joiner.pack(codes, {rows, columns}, packing, {parts.zeros, parts.scales, parts.indices},
              name.substr(0, name.size() - kCodes.size()) + std::string(kWeight));
  return {};
}

}  // namespace

Status join_packed_integers(Joiner& joiner, const Json& settings, const std::string& stem,
                            StoredTensor& codes, StoredTensor& scales) {
  const Json* entries = json_find(settings, "config_groups");
  std::optional<Grouping> fitting;
  uint64_t columns = 0;
  const Shape& shape = codes.info.shape;
  const bool plain = shape.size() == 2 && scales.info.shape.size() == 2 &&
                     shape[0] == scales.info.shape[0] && shape[0] > 0 && shape[0] <= UINT32_MAX &&
                     is_plain_float(scales.info.dtype);
  if (entries != nullptr && entries->is_object() && plain) {
    for (const auto& [name, entry] : entries->items()) {
      SLUICE_ASSIGN(const auto grouping, grouping_of(joiner, entry));
      const auto found = grouping ? columns_as(*grouping, shape, scales.info.shape) : std::nullopt;
      if (!found) continue;
      if (fitting && *fitting != *grouping)
        return fail(ErrorCode::kUnsupported,
                    "{}: {} may be packed at {} or at {} bits; config_groups do not tell",
                    joiner.path(), described(codes), fitting->bits, grouping->bits);
      fitting = grouping;
      columns = *found;
    }
  }
  if (!fitting) return joiner.misfit(scales, codes, " in any of the config_groups");
  Packing packing{.kind = PackingKind::kIntegers,
                  .columns_spanned = span_of(*fitting, columns),
                  .model_dtype = scales.info.dtype,
                  .bits = fitting->bits,
                  .zero = middle(fitting->bits),
                  .in_order = fitting->in_order,
                  .parts = {part_of(codes), part_of(scales)},
                  .part_count = 2};
  packing.parts[0].dtype = DType::kU32;
  StoredTensor* indices = joiner.find(stem, "_g_idx");
  if (indices != nullptr) {
    if (indices->info.dtype != DType::kI32 || indices->info.shape != Shape{columns})
      return joiner.misfit(*indices, codes, " as its group indices");
    packing.has_indices = true;
    packing.parts[packing.part_count++] = part_of(*indices, static_cast<uint32_t>(shape[0]));
  } else if (!fitting->in_order) {
    return fail(ErrorCode::kCorrupt, "{}: {} has no {}_g_idx beside it, though actorder is set",
                joiner.path(), described(codes), stem);
  }
  joiner.pack(codes, {shape[0], columns}, packing, {&scales, indices}, stem);
  return {};
}

Status join_gptq(Joiner& joiner, const Json& settings) {
  const std::string where = joiner.label() + ": quantization_config";
  const Json* format = json_find(settings, "checkpoint_format");
  const bool second = format != nullptr && *format == "gptq_v2";
  if (format != nullptr && !format->is_null() && !second && *format != "gptq")
    return fail(ErrorCode::kUnsupported,
                "{}: checkpoint_format {} is not supported, only \"gptq\" and \"gptq_v2\"", where,
                dump_json(*format));
  SLUICE_ASSIGN(const Grouping grouping, grouping_from(joiner, settings, "bits", "group_size"));
  Packing packing{.zeros_are_less_one = !second,
                  .in_order = !flag(settings, "desc_act", true),
                  .symmetric = flag(settings, "sym", false)};
  for (StoredTensor& codes : joiner.tensors()) {
    if (!codes.info.name.ends_with(kCodes)) continue;
    SLUICE_ASSIGN(const ColumnPacked parts, parts_beside(joiner, codes));
    if (parts.indices == nullptr && !packing.in_order)
      return fail(ErrorCode::kCorrupt, "{}: {} has no g_idx beside it, though desc_act may be true",
                  joiner.path(), described(codes));
    SLUICE_TRY(join_columns(joiner, grouping, parts, false, packing));
  }
  return {};
}

Status join_awq(Joiner& joiner, const Json& settings) {
  const std::string where = joiner.label() + ": quantization_config";
  const Json* version = json_find(settings, "version");
  if (version != nullptr && *version != "gemm" && *version != "GEMM")
    return fail(ErrorCode::kUnsupported, "{}: version {} is not supported, only \"gemm\"", where,
                dump_json(*version));
  const bool short_keys = json_find(settings, "bits") == nullptr;
  SLUICE_ASSIGN(const Grouping grouping,
                grouping_from(joiner, settings, short_keys ? "w_bit" : "bits",
                              short_keys ? "q_group_size" : "group_size"));
  if (grouping.bits != 4)
    return fail(ErrorCode::kUnsupported, "{}: {} bits are not supported, only 4", where,
                grouping.bits);
  for (StoredTensor& codes : joiner.tensors()) {
    if (!codes.info.name.ends_with(kCodes)) continue;
    SLUICE_ASSIGN(ColumnPacked parts, parts_beside(joiner, codes));
    parts.indices = nullptr;
    SLUICE_TRY(join_columns(joiner, grouping, parts, true,
                            Packing{.symmetric = !flag(settings, "zero_point", true)}));
  }
  return {};
}

}  // namespace sluice::io
