// The engine that reads a family's table: it finds the source of every output module, checks types
// and shapes, and accounts for every source tensor. What a family looks like is in its own file.
#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>

#include "base/units.h"
#include "families/family.h"
#include "io/packed_tensors.h"

namespace sluice::families {
namespace {

using io::Checkpoint;
using io::SourceKind;
using io::StoredTensor;
using numerics::Shape;

// How many names a message lists, and at how many problems the search for more stops.
constexpr size_t kNamedMax = 4;
constexpr size_t kProblemsMax = 1000;

std::string expand(std::string_view pattern, uint64_t layer, uint64_t expert) {
  std::string name;
  for (size_t i = 0; i < pattern.size();) {
    const std::string_view rest = pattern.substr(i);
    const bool is_layer = rest.starts_with("{L}");
    if (is_layer || rest.starts_with("{E}")) {
      name += std::to_string(is_layer ? layer : expert);
      i += 3;
    } else {
      name += pattern[i++];
    }
  }
  return name;
}

// Whether name is the pattern with digits for {L}.
bool matches(std::string_view pattern, std::string_view name) {
  const size_t hole = pattern.find("{L}");
  if (hole == std::string_view::npos) return name == pattern;
  const std::string_view tail = pattern.substr(hole + 3);
  if (!name.starts_with(pattern.substr(0, hole)) || !name.ends_with(tail)) return false;
  if (name.size() <= hole + tail.size()) return false;
  const std::string_view digits = name.substr(hole, name.size() - hole - tail.size());
  return std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// Names of one kind of problem: the first few, and how many there are.
class Problems {
 public:
  void add(std::string text) {
    if (count_++ < kNamedMax) texts_.push_back(std::move(text));
  }
  size_t count() const { return count_; }
  std::string list() const {
    std::string list = fmt::format("{}", fmt::join(texts_, ", "));
    if (count_ > texts_.size()) list += fmt::format(" and {} more", count_ - texts_.size());
    return list;
  }

 private:
  std::vector<std::string> texts_;
  size_t count_ = 0;
};

// A checkpoint's tensors by the names that a family's rules have for them. Borrows the checkpoint.
class SourceNames {
 public:
  // kCorrupt: two tensors stand for the same one.
  static Result<SourceNames> make(const Checkpoint& checkpoint, const Family& family) {
    SourceNames names(checkpoint);
    if (checkpoint.kind == SourceKind::kGguf || family.source_prefixes.empty()) return names;
    names.renamed_ = true;
    for (const StoredTensor& tensor : checkpoint.tensors) {
      const auto [other, is_new] =
          names.by_name_.emplace(own_name(family, tensor.info.name), &tensor);
      if (!is_new)
        return fail(ErrorCode::kCorrupt, "{}: {} and {} are the same tensor of a {} model",
                    checkpoint.path, other->second->info.name, tensor.info.name, family.name);
    }
    return names;
  }
  static std::string own_name(const Family& family, std::string_view name) {
    for (const auto& [from, to] : family.source_prefixes)
      if (name.starts_with(from)) return std::string(to).append(name.substr(from.size()));
    return std::string(name);
  }
  const StoredTensor* find(const std::string& name) const {
    if (!renamed_) return checkpoint_->find(name);
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : found->second;
  }

 private:
  explicit SourceNames(const Checkpoint& checkpoint) : checkpoint_(&checkpoint) {}
  const Checkpoint* checkpoint_;
  bool renamed_ = false;
  std::unordered_map<std::string, const StoredTensor*> by_name_;
};

bool is_unconverted(const Checkpoint& checkpoint, const Family& family) {
  if (checkpoint.kind == SourceKind::kGguf || family.unconverted == Unconverted::kNever)
    return false;
  for (const StoredTensor& tensor : checkpoint.tensors) {
    const io::TensorInfo& info = tensor.info;
    if (info.name.find("conv1d.weight") != std::string::npos && !info.shape.empty() &&
        info.shape.back() != 1)
      return true;
    if (family.unconverted == Unconverted::kSeparateExperts &&
        info.name.starts_with("model.layers.") &&
        info.name.ends_with(".mlp.experts.0.up_proj.weight"))
      return true;
  }
  return false;
}

class Mapper {
 public:
  Mapper(const Checkpoint& checkpoint, const SourceNames& names, const Family& family,
         const ModelDims& dims, bool tied, Arrangement arrangement)
      : checkpoint_(checkpoint),
        names_(names),
        family_(family),
        dims_(dims),
        gguf_(checkpoint.kind == SourceKind::kGguf),
        tied_(tied),
        as_stored_(gguf_ && arrangement == Arrangement::kAsStored),
        unconverted_(is_unconverted(checkpoint, family)),
        used_(checkpoint.tensors.size(), false) {}

  // Fills modules, dropped and layers.
  Status run(ModelMap& map);
  // Instead: what run() would look for, by names alone.
  Result<std::vector<io::TensorInfo>> outline() {
    listing_ = true;
    ModelMap map;
    add_all_modules(map);
    if (checkpoint_.tensors.empty()) return std::move(listed_);
    account_for_the_rest(map);
    SLUICE_TRY(report());
    return std::move(listed_);
  }

 private:
  void add_all_modules(ModelMap& map);
  void add_modules(std::span<const ModuleRule> rules, int layer, ModelMap& map);
  bool exists(const ModuleRule& rule, int layer) const;
  SourceRule choose_source(const ModuleRule& rule, int layer) const;
  void add_sources(const SourceRule& source, OutputModule& module, RowOrder order);
  void add_head_sources(const SourceRule& source, OutputModule& module);
  void add_column_sources(const SourceRule& source, OutputModule& module);
  void add_alternating_sources(const SourceRule& source, OutputModule& module);
  void add_value_heads(const SourceRule& source, const ModuleRule& rule, OutputModule& module);
  void add_qkv_and_gate(OutputModule& module);
  const StoredTensor* take(const std::string& name, const OutputModule& module,
                           const Shape& expected);
  bool dropped_on_purpose(std::string_view name) const;
  const OtherPart* other_part(std::string_view name) const;
  void account_for_the_rest(ModelMap& map);
  Status report() const;
  bool too_many() const { return missing_.count() + wrong_.count() >= kProblemsMax; }

  const Checkpoint& checkpoint_;
  const SourceNames& names_;
  const Family& family_;
  const ModelDims& dims_;
  const bool gguf_;
  const bool tied_;
  const bool as_stored_;
  const bool unconverted_;
  std::vector<bool> used_;
  Problems missing_, wrong_, left_over_;
  bool listing_ = false;  // what is looked for goes here, whole
  std::vector<io::TensorInfo> listed_;
  std::set<std::string> listed_names_;
};

bool Mapper::exists(const ModuleRule& rule, int index) const {
  const auto layer = static_cast<uint64_t>(std::max(index, 0));
  const bool borrows = layer >= dims_.first_borrowing_layer;
  const bool wide = borrows && dims_.first_borrowing_layer > 0 && dims_.double_wide_mlp;
  const auto is = [&](LayerKind kind) { return dims_.is_kind(layer, kind); };
  const bool shared = is(LayerKind::kMoe) && dims_.shared_intermediate_size > 0;
  const bool latent = is(LayerKind::kMoe) && dims_.expert_latent_size > 0;
  switch (rule.when) {
    case When::kAlways: return true;
    case When::kUntied: return !tied_;
    case When::kDenseMlp: return !dims_.sparse_layer(layer);
    case When::kSparseMlp: return dims_.sparse_layer(layer);
    case When::kSharedExperts:
      return dims_.shared_intermediate_size > 0 && dims_.sparse_layer(layer);
    case When::kQLora: return dims_.q_lora_rank > 0;
    case When::kFullQ: return dims_.q_lora_rank == 0;
    case When::kQLoraBias: return dims_.q_lora_rank > 0 && dims_.attention_bias;
    case When::kAttentionBias: return dims_.attention_bias;
    case When::kMlpBias: return dims_.mlp_bias;
    case When::kFullAttention: return !dims_.linear_layer(layer);
    case When::kFullAttentionBias: return dims_.attention_bias && !dims_.linear_layer(layer);
    case When::kLinearAttention: return dims_.linear_layer(layer);
    case When::kWindowed: return !dims_.global_layer(layer);
    case When::kGlobal: return dims_.global_layer(layer);
    case When::kWindowedKv: return !dims_.global_layer(layer) && !borrows;
    case When::kGlobalKv: return dims_.global_layer(layer) && !borrows;
    case When::kGlobalV: return dims_.global_layer(layer) && !borrows && !dims_.keys_are_values;
    case When::kNarrowMlp: return !wide;
    case When::kWideMlp: return wide;
    case When::kLayerInputs: return dims_.layer_input_size > 0;
    case When::kQkNorm: return dims_.qk_norm;
    case When::kMambaLayer: return is(LayerKind::kMamba);
    case When::kMambaConvBias: return is(LayerKind::kMamba) && dims_.conv_bias;
    case When::kMambaProjBias: return is(LayerKind::kMamba) && dims_.mamba_proj_bias;
    case When::kAttentionLayer: return is(LayerKind::kAttention);
    case When::kAttentionLayerBias: return is(LayerKind::kAttention) && dims_.attention_bias;
    case When::kMlpLayer: return is(LayerKind::kMlp);
    case When::kMlpLayerBias: return is(LayerKind::kMlp) && dims_.mlp_bias;
    case When::kMoeLayer: return is(LayerKind::kMoe);
    case When::kMoeLayerShared: return shared;
    case When::kMoeLayerSharedBias: return shared && dims_.mlp_bias;
    case When::kMoeLayerLatent: return latent;
    case When::kMoeLayerLatentBias: return latent && dims_.mlp_bias;
  }
  SLUICE_CHECK(false);
}

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

void Mapper::add_modules(std::span<const ModuleRule> rules, int layer, ModelMap& map) {
  for (const ModuleRule& rule : rules) {
    if (!exists(rule, layer)) continue;
    const auto index = static_cast<uint64_t>(std::max(layer, 0));
    OutputModule module{.path = std::string(family_.output_prefix) + expand(rule.path, index, 0),
                        .parameter = std::string(rule.parameter),
                        .role = rule.role,
                        .layer = layer,
                        .shape = {},
                        .quantizable = rule.quantizable,
                        .bits_floor = rule.bits_floor,
                        .uniform_bits = rule.uniform_bits,
                        .keep_dtype = rule.keep_dtype,
                        .filters = rule.filters,
                        .recipe = {}};
    if (gguf_)
      module.recipe.step = rule.gguf_step;
    else if (rule.add_one && unconverted_)
      module.recipe.step = numerics::ValueStep::kAddOne;
    for (const Dim dim : rule.shape)
      if (dim != Dim::kNone) module.shape.push_back(dims_.length(dim));
    const RowOrder order = gguf_ ? rule.gguf_order : RowOrder::kInOrder;
    module.by_element = order != RowOrder::kInOrder && module.shape.size() == 1;
    SourceRule source = choose_source(rule, layer);
    const std::string own_name = fmt::format("{}.{}", rule.path, rule.parameter);
    if (source.name.empty()) source.name = own_name;
    const bool turns = gguf_ && rule.gguf_heads != ValueHeads::kInOrder && !as_stored_ &&
                       dims_.linear_value_heads != dims_.linear_key_heads;
    if (turns)
      add_value_heads(source, rule, module);
    else
      add_sources(source, module, order);
    map.modules.push_back(std::move(module));
    if (too_many()) return;
  }
}

// The number in "model.layers.N.…", or behind another prefix, or nothing.
std::optional<uint64_t> layer_number(std::string_view name,
                                     std::string_view prefix = "model.layers.") {
  if (!name.starts_with(prefix)) return std::nullopt;
  uint32_t layer = 0;
  const char* last = name.data() + name.size();
  const auto [end, error] = std::from_chars(name.data() + prefix.size(), last, layer);
  if (error != std::errc{} || end == last || *end != '.') return std::nullopt;
  return layer;
}

const OtherPart* Mapper::other_part(std::string_view name) const {
  const auto found = std::ranges::find_if(
      family_.other_parts, [&](const OtherPart& part) { return name.starts_with(part.prefix); });
  return found == family_.other_parts.end() ? nullptr : &*found;
}

bool Mapper::dropped_on_purpose(std::string_view name) const {
  if (tied_ && name == "lm_head.weight") return true;
  if (gguf_ && family_.gguf_extra_layers && layer_number(name, "blk.").value_or(0) >= dims_.layers)
    return true;
  if (family_.extra_layers_dropped && layer_number(name).value_or(0) >= dims_.layers) return true;
  for (const std::string_view pattern : gguf_ ? family_.gguf_dropped : family_.dropped)
    if (matches(pattern, name)) return true;
  return false;
}

std::string counted(size_t count, std::string_view one, std::string_view many) {
  return fmt::format("{} {}", count, count == 1 ? one : many);
}

void Mapper::account_for_the_rest(ModelMap& map) {
  struct Sum {
    size_t tensors = 0;
    uint64_t bytes = 0;
  };
  std::map<std::string_view, Sum> parts;
  for (size_t i = 0; i < used_.size(); ++i) {
    const StoredTensor& tensor = checkpoint_.tensors[i];
    const io::TensorInfo& info = tensor.info;
    if (used_[i]) continue;
    const std::string name = SourceNames::own_name(family_, info.name);
    const OtherPart* part = gguf_ ? nullptr : other_part(name);
    if (part != nullptr) {
      Sum& sum = parts[part->part];
      ++sum.tensors;
      sum.bytes += tensor.bytes;
    }
    if (part != nullptr || dropped_on_purpose(name))
      map.dropped.push_back(info.name);
    else
      left_over_.add(fmt::format("{} {}", info.name, numerics::shape_text(info.shape)));
  }
  for (const auto& [part, sum] : parts)
    map.notes.push_back(fmt::format("the {} is left out: {} of {}", part,
                                    counted(sum.tensors, "tensor", "tensors"),
                                    bytes_text(sum.bytes)));
}

Status Mapper::report() const {
  std::vector<std::string> parts;
  if (missing_.count() > 0)
    parts.push_back(
        fmt::format("{}: {}", counted(missing_.count(), "tensor is missing", "tensors are missing"),
                    missing_.list()));
  if (wrong_.count() > 0)
    parts.push_back(fmt::format(
        "{}: {}", counted(wrong_.count(), "tensor is wrong", "tensors are wrong"), wrong_.list()));
  if (too_many())
    parts.push_back("the search stopped there");
  else if (left_over_.count() > 0)
    parts.push_back(fmt::format(
        "{}: {}", counted(left_over_.count(), "tensor does not belong", "tensors do not belong"),
        left_over_.list()));
  if (parts.empty()) return {};
  return fail(ErrorCode::kCorrupt, "{}: as a {} model, {}", checkpoint_.path, family_.name,
              fmt::join(parts, "; "));
}

void Mapper::add_all_modules(ModelMap& map) {
  const bool stored = as_stored_ && !family_.gguf_stored_layer.empty();
  add_modules(family_.before, -1, map);
  for (uint64_t layer = 0; layer < dims_.layers && !too_many(); ++layer)
    add_modules(stored ? family_.gguf_stored_layer : family_.layer, static_cast<int>(layer), map);
  add_modules(family_.after, -1, map);
}

Status Mapper::run(ModelMap& map) {
  map.layers = static_cast<int>(dims_.layers);
  map.prefix = family_.output_prefix;
  map.tiled_value_heads = as_stored_ && family_.gguf_tiled_heads;
  map.separate_projections = as_stored_ && !family_.gguf_stored_layer.empty();
  add_all_modules(map);
  account_for_the_rest(map);
  return report();
}

// Packed weights that opening the checkpoint did not join would have to be unpacked by rules of
// their own.
Status refuse_unknown_packing(const Checkpoint& checkpoint) {
  const std::string method = io::unknown_packing(checkpoint.config);
  if (method.empty()) return {};
  return fail(
      ErrorCode::kUnsupported,
      "{}: the weights are packed in a way that is not supported (quantization_config: {}); "
      "give the original checkpoint",
      config_label(checkpoint), method);
}

// GGUF says it by the tensor alone. A configuration that leaves it open means whatever is there,
// because transformers and mlx_lm have different defaults. transformers writes the flag of a model
// of several parts beside text_config, where mlx_lm, which takes it to be false there, does not
// look.
bool is_tied(const Checkpoint& checkpoint, const SourceNames& names, const std::string& label,
             Status& status, Json& additions) {
  constexpr std::string_view kKey = "tie_word_embeddings";
  const bool gguf = checkpoint.kind == SourceKind::kGguf;
  const bool has_head = names.find(gguf ? "output.weight" : "lm_head.weight") != nullptr;
  const Json& text = text_config(checkpoint.config);
  const bool nested = &text != &checkpoint.config;
  const bool inside = json_find(text, kKey) != nullptr;
  const Json& holder = inside ? text : checkpoint.config;
  bool flag = !has_head;
  if (json_find(holder, kKey) != nullptr) {
    const auto value = json_bool(holder, kKey, label);
    if (!value) status = std::unexpected(value.error());
    if (value && !gguf) flag = *value;
    const bool read_so = inside || !nested || !flag;
    if (value && *value == flag && read_so) return flag;
  }
  additions[kKey] = flag;
  return flag;
}

}  // namespace

namespace {

// The whole text as a number.
std::optional<int> whole_number(std::string_view text) {
  uint16_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Status keep_layers(std::string_view text, ModelMap& map) {
  const size_t dash = text.find('-');
  const auto first = whole_number(text.substr(0, dash));
  const auto last = dash == std::string_view::npos ? first : whole_number(text.substr(dash + 1));
  if (!first || !last || *first > *last || *last >= map.layers)
    return fail(ErrorCode::kInvalidArgument,
                "layers \"{}\" are no range of this model's {} layers, such as 0-{}", text,
                map.layers, std::min(1, map.layers - 1));
  std::erase_if(map.modules, [&](const OutputModule& module) {
    return module.layer < *first || module.layer > *last;
  });
  map.only_layers = fmt::format("{}-{}", *first, *last);
  return {};
}

// additions belong where the numbers are; out is merged with the configuration key by key.
void add_keys(const Json& config, const Json& additions, Json& out) {
  const Json& text = text_config(config);
  if (&text == &config) {
    out.update(additions);
  } else if (!additions.empty()) {
    out["text_config"] = text;
    out["text_config"].update(additions);
  }
}

}  // namespace

Result<std::vector<io::TensorInfo>> outlined_tensors(const Checkpoint& checkpoint,
                                                     const Family& family) {
  SLUICE_ASSIGN(const SourceNames names, SourceNames::make(checkpoint, family));
  Json additions = Json::object();
  SLUICE_ASSIGN(const ModelDims dims, read_dims(checkpoint, family, additions));
  Status status;
  const bool tied = is_tied(checkpoint, names, config_label(checkpoint), status, additions);
  SLUICE_TRY(std::move(status));
  return Mapper(checkpoint, names, family, dims, tied && !family.head_required, Arrangement::kMlx)
      .outline();
}

const Family* find_family(std::string_view model_type) {
  static constexpr const Family* kFamilies[] = {
      &kLlama,        //
      &kMistral,      //
      &kMixtral,      //
      &kQwen2,        //
      &kQwen3,        //
      &kQwen3Moe,     //
      &kDeepseekV2,   //
      &kDeepseekV3,   //
      &kDeepseekV32,  //
      &kGlm4MoeLite,  //
      &kGlmMoeDsa,    //
      &kKimiK2,       //
      &kKimiK25,      //
      &kQwen3Next,    //
      &kQwen3_5,      //
      &kQwen3_5Moe,   //
      &kGptOss,       //
      &kGemma3,       //
      &kGemma3Text,   //
      &kGemma4,       //
      &kLlama4,       //
      &kOlmoe,        //
      &kQwen2Moe,     //
      &kGlm4Moe,      //
      &kMinimaxM2,    //
      &kGranite,      //
      &kGraniteMoe,   //
      &kPhi3,         //
      &kPhimoe,       //
      &kNemotronH,    //
      &kGemma2,       //
      &kQwen3Vl,      //
      &kQwen3VlMoe,   //
      &kMimo,         //
      &kSmollm3,      //
      &kSeedOss,      //
      &kErnie4_5,     //
      &kMistral3,     //
  };
  for (const Family* family : kFamilies)
    if (family->name == model_type ||
        (!family->text_model_type.empty() && family->text_model_type == model_type))
      return family;
  return nullptr;
}

Result<ModelMap> map_model(const Checkpoint& checkpoint, std::string_view dtype_override,
                           std::string_view only_layers, Arrangement arrangement) {
  const std::string label = config_label(checkpoint);
  SLUICE_ASSIGN(const OutputType type, choose_dtype(checkpoint, dtype_override));
  SLUICE_ASSIGN(const std::string model_type, json_string(checkpoint.config, "model_type", label));
  SLUICE_TRY(refuse_unknown_packing(checkpoint));
  ModelMap map;
  if (const Family* family = find_family(model_type)) {
    SLUICE_ASSIGN(const SourceNames names, SourceNames::make(checkpoint, *family));
    Status status;
    Json additions = Json::object();  // to text_config
    map.tied = is_tied(checkpoint, names, label, status, additions);
    SLUICE_TRY(std::move(status));
    if (family->head_required && map.tied)
      return fail(
          ErrorCode::kUnsupported,
          "{}: tie_word_embeddings is true, but stock mlx_lm wants {} models to have a head "
          "of their own",
          label, family->name);
    SLUICE_ASSIGN(const ModelDims dims, read_dims(checkpoint, *family, additions));
    map.family = family->name;
    SLUICE_TRY(Mapper(checkpoint, names, *family, dims, map.tied, arrangement).run(map));
    add_keys(checkpoint.config, additions, map.config_additions);
    if (model_type != family->name) map.config_additions["model_type"] = family->name;
    if (family->vocab_beside_text) map.config_additions["vocab_size"] = dims.vocab_size;
  } else {
    SLUICE_ASSIGN(map, map_generic(checkpoint, model_type));
  }
  map.dtype = type.dtype;
  map.dtype_name = type.name;
  if (checkpoint.kind == SourceKind::kGguf) map.config_additions["torch_dtype"] = type.name;
  if (!only_layers.empty()) SLUICE_TRY(keep_layers(only_layers, map));
  return map;
}

}  // namespace sluice::families
