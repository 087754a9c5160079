// Where the rows of a module come from.
#include <algorithm>

#include "families/mapper.h"

namespace sluice::families {

using io::StoredTensor;
using numerics::Shape;

SourceRule Mapper::choose_source(const ModuleRule& rule, int layer) const {
  if (gguf_) {
    const bool other = !rule.gguf_other.name.empty() &&
                       names_.find(expand(rule.gguf, static_cast<uint64_t>(layer), 0)) == nullptr;
    return other ? rule.gguf_other : SourceRule{rule.gguf, rule.gguf_part};
  }
  for (const SourceRule& source : rule.sources)
    if (!source.name.empty() && names_.find(expand(source.name, layer, 0)) != nullptr)
      return source;
  return rule.sources[0];
}

// The tensor of that name if it is there with a float type and the expected shape.
const StoredTensor* Mapper::take(const std::string& name, const OutputModule& module,
                                 const Shape& expected) {
  const StoredTensor* tensor = names_.find(name);
  if (listing_ && listed_names_.insert(name).second)
    listed_.push_back(
        {name, module.keep_dtype ? numerics::DType::kF32 : numerics::DType::kBF16, expected});
  if (tensor == nullptr) {
    if (!listing_ || !checkpoint_.tensors.empty())
      missing_.add(fmt::format("{} {}", name, numerics::shape_text(expected)));
    return nullptr;
  }
  used_[tensor - checkpoint_.tensors.data()] = true;
  if (listing_) return nullptr;
  const numerics::DTypeInfo& info = dtype_info(tensor->info.dtype);
  if (!info.is_float) {
    wrong_.add(fmt::format("{} should be of a float type and is {}", name, info.name));
    return nullptr;
  }
  const bool turned = unconverted_ && module.filters &&
                      tensor->info.shape == Shape{expected[0], expected[2], expected[1]};
  // llama.cpp leaves out axes of one element.
  numerics::Shape squeezed = expected;
  if (gguf_ && expected.size() > 1) std::erase(squeezed, 1u);
  if (tensor->info.shape != expected && tensor->info.shape != squeezed && !turned) {
    wrong_.add(fmt::format("{} should have shape {} and has {}", name,
                           numerics::shape_text(expected),
                           numerics::shape_text(tensor->info.shape)));
    return nullptr;
  }
  return tensor;
}

// kv_b_proj holds, head after head, the rows of the keys and then those of the values.
void Mapper::add_head_sources(const SourceRule& source, OutputModule& module) {
  const uint64_t keys = dims_.qk_nope_head_dim;
  const uint64_t head_rows = keys + dims_.v_head_dim;
  const StoredTensor* tensor = take(expand(source.name, static_cast<uint64_t>(module.layer), 0),
                                    module, {dims_.heads * head_rows, dims_.kv_lora_rank});
  if (tensor == nullptr) return;
  const bool transposed = source.part == Part::kHeadKeys;
  for (uint64_t head = 0; head < dims_.heads; ++head)
    module.recipe.sources.push_back(
        {.tensor = static_cast<uint32_t>(tensor - checkpoint_.tensors.data()),
         .first_row = head * head_rows + (transposed ? 0 : keys),
         .rows = transposed ? dims_.kv_lora_rank : dims_.v_head_dim,
         .order = transposed ? RowOrder::kTransposed : RowOrder::kInOrder});
}

// A stack of [in, out] matrices: an expert's rows are columns of its matrix, of all or of half.
void Mapper::add_column_sources(const SourceRule& source, OutputModule& module) {
  const uint64_t experts = module.experts(), columns = module.columns();
  const uint64_t rows = module.rows() / experts;
  const uint64_t stored_columns = source.part == Part::kColumns ? rows : 2 * rows;
  const StoredTensor* tensor = take(expand(source.name, static_cast<uint64_t>(module.layer), 0),
                                    module, {experts, columns, stored_columns});
  if (tensor == nullptr) return;
  const bool alternating = source.part == Part::kEvenColumns || source.part == Part::kOddColumns;
  uint64_t first_column = 0;
  if (source.part == Part::kSecondColumns) first_column = rows;
  if (source.part == Part::kOddColumns) first_column = 1;
  for (uint64_t expert = 0; expert < experts; ++expert)
    module.recipe.sources.push_back(
        {.tensor = static_cast<uint32_t>(tensor - checkpoint_.tensors.data()),
         .first_row = expert * columns,
         .rows = rows,
         .order = RowOrder::kTransposed,
         .stride = alternating ? uint64_t{2} : uint64_t{1},
         .first_column = first_column});
}

// Twice the rows, or of a stack of vectors twice the elements, of which every other one is meant.
void Mapper::add_alternating_sources(const SourceRule& source, OutputModule& module) {
  Shape expected = module.shape;
  module.by_element = module.role == Role::kBias;
  expected[expected.size() - (module.by_element ? 1 : 2)] *= 2;
  const StoredTensor* tensor =
      take(expand(source.name, static_cast<uint64_t>(module.layer), 0), module, expected);
  if (tensor == nullptr) return;
  module.recipe.sources.push_back(
      {.tensor = static_cast<uint32_t>(tensor - checkpoint_.tensors.data()),
       .first_row = source.part == Part::kOddRows ? uint64_t{1} : uint64_t{0},
       .rows = module.rows(),
       .stride = 2});
}

// Output head h, of key head h / per_key, is stored behind the heads of all keys that come before
// it in their own key head's row.
void Mapper::add_value_heads(const SourceRule& source, const ModuleRule& rule,
                             OutputModule& module) {
  module.by_element = module.shape.size() == 1;
  const StoredTensor* tensor =
      take(expand(source.name, static_cast<uint64_t>(module.layer), 0), module, module.shape);
  if (tensor == nullptr) return;
  const auto index = static_cast<uint32_t>(tensor - checkpoint_.tensors.data());
  const uint64_t keys = dims_.linear_key_heads, heads = dims_.linear_value_heads;
  const uint64_t per_key = heads / keys;
  if (rule.gguf_heads == ValueHeads::kColumns) {
    module.recipe.sources.push_back({.tensor = index, .rows = module.rows()});
    module.recipe.columns = {keys, per_key, module.columns() / heads};
    return;
  }
  const uint64_t first =
      rule.gguf_heads == ValueHeads::kRowsBehindKeys ? 2 * keys * dims_.linear_key_head_dim : 0;
  const uint64_t rows = (module.rows() - first) / heads;
  if (first > 0) module.recipe.sources.push_back({.tensor = index, .rows = first});
  for (uint64_t head = 0; head < heads; ++head)
    module.recipe.sources.push_back(
        {.tensor = index,
         .first_row = first + (head % per_key * keys + head / per_key) * rows,
         .rows = rows});
}

void Mapper::add_qkv_and_gate(OutputModule& module) {
  const auto layer = static_cast<uint64_t>(module.layer);
  const uint64_t keys = dims_.linear_key_heads, key = dims_.linear_key_head_dim;
  const uint64_t values = dims_.length(Dim::kLinearValueRows) / keys;
  const StoredTensor* qkv = take(expand("blk.{L}.attn_qkv.weight", layer, 0), module,
                                 {dims_.length(Dim::kLinearQkvRows), dims_.hidden_size});
  const StoredTensor* gate = take(expand("blk.{L}.attn_gate.weight", layer, 0), module,
                                  {keys * values, dims_.hidden_size});
  if (qkv == nullptr || gate == nullptr) return;
  const auto add = [&](const StoredTensor* tensor, uint64_t first, uint64_t rows) {
    module.recipe.sources.push_back(
        {.tensor = static_cast<uint32_t>(tensor - checkpoint_.tensors.data()),
         .first_row = first,
         .rows = rows});
  };
  for (uint64_t head = 0; head < keys; ++head) {
    add(qkv, head * key, key);
    add(qkv, (keys + head) * key, key);
    add(qkv, 2 * keys * key + head * values, values);
    add(gate, head * values, values);
  }
}

void Mapper::add_sources(const SourceRule& source, OutputModule& module, RowOrder order) {
  switch (source.part) {
    case Part::kHeadKeys:
    case Part::kHeadValues: return add_head_sources(source, module);
    case Part::kQkvAndGate: return add_qkv_and_gate(module);
    case Part::kEvenRows:
    case Part::kOddRows: return add_alternating_sources(source, module);
    case Part::kColumns:
    case Part::kFirstColumns:
    case Part::kSecondColumns:
    case Part::kEvenColumns:
    case Part::kOddColumns: return add_column_sources(source, module);
    default: break;
  }
  const auto layer = static_cast<uint64_t>(std::max(module.layer, 0));
  const bool per_expert = source.name.find("{E}") != std::string_view::npos;
  const uint64_t experts = module.experts();
  const uint64_t expert_rows = module.rows() / experts;
  Shape expected = module.shape;
  if (per_expert) expected.erase(expected.begin());
  if (source.part != Part::kAll) expected[expected.size() - 2] *= 2;

  for (uint64_t expert = 0; expert < (per_expert ? experts : 1); ++expert) {
    const StoredTensor* tensor = take(expand(source.name, layer, expert), module, expected);
    if (tensor == nullptr) {
      if (too_many()) return;
      continue;
    }
    RowSource rows{.tensor = static_cast<uint32_t>(tensor - checkpoint_.tensors.data()),
                   .rows = per_expert ? expert_rows : module.rows(),
                   .order = order};
    if (order == RowOrder::kUninterleaveHeads) rows.head_rows = dims_.head_dim;
    if (source.part == Part::kAll) {
      module.recipe.sources.push_back(rows);
      continue;
    }
    for (uint64_t e = 0; e < experts; ++e) {
      const uint64_t half = source.part == Part::kFirstHalf ? 0 : expert_rows;
      rows.first_row = e * 2 * expert_rows + half;
      rows.rows = expert_rows;
      module.recipe.sources.push_back(rows);
    }
  }
}

}  // namespace sluice::families
