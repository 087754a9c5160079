#include "support/models.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "families/family.h"
#include "io/packed_tensors.h"
#include "io/safetensors.h"
#include "numerics/block_codec.h"
#include "numerics/float_types.h"

namespace sluice::test {

using numerics::DType;
using numerics::Shape;

uint64_t Random::bits() {  // splitmix64
  uint64_t z = state_ += 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

uint64_t Random::below(uint64_t limit) { return bits() % limit; }

float Random::normal() {  // the sum of four uniforms of variance 1/12 each
  const uint64_t word = bits();
  float sum = 0;
  for (int i = 0; i < 4; ++i)
    sum += static_cast<float>((word >> (16 * i)) & 0xffff) / 65536.0f - 0.5f;
  return sum * 1.7320508f;
}

std::vector<float> Random::normals(uint64_t count, float scale) {
  std::vector<float> values(count);
  for (float& value : values) value = normal() * scale;
  return values;
}

uint64_t number_from(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  const uint64_t number = text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
  fmt::print("{}={}\n", name, number);
  return number;
}

void write_text(io::Storage& storage, const std::string& path, std::string_view text) {
  auto file = storage.open(path, io::OpenMode::kCreateNew);
  SLUICE_CHECK(file && (*file)->write_at(0, std::as_bytes(std::span(text))));
}

std::vector<SimdLevel> simd_levels() {
  std::vector<SimdLevel> levels;
  const CpuInfo cpu = detect_cpu();
  for (const std::string_view name : {"scalar", "neon", "avx2", "avx512"})
    if (const auto level = parse_simd_level(name, cpu)) levels.push_back(*level);
  return levels;
}

SimdLevel widest_simd() { return detect_cpu().simd; }

void make_work_folder(io::MemoryStorage& storage) {
  SLUICE_CHECK(storage.create_directory("work").has_value());
  SLUICE_CHECK(storage.sync_directory(".").has_value());
}

ModelBuilder& ModelBuilder::add(const std::string& name, DType dtype, Shape shape,
                                std::span<const float> values) {
  std::vector<std::byte> bytes(values.size() * dtype_info(dtype).block_bytes);
  numerics::encode_elements(dtype, values, bytes);
  return add_bytes(name, dtype, std::move(shape), std::move(bytes));
}

ModelBuilder& ModelBuilder::add_bytes(const std::string& name, DType dtype, Shape shape,
                                      std::vector<std::byte> bytes) {
  SLUICE_CHECK(numerics::tensor_bytes(dtype, shape) == bytes.size());
  tensors_[name] = {{name, dtype, std::move(shape)}, std::move(bytes)};
  return *this;
}

ModelBuilder& ModelBuilder::remove(const std::string& name) {
  SLUICE_CHECK(tensors_.erase(name) == 1);
  return *this;
}

ModelBuilder& ModelBuilder::add_sidecar(const std::string& name, std::string text) {
  sidecars_[name] = std::move(text);
  return *this;
}

namespace {

// safetensors; or, for GGUF blocks, which that cannot name, tensors behind a header of our own.
io::SafetensorsLayout layout_of(std::span<const io::TensorInfo> infos) {
  const bool plain = std::ranges::all_of(infos, [](const io::TensorInfo& info) {
    return numerics::dtype_from_safetensors(dtype_info(info.dtype).name).has_value();
  });
  if (plain) return io::layout_safetensors(infos);
  io::SafetensorsLayout layout;
  for (const io::TensorInfo& info : infos)
    layout.header += fmt::format("{} {} {}\n", info.name, dtype_info(info.dtype).name,
                                 numerics::shape_text(info.shape));
  layout.file_bytes = layout.header.size();
  for (const io::TensorInfo& info : infos) {
    layout.offsets.push_back(layout.file_bytes);
    layout.file_bytes += *numerics::tensor_bytes(info.dtype, info.shape);
  }
  return layout;
}

}  // namespace

std::vector<std::byte> ModelBuilder::file_bytes(std::vector<io::StoredTensor>& stored) const {
  std::vector<io::TensorInfo> infos;
  for (const auto& [name, tensor] : tensors_) infos.push_back(tensor.info);
  const io::SafetensorsLayout layout = layout_of(infos);
  std::vector<std::byte> file(layout.file_bytes);
  std::memcpy(file.data(), layout.header.data(), layout.header.size());
  for (size_t i = 0; i < infos.size(); ++i) {
    const std::vector<std::byte>& bytes = tensors_.at(infos[i].name).bytes;
    std::copy(bytes.begin(), bytes.end(), file.begin() + static_cast<ptrdiff_t>(layout.offsets[i]));
    stored.push_back({infos[i], 0, layout.offsets[i], bytes.size()});
  }
  return file;
}

std::shared_ptr<const io::Checkpoint> ModelBuilder::build(const WrapSource& wrap) const {
  auto checkpoint = std::make_shared<io::Checkpoint>();
  checkpoint->path = "models/tiny";
  checkpoint->kind = kind_;
  checkpoint->config = config_;
  std::vector<std::byte> file = file_bytes(checkpoint->tensors);
  const auto header_bytes =
      checkpoint->tensors.empty() ? file.size() : checkpoint->tensors.front().offset;
  checkpoint->identity.push_back(
      {"model.safetensors", file.size(), digest_of(std::span(file).first(header_bytes))});
  auto source = io::memory_source("model.safetensors", std::move(file));
  checkpoint->files.push_back(wrap ? wrap(std::move(source)) : std::move(source));
  if (!checkpoint->tensors.empty()) {
    SLUICE_CHECK(io::index_tensors(*checkpoint).has_value());
    SLUICE_CHECK(io::join_packed_tensors(*checkpoint).has_value());
  }
  for (const auto& [name, text] : sidecars_) {
    const auto bytes = std::as_bytes(std::span(text));
    checkpoint->sidecars.push_back(
        {name, io::memory_source(name, std::vector<std::byte>(bytes.begin(), bytes.end()))});
  }
  return checkpoint;
}

void ModelBuilder::write(const std::string& folder) const {
  const auto put = [&](const std::string& name, const char* data, size_t size) {
    std::ofstream file(folder + "/" + name, std::ios::binary);
    file.write(data, static_cast<std::streamsize>(size));
    SLUICE_CHECK(file.good());
  };
  std::vector<io::StoredTensor> stored;
  const std::vector<std::byte> file = file_bytes(stored);
  put("model.safetensors", reinterpret_cast<const char*>(file.data()), file.size());
  const std::string config = dump_json(config_, 2);
  put("config.json", config.data(), config.size());
  for (const auto& [name, text] : sidecars_) put(name, text.data(), text.size());
}

namespace {

constexpr uint64_t kHidden = 128, kIntermediate = 96, kHeads = 4, kKvHeads = 2, kHeadDim = 32;
constexpr uint64_t kExperts = 4, kExpertIntermediate = 64;

Json base_config(const std::string& model_type, const TinyOptions& options) {
  return {{"model_type", model_type},
          {"architectures", {"Tiny"}},
          {"hidden_size", kHidden},
          {"intermediate_size", kIntermediate * options.wide},
          {"num_hidden_layers", options.layers},
          {"num_attention_heads", kHeads},
          {"num_key_value_heads", kKvHeads},
          {"head_dim", kHeadDim},
          {"vocab_size", options.vocab},
          {"tie_word_embeddings", false},
          {"rms_norm_eps", 1e-6},
          {"torch_dtype", options.dtype == DType::kF32   ? "float32"
                          : options.dtype == DType::kF16 ? "float16"
                                                         : "bfloat16"}};
}

class Filler {
 public:
  Filler(ModelBuilder& model, const TinyOptions& options)
      : model_(model), dtype_(options.dtype), random_(options.seed) {}

  void matrix(const std::string& name, Shape shape) {
    const auto values = random_.normals(*numerics::element_count(shape), 0.05f);
    model_.add(name, dtype_, std::move(shape), values);
  }
  void norm(const std::string& name, uint64_t size) {
    auto values = random_.normals(size, 0.1f);
    for (float& value : values) value += 1;
    model_.add(name, dtype_, {size}, values);
  }
  void norm_f32(const std::string& name, uint64_t size) {
    model_.add(name, DType::kF32, {size}, random_.normals(size, 1.0f));
  }
  // Q4_0: an f16 scale and 32 random codes of 4 bits.
  void blocks(const std::string& name, Shape shape) {
    std::vector<std::byte> bytes(*numerics::tensor_bytes(DType::kQ4_0, shape));
    for (size_t at = 0; at < bytes.size(); at += 18) {
      const uint16_t scale = numerics::f32_to_f16(0.001f + 0.0001f * random_.normal());
      std::memcpy(&bytes[at], &scale, 2);
      for (size_t i = 2; i < 18; ++i) bytes[at + i] = static_cast<std::byte>(random_.bits());
    }
    model_.add_bytes(name, DType::kQ4_0, std::move(shape), std::move(bytes));
  }

 private:
  ModelBuilder& model_;
  DType dtype_;
  Random random_;
};

void add_sidecars(ModelBuilder& model) {
  model.add_sidecar("tokenizer.json", "{\"model\": {\"vocab\": {}}}\n");
  model.add_sidecar("tokenizer_config.json", "{\"chat_template\": \"{{ messages }}\"}\n");
}

void fill_attention(Filler& fill, const std::string& layer) {
  fill.matrix(layer + "self_attn.q_proj.weight", {kHeads * kHeadDim, kHidden});
  fill.matrix(layer + "self_attn.k_proj.weight", {kKvHeads * kHeadDim, kHidden});
  fill.matrix(layer + "self_attn.v_proj.weight", {kKvHeads * kHeadDim, kHidden});
  fill.matrix(layer + "self_attn.o_proj.weight", {kHidden, kHeads * kHeadDim});
  fill.norm(layer + "input_layernorm.weight", kHidden);
  fill.norm(layer + "post_attention_layernorm.weight", kHidden);
}

std::string layer_name(std::string_view prefix, int layer) {
  return fmt::format("{}{}.", prefix, layer);
}

}  // namespace

ModelBuilder tiny_llama(const TinyOptions& options) {
  ModelBuilder model(base_config("llama", options));
  Filler fill(model, options);
  fill.matrix("model.embed_tokens.weight", {options.vocab, kHidden});
  fill.matrix("lm_head.weight", {options.vocab, kHidden});
  fill.norm("model.norm.weight", kHidden);
  for (int l = 0; l < options.layers; ++l) {
    const std::string layer = layer_name("model.layers.", l);
    fill_attention(fill, layer);
    fill.matrix(layer + "mlp.gate_proj.weight", {kIntermediate * options.wide, kHidden});
    fill.matrix(layer + "mlp.up_proj.weight", {kIntermediate * options.wide, kHidden});
    fill.matrix(layer + "mlp.down_proj.weight", {kHidden, kIntermediate * options.wide});
  }
  add_sidecars(model);
  return model;
}

ModelBuilder tiny_moe(const TinyOptions& options) {
  ModelBuilder model(base_config("qwen3_moe", options));
  model.config().update({{"num_experts", kExperts},
                         {"num_experts_per_tok", 2},
                         {"moe_intermediate_size", kExpertIntermediate * options.wide},
                         {"decoder_sparse_step", 1},
                         {"norm_topk_prob", true},
                         {"rope_theta", 1e6},
                         {"max_position_embeddings", 4096},
                         {"mlp_only_layers", Json::array()}});
  Filler fill(model, options);
  fill.matrix("model.embed_tokens.weight", {options.vocab, kHidden});
  fill.matrix("lm_head.weight", {options.vocab, kHidden});
  fill.norm("model.norm.weight", kHidden);
  for (int l = 0; l < options.layers; ++l) {
    const std::string layer = layer_name("model.layers.", l);
    fill_attention(fill, layer);
    fill.norm(layer + "self_attn.q_norm.weight", kHeadDim);
    fill.norm(layer + "self_attn.k_norm.weight", kHeadDim);
    fill.matrix(layer + "mlp.gate.weight", {kExperts, kHidden});
    for (uint64_t e = 0; e < kExperts; ++e) {
      const std::string expert = fmt::format("{}mlp.experts.{}.", layer, e);
      fill.matrix(expert + "gate_proj.weight", {kExpertIntermediate * options.wide, kHidden});
      fill.matrix(expert + "up_proj.weight", {kExpertIntermediate * options.wide, kHidden});
      fill.matrix(expert + "down_proj.weight", {kHidden, kExpertIntermediate * options.wide});
    }
  }
  add_sidecars(model);
  return model;
}

namespace {

constexpr uint64_t kQRank = 48, kKvRank = 64, kNope = 32, kRope = 16, kValue = 24;
constexpr uint64_t kLatentExperts = 8, kIndexHeads = 8, kIndexHeadDim = 32;

void fill_latent_attention(Filler& fill, const std::string& layer) {
  const std::string a = layer + "self_attn.";
  fill.matrix(a + "q_a_proj.weight", {kQRank, kHidden});
  fill.norm(a + "q_a_layernorm.weight", kQRank);
  fill.matrix(a + "q_b_proj.weight", {kHeads * (kNope + kRope), kQRank});
  fill.matrix(a + "kv_a_proj_with_mqa.weight", {kKvRank + kRope, kHidden});
  fill.norm(a + "kv_a_layernorm.weight", kKvRank);
  fill.matrix(a + "kv_b_proj.weight", {kHeads * (kNope + kValue), kKvRank});
  fill.matrix(a + "o_proj.weight", {kHidden, kHeads * kValue});
  fill.norm(layer + "input_layernorm.weight", kHidden);
  fill.norm(layer + "post_attention_layernorm.weight", kHidden);
}

void fill_indexer(Filler& fill, const std::string& path) {
  fill.matrix(path + "wq_b.weight", {kIndexHeads * kIndexHeadDim, kQRank});
  fill.matrix(path + "wk.weight", {kIndexHeadDim, kHidden});
  fill.norm(path + "k_norm.weight", kIndexHeadDim);
  fill.norm(path + "k_norm.bias", kIndexHeadDim);
  fill.matrix(path + "weights_proj.weight", {kIndexHeads, kHidden});
}

void fill_gated(Filler& fill, const std::string& path, uint64_t width) {
  fill.matrix(path + "gate_proj.weight", {width, kHidden});
  fill.matrix(path + "up_proj.weight", {width, kHidden});
  fill.matrix(path + "down_proj.weight", {kHidden, width});
}

}  // namespace

ModelBuilder tiny_latent(const TinyOptions& options, const std::string& model_type) {
  ModelBuilder model(base_config(model_type, options));
  const bool corrected = model_type != "deepseek_v2";
  const uint64_t width = kExpertIntermediate * options.wide;
  model.config().erase("head_dim");
  model.config().update({{"num_key_value_heads", kHeads},
                         {"q_lora_rank", kQRank},
                         {"kv_lora_rank", kKvRank},
                         {"qk_nope_head_dim", kNope},
                         {"qk_rope_head_dim", kRope},
                         {"v_head_dim", kValue},
                         {"n_routed_experts", kLatentExperts},
                         {"n_shared_experts", 1},
                         {"num_experts_per_tok", 2},
                         {"moe_intermediate_size", width},
                         {"first_k_dense_replace", 1},
                         {"n_group", 2},
                         {"topk_group", 1},
                         {"topk_method", corrected ? "noaux_tc" : "group_limited_greedy"},
                         {"norm_topk_prob", corrected},
                         {"routed_scaling_factor", 2.5},
                         {"rope_scaling",
                          {{"type", "yarn"},
                           {"factor", 4.0},
                           {"mscale", 1.0},
                           {"mscale_all_dim", 0.8},
                           {"original_max_position_embeddings", 32}}}});
  const bool indexed = model_type == "deepseek_v32" || model_type == "glm_moe_dsa";
  if (indexed)
    model.config().update(
        {{"index_n_heads", kIndexHeads}, {"index_head_dim", kIndexHeadDim}, {"index_topk", 12}});
  Filler fill(model, options);
  fill.matrix("model.embed_tokens.weight", {options.vocab, kHidden});
  fill.matrix("lm_head.weight", {options.vocab, kHidden});
  fill.norm("model.norm.weight", kHidden);
  for (int l = 0; l < options.layers; ++l) {
    const std::string layer = layer_name("model.layers.", l);
    fill_latent_attention(fill, layer);
    if (indexed) fill_indexer(fill, layer + "self_attn.indexer.");
    if (l == 0) {
      fill_gated(fill, layer + "mlp.", kIntermediate * options.wide);
      continue;
    }
    fill.matrix(layer + "mlp.gate.weight", {kLatentExperts, kHidden});
    if (corrected) fill.norm_f32(layer + "mlp.gate.e_score_correction_bias", kLatentExperts);
    for (uint64_t e = 0; e < kLatentExperts; ++e)
      fill_gated(fill, fmt::format("{}mlp.experts.{}.", layer, e), width);
    fill_gated(fill, layer + "mlp.shared_experts.", width);
  }
  add_sidecars(model);
  return model;
}

namespace {

// Two Mamba2 mixers, two layers that attend, experts and a feed-forward part.
Json nemotron_config(const TinyOptions& options) {
  Json config = base_config("nemotron_h", options);
  config.update({{"hybrid_override_pattern", "M*M*E-"},
                 {"head_dim", kHeadDim},
                 {"layer_norm_epsilon", 1e-5},
                 {"mamba_num_heads", 4},
                 {"mamba_head_dim", 40},
                 {"n_groups", 2},
                 {"ssm_state_size", 24},
                 {"conv_kernel", 4},
                 {"use_conv_bias", true},
                 {"n_routed_experts", kExperts},
                 {"n_shared_experts", 1},
                 {"num_experts_per_tok", 2},
                 {"moe_intermediate_size", kExpertIntermediate * options.wide},
                 {"moe_shared_expert_intermediate_size", 32},
                 {"max_position_embeddings", 4096}});
  return config;
}

}  // namespace

ModelBuilder tiny_hybrid(const std::string& family, const TinyOptions& options) {
  Json text = base_config(family, options);
  text.update({{"head_dim", kHeadDim},
               {"full_attention_interval", 2},
               {"linear_num_key_heads", 2},
               {"linear_num_value_heads", 4},
               {"linear_key_head_dim", 24},
               {"linear_value_head_dim", 40},
               {"linear_conv_kernel_dim", 4},
               {"partial_rotary_factor", 0.25},
               {"max_position_embeddings", 4096}});
  if (family != "qwen3_5")
    text.update({{"num_experts", kExperts},
                 {"num_experts_per_tok", 2},
                 {"moe_intermediate_size", kExpertIntermediate * options.wide},
                 {"shared_expert_intermediate_size", 32},
                 {"decoder_sparse_step", 1},
                 {"norm_topk_prob", true},
                 {"mlp_only_layers", Json::array()}});
  if (family == "nemotron_h") text = nemotron_config(options);
  const Json config = family == "qwen3_next" || family == "nemotron_h"
                          ? text
                          : Json{{"model_type", family},
                                 {"tie_word_embeddings", false},
                                 {"torch_dtype", text["torch_dtype"]},
                                 {"text_config", text}};
  ModelBuilder model(config);
  const auto tensors = families::outlined_tensors(*model.build(), *families::find_family(family));
  SLUICE_CHECK(tensors.has_value());
  Random random(options.seed);
  for (const io::TensorInfo& info : *tensors) {
    Shape shape = info.shape;
    float scale = shape.size() == 1 ? 0.1f : 0.05f;
    if (info.name.ends_with("conv1d.weight")) {
      std::swap(shape[1], shape[2]);
      scale = 0.5f;
    }
    auto values = random.normals(*numerics::element_count(shape), scale);
    if (info.name.ends_with("linear_attn.norm.weight") ||
        (family == "nemotron_h" && info.name.ends_with("norm.weight")))
      for (float& value : values) value += 1;
    model.add(info.name, options.dtype, shape, values);
  }
  add_sidecars(model);
  return model;
}

ModelBuilder with_blocks(ModelBuilder model, const std::string& parameter) {
  const int layers = model.config()["num_hidden_layers"].get<int>();
  for (int l = 0; l < layers; ++l) {
    const std::string name = layer_name("model.layers.", l) + parameter;
    const Shape shape = model.shape(name);
    Filler(model, {.seed = 7 + static_cast<uint64_t>(l)}).blocks(name, shape);
  }
  return model;
}

ModelBuilder tiny_gguf(const TinyOptions& options) {
  ModelBuilder model(base_config("llama", options), io::SourceKind::kGguf);
  Filler fill(model, options);
  fill.blocks("token_embd.weight", {options.vocab, kHidden});
  fill.blocks("output.weight", {options.vocab, kHidden});
  fill.norm_f32("output_norm.weight", kHidden);
  for (int l = 0; l < options.layers; ++l) {
    const std::string layer = layer_name("blk.", l);
    fill.blocks(layer + "attn_q.weight", {kHeads * kHeadDim, kHidden});
    fill.blocks(layer + "attn_k.weight", {kKvHeads * kHeadDim, kHidden});
    fill.blocks(layer + "attn_v.weight", {kKvHeads * kHeadDim, kHidden});
    fill.blocks(layer + "attn_output.weight", {kHidden, kHeads * kHeadDim});
    fill.norm_f32(layer + "attn_norm.weight", kHidden);
    fill.norm_f32(layer + "ffn_norm.weight", kHidden);
    fill.blocks(layer + "ffn_gate.weight", {kIntermediate * options.wide, kHidden});
    fill.blocks(layer + "ffn_up.weight", {kIntermediate * options.wide, kHidden});
    fill.blocks(layer + "ffn_down.weight", {kHidden, kIntermediate * options.wide});
  }
  add_sidecars(model);
  return model;
}

families::ModelMap plain_map(const io::Checkpoint& checkpoint, DType dtype) {
  families::ModelMap map;
  map.family = "plain";
  map.dtype = dtype;
  map.dtype_name = dtype == DType::kF32 ? "float32" : dtype == DType::kF16 ? "float16" : "bfloat16";
  for (uint32_t i = 0; i < checkpoint.tensors.size(); ++i) {
    const io::TensorInfo& info = checkpoint.tensors[i].info;
    families::OutputModule module;
    module.path = info.name;
    module.parameter = "weight";
    module.role = families::Role::kOther;
    module.shape = info.shape;
    module.quantizable = info.shape.size() > 1 && dtype_info(info.dtype).is_float;
    module.recipe.sources.push_back({.tensor = i, .rows = module.rows()});
    map.modules.push_back(std::move(module));
  }
  return map;
}

families::ModelMap map_of(const io::Checkpoint& checkpoint, std::string_view dtype) {
  auto map = families::map_model(checkpoint, dtype);
  if (!map) fmt::print(stderr, "{}\n", map.error().message);
  SLUICE_CHECK(map.has_value());
  return std::move(*map);
}

uint32_t module_index(const families::ModelMap& map, std::string_view tensor_name) {
  for (uint32_t i = 0; i < map.modules.size(); ++i)
    if (map.modules[i].tensor_name() == tensor_name) return i;
  SLUICE_CHECK(false);
}

}  // namespace sluice::test
