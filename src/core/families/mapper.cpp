// Which modules a model has, and what is left over of its source.
#include "families/mapper.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "base/units.h"

namespace sluice::families {
namespace {

using io::Checkpoint;
using io::SourceKind;
using io::StoredTensor;

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

}  // namespace

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

Mapper::Mapper(const Checkpoint& checkpoint, const SourceNames& names, const Family& family,
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

namespace {
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
}  // namespace

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

namespace {
std::string counted(size_t count, std::string_view one, std::string_view many) {
  return fmt::format("{} {}", count, count == 1 ? one : many);
}
}  // namespace

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

}  // namespace sluice::families
