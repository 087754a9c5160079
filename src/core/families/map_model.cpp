// The families by name, and a whole checkpoint as one of them says.
#include <algorithm>
#include <charconv>
#include <optional>

#include "families/mapper.h"
#include "io/packed_tensors.h"

namespace sluice::families {
namespace {

using io::Checkpoint;
using io::SourceKind;

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
