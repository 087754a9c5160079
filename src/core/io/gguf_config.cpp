// Metadata to config.json. Keys are llama.cpp's; the values must agree with the tensors.
#include "io/gguf_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "io/gguf_architectures.h"
#include "io/gguf_fields.h"
#include "io/names.h"
#include "numerics/block_codec.h"

namespace sluice::io {
namespace {

constexpr uint64_t kTokensMax = 1 << 24;

// Parameters that change the arithmetic in a way these configurations cannot say. A value that
// does nothing is let pass.
struct Foreign {
  std::string_view key;
  double neutral;
};
constexpr Foreign kForeign[] = {
    {".logit_scale", 1},
    {".embedding_scale", 1},
    {".residual_scale", 1},
    {".attention.scale", 0},
    {".attn_logit_softcapping", 0},
    {".final_logit_softcapping", 0},
    {".attention.clamp_kqv", 0},
    {".attention.max_alibi_bias", 0},
    {".expert_weights_scale", 1},
    {".expert_shared_count", 0},
    {".leading_dense_block_count", 0},
    {".nextn_predict_layers", 0},
    {".rope.scaling.attn_factor", 1},
    {".rope.scaling.yarn_log_multiplier", 0},
    {".attention.causal", 1},
    {".use_parallel_residual", 0},
};

std::optional<double> as_number(const GgufValue& value) {
  if (const auto* v = std::get_if<uint64_t>(&value)) return static_cast<double>(*v);
  if (const auto* v = std::get_if<int64_t>(&value)) return static_cast<double>(*v);
  if (const auto* v = std::get_if<float>(&value)) return shortest_decimal(*v);
  if (const auto* v = std::get_if<double>(&value)) return *v;
  if (const auto* v = std::get_if<bool>(&value)) return *v ? 1.0 : 0.0;
  return std::nullopt;
}

bool understands(const GgufArchitecture& architecture, std::string_view key) {
  return std::ranges::find(architecture.understood, key) != architecture.understood.end();
}

Status refuse_foreign(const GgufFields& fields, const GgufArchitecture& architecture) {
  for (const Foreign& foreign : kForeign) {
    const GgufValue* value = fields.find(foreign.key);
    if (value == nullptr || understands(architecture, foreign.key)) continue;
    const auto number = as_number(*value);
    if (number && *number == foreign.neutral) continue;
    return fail(ErrorCode::kUnsupported,
                "{}: {} changes the model in a way that config.json of {} "
                "cannot express",
                fields.label(), fields.full(foreign.key), fields.architecture());
  }
  return {};
}

Result<const StoredTensor*> token_embedding(const GgufFields& fields) {
  const StoredTensor* tensor = fields.header().find_tensor("token_embd.weight");
  if (tensor != nullptr && tensor->info.shape.size() == 2) return tensor;
  return fail(ErrorCode::kCorrupt, "{}: tensor \"token_embd.weight\" is {}", fields.label(),
              tensor == nullptr ? "missing" : "no matrix");
}

Result<uint64_t> vocabulary_size(const GgufFields& fields, uint64_t hidden_size) {
  SLUICE_ASSIGN(const StoredTensor* embedding, token_embedding(fields));
  const numerics::Shape& shape = embedding->info.shape;
  if (shape[1] != hidden_size)
    return fail(ErrorCode::kCorrupt, "{}: token_embd.weight has shape {}, {} is {}", fields.label(),
                numerics::shape_text(shape), fields.full(".embedding_length"), hidden_size);
  if (shape[0] == 0 || shape[0] > kTokensMax)
    return fail(ErrorCode::kCorrupt, "{}: token_embd.weight has {} rows", fields.label(), shape[0]);
  SLUICE_ASSIGN(const GgufArray* tokens, fields.array("tokenizer.ggml.tokens"));
  if (tokens != nullptr && tokens->size() > shape[0])
    return fail(ErrorCode::kCorrupt, "{}: {} tokens for {} rows of token_embd.weight",
                fields.label(), tokens->size(), shape[0]);
  return shape[0];
}

struct Heads {
  uint64_t attention, key_value, dim;
  uint64_t rotated;  // dimensions of one
};

Result<Heads> read_heads(const GgufFields& fields, uint64_t hidden_size,
                         const GgufArchitecture& architecture) {
  const bool rotates_part = architecture.rotates_part;
  Heads heads;
  SLUICE_ASSIGN(heads.attention, fields.required(".attention.head_count", 1, kGgufHeadsMax));
  SLUICE_ASSIGN(const auto key_value, fields.integer(".attention.head_count_kv", 1, kGgufHeadsMax));
  heads.key_value = key_value.value_or(heads.attention);
  SLUICE_ASSIGN(const auto key_length, fields.integer(".attention.key_length", 1, kGgufWidthMax));
  if (!key_length && hidden_size % heads.attention != 0)
    return fail(ErrorCode::kCorrupt, "{}: {} heads do not divide an embedding of {}",
                fields.label(), heads.attention, hidden_size);
  heads.dim = key_length.value_or(hidden_size / heads.attention);
  SLUICE_ASSIGN(const auto value_length,
                fields.integer(".attention.value_length", 1, kGgufWidthMax));
  SLUICE_ASSIGN(const auto rotated, fields.integer(".rope.dimension_count", 1, kGgufWidthMax));
  heads.rotated = rotates_part ? rotated.value_or(heads.dim) : heads.dim;
  if (heads.rotated > heads.dim)
    return fail(ErrorCode::kCorrupt, "{}: {} is {}, but heads are {} wide", fields.label(),
                fields.full(".rope.dimension_count"), heads.rotated, heads.dim);
  if (architecture.latent) return heads;
  for (const auto& [key, length] :
       {std::pair(".attention.value_length", value_length),
        {".rope.dimension_count", rotates_part ? std::nullopt : rotated}})
    if (length && *length != heads.dim)
      return fail(ErrorCode::kUnsupported,
                  "{}: {} is {}, but heads are {} wide; such a model "
                  "cannot be described as {}",
                  fields.label(), fields.full(key), *length, heads.dim, fields.architecture());
  return heads;
}

// llama.cpp's converter replaces Llama 3's rope_scaling by the factors that follow from it. The
// numbers are found back by trying the published ones and holding every factor against the rule.
double llama3_factor(double wavelength, double factor, double low, double high, double context) {
  if (wavelength < context / high) return 1;
  if (wavelength > context / low) return factor;
  const double smooth = (context / wavelength - low) / (high - low);
  return 1 / ((1 - smooth) / factor + smooth);
}

Result<Json> llama3_scaling(const GgufFields& fields, const ByteSource& source,
                            const StoredTensor& tensor, uint64_t head_dim, double theta) {
  constexpr double kLow = 1, kHigh = 4, kContext = 8192;  // Llama 3.1, 3.2 and 3.3 alike
  if (tensor.info.dtype != numerics::DType::kF32 ||
      tensor.info.shape != numerics::Shape{head_dim / 2})
    return fail(ErrorCode::kCorrupt, "{}: rope_freqs.weight should be F32 [{}]", fields.label(),
                head_dim / 2);
  std::vector<std::byte> bytes(static_cast<size_t>(tensor.bytes));
  SLUICE_TRY(source.read_at(tensor.offset, bytes));
  std::vector<float> factors(bytes.size() / 4);
  numerics::decode_elements(numerics::DType::kF32, bytes, factors);

  const auto is_one = [](float f) { return f == 1.0f; };
  if (std::all_of(factors.begin(), factors.end(), is_one)) return Json(nullptr);
  const double factor = shortest_decimal(factors.back());  // the slowest frequency gets it whole
  for (size_t i = 0; i < factors.size(); ++i) {
    const double wavelength =
        2 * std::numbers::pi *
        std::pow(theta, 2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    const double expected = llama3_factor(wavelength, factor, kLow, kHigh, kContext);
    if (!(std::abs(factors[i] - expected) <= 1e-4 * expected))
      return fail(ErrorCode::kUnsupported,
                  "{}: rope_freqs.weight does not follow the llama3 rule (element {} is {}, the "
                  "rule gives {}), so config.json cannot express it",
                  fields.label(), i, factors[i], expected);
  }
  return Json{{"rope_type", "llama3"},
              {"factor", factor},
              {"low_freq_factor", kLow},
              {"high_freq_factor", kHigh},
              {"original_max_position_embeddings", static_cast<uint64_t>(kContext)}};
}

Result<Json> rope_scaling(const GgufFields& fields, const ByteSource& source, uint64_t head_dim,
                          double theta) {
  SLUICE_ASSIGN(const auto type, fields.text(".rope.scaling.type"));
  const StoredTensor* factors = fields.header().find_tensor("rope_freqs.weight");
  const bool typed = type && *type != "none";
  if (factors != nullptr && !typed)
    return llama3_scaling(fields, source, *factors, head_dim, theta);
  if (!typed) return Json(nullptr);
  if (factors != nullptr || (*type != "linear" && *type != "yarn"))
    return fail(ErrorCode::kUnsupported, "{}: rope scaling {}{} cannot be rebuilt", fields.label(),
                printable(*type), factors != nullptr ? " with rope_freqs.weight" : "");
  SLUICE_ASSIGN(const auto factor, fields.number(".rope.scaling.factor"));
  if (!factor || !(*factor > 0) || !std::isfinite(*factor))
    return fail(ErrorCode::kCorrupt, "{}: {} should be a positive number", fields.label(),
                fields.full(".rope.scaling.factor"));
  Json scaling = {{"rope_type", *type}, {"type", *type}, {"factor", *factor}};
  SLUICE_ASSIGN(const auto context,
                fields.integer(".rope.scaling.original_context_length", 1, kGgufContextMax));
  if (context) scaling["original_max_position_embeddings"] = *context;
  return scaling;
}

// A window at least as long as the context never cuts anything.
Status refuse_window(const GgufFields& fields, uint64_t context) {
  SLUICE_ASSIGN(const auto window, fields.integer(".attention.sliding_window", 0, kGgufContextMax));
  if (window.value_or(0) == 0 || *window >= context) return {};
  return fail(ErrorCode::kUnsupported, "{}: a sliding window of {} tokens is not supported",
              fields.label(), *window);
}

void add_token_ids(const GgufHeader& header, Json& config) {
  const auto* bos = header.find("tokenizer.ggml.bos_token_id");
  const auto* bos_id = bos == nullptr ? nullptr : std::get_if<uint64_t>(bos);
  config["bos_token_id"] = bos_id == nullptr ? Json(nullptr) : Json(*bos_id);
  const auto eos = gguf_eos_ids(header);
  config["eos_token_id"] = eos.empty() ? Json(nullptr) : eos.size() == 1 ? Json(eos[0]) : Json(eos);
}

}  // namespace

Result<std::optional<uint64_t>> GgufFields::integer(std::string_view key, uint64_t low,
                                                    uint64_t high) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  std::optional<uint64_t> number;
  if (const auto* v = std::get_if<uint64_t>(value)) number = *v;
  if (const auto* v = std::get_if<int64_t>(value); v != nullptr && *v >= 0)
    number = static_cast<uint64_t>(*v);
  if (const auto* v = std::get_if<GgufArray>(value); v != nullptr && v->size() != 0) {
    const auto first = v->integer(0);
    for (size_t i = 1; i < v->size(); ++i)
      if (v->integer(i) != first)
        return fail(ErrorCode::kUnsupported, "{}: {} differs between layers", label_, full(key));
    if (first && *first >= 0) number = static_cast<uint64_t>(*first);
  }
  if (!number) return wrong_type(key, "a non-negative integer");
  if (*number < low || *number > high)
    return fail(ErrorCode::kCorrupt, "{}: metadata key {} should lie in [{}, {}], found {}", label_,
                full(key), low, high, *number);
  return number;
}

Result<uint64_t> GgufFields::required(std::string_view key, uint64_t low, uint64_t high) const {
  SLUICE_ASSIGN(const auto value, integer(key, low, high));
  if (value) return *value;
  return fail(ErrorCode::kCorrupt, "{}: metadata key {} is missing", label_, full(key));
}

Result<std::optional<double>> GgufFields::number(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto number = as_number(*value);
  if (!number || !std::isfinite(*number)) return wrong_type(key, "a finite number");
  return number;
}

Result<std::optional<bool>> GgufFields::boolean(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* v = std::get_if<bool>(value)) return *v;
  return wrong_type(key, "a boolean");
}

Result<std::optional<std::string>> GgufFields::text(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto* text = std::get_if<std::string>(value);
  if (text == nullptr || !is_utf8(*text)) return wrong_type(key, "a string of UTF-8");
  return *text;
}

Result<const GgufArray*> GgufFields::array(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return nullptr;
  if (const auto* v = std::get_if<GgufArray>(value)) return v;
  return wrong_type(key, "an array");
}

std::vector<uint64_t> gguf_eos_ids(const GgufHeader& header) {
  std::vector<uint64_t> ids;
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                          "tokenizer.ggml.eom_token_id"}) {
    const GgufValue* value = header.find(key);
    const auto* id = value == nullptr ? nullptr : std::get_if<uint64_t>(value);
    if (id != nullptr && std::find(ids.begin(), ids.end(), *id) == ids.end()) ids.push_back(*id);
  }
  return ids;
}

Result<Json> rebuild_config(const GgufHeader& header, const ByteSource& source) {
  SLUICE_ASSIGN(const GgufArchitecture* architecture,
                find_gguf_architecture(header, source.label()));
  const GgufFields fields(header, source.label(), std::string(architecture->name));
  SLUICE_TRY(refuse_foreign(fields, *architecture));
  SLUICE_ASSIGN(const uint64_t layers, fields.required(".block_count", 1, kGgufLayersMax));
  SLUICE_ASSIGN(const uint64_t hidden, fields.required(".embedding_length", 1, kGgufWidthMax));
  SLUICE_ASSIGN(const uint64_t context, fields.required(".context_length", 1, kGgufContextMax));
  if (!architecture->windows) SLUICE_TRY(refuse_window(fields, context));
  SLUICE_ASSIGN(const Heads heads, read_heads(fields, hidden, *architecture));
  SLUICE_ASSIGN(const uint64_t vocabulary, vocabulary_size(fields, hidden));
  SLUICE_ASSIGN(const auto theta, fields.number(".rope.freq_base"));
  SLUICE_ASSIGN(const auto epsilon, fields.number(".attention.layer_norm_rms_epsilon"));
  if (!epsilon)
    return fail(ErrorCode::kCorrupt, "{}: metadata key {} is missing", source.label(),
                fields.full(".attention.layer_norm_rms_epsilon"));
  const double rope_theta = theta.value_or(10000.0);  // llama.cpp's default
  SLUICE_ASSIGN(Json scaling, rope_scaling(fields, source, heads.dim, rope_theta));

  Json config = {
      {"architectures", {architecture->class_name}},
      {"model_type", architecture->model_type},
      {"attention_bias", header.find_tensor("blk.0.attn_q.bias") != nullptr},
      {"attention_dropout", 0.0},
      {"head_dim", heads.dim},
      {"hidden_act", "silu"},
      {"hidden_size", hidden},
      {"initializer_range", 0.02},
      {"max_position_embeddings", context},
      {"num_attention_heads", heads.attention},
      {"num_hidden_layers", layers},
      {"num_key_value_heads", heads.key_value},
      {"rms_norm_eps", *epsilon},
      {"rope_scaling", std::move(scaling)},
      {"rope_theta", rope_theta},
      {"tie_word_embeddings", header.find_tensor("output.weight") == nullptr},
      {"torch_dtype", "float16"},
      {"use_cache", true},
      {"vocab_size", vocabulary},
  };
  if (architecture->rotates_part)
    config["partial_rotary_factor"] =
        static_cast<double>(heads.rotated) / static_cast<double>(heads.dim);
  if (architecture->model_type == "llama") {
    config["mlp_bias"] = header.find_tensor("blk.0.ffn_gate.bias") != nullptr;
  } else if (!architecture->windows) {
    config["sliding_window"] = nullptr;
    config["use_sliding_window"] = false;
  }
  SLUICE_ASSIGN(const auto width, fields.integer(".feed_forward_length", 1, kGgufWidthMax));
  if (width) config["intermediate_size"] = *width;
  add_token_ids(header, config);
  if (architecture->complete != nullptr) SLUICE_TRY(architecture->complete(fields, config));
  if (!width && !config.contains("intermediate_size") && !config.contains("text_config"))
    return fail(ErrorCode::kCorrupt, "{}: metadata key {} is missing", source.label(),
                fields.full(".feed_forward_length"));
  return config;
}

Json rebuild_generation_config(const GgufHeader& header) {
  Json config = {{"_from_model_config", true}};
  add_token_ids(header, config);
  const auto* pad = header.find("tokenizer.ggml.padding_token_id");
  if (pad != nullptr)
    if (const auto* id = std::get_if<uint64_t>(pad)) config["pad_token_id"] = *id;
  for (auto it = config.begin(); it != config.end();)
    it = it->is_null() ? config.erase(it) : std::next(it);
  return config;
}

}  // namespace sluice::io
