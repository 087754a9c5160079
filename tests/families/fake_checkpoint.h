// Checkpoints without bytes: a configuration and a list of tensors, for tests of name and shape
// rules. Also the complete tensor lists of tiny models of every family.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "io/checkpoint.h"

namespace sluice::families {

class FakeCheckpoint {
 public:
  explicit FakeCheckpoint(Json config, io::SourceKind kind = io::SourceKind::kHuggingFace)
      : config_(std::move(config)), kind_(kind) {}

  FakeCheckpoint& add(const std::string& name, numerics::Shape shape,
                      numerics::DType dtype = numerics::DType::kBF16) {
    tensors_[name] = {name, dtype, std::move(shape)};
    return *this;
  }
  FakeCheckpoint& remove(const std::string& name) {
    tensors_.erase(name);
    return *this;
  }
  FakeCheckpoint& set(const std::string& key, Json value) {
    config_[key] = std::move(value);
    return *this;
  }
  FakeCheckpoint& unset(const std::string& key) {
    config_.erase(key);
    return *this;
  }
  // As the language model of a model of several parts: its configuration under text_config, its
  // tensors behind the prefix.
  FakeCheckpoint& nest(const std::string& model_type, const std::string& prefix) {
    config_ = {{"model_type", model_type}, {"text_config", config_}};
    for (const auto& [name, info] : std::exchange(tensors_, {}))
      add(prefix + name, info.shape, info.dtype);
    return *this;
  }
  io::TensorInfo& at(const std::string& name) { return tensors_.at(name); }

  std::shared_ptr<const io::Checkpoint> build() const {
    auto checkpoint = std::make_shared<io::Checkpoint>();
    checkpoint->path = "fake";
    checkpoint->kind = kind_;
    checkpoint->config = config_;
    for (const auto& [name, info] : tensors_) {
      const uint64_t bytes = numerics::tensor_bytes(info.dtype, info.shape).value_or(0);
      checkpoint->tensors.push_back({info, 0, 0, bytes});
    }
    for (uint32_t i = 0; i < checkpoint->tensors.size(); ++i)
      checkpoint->by_name.emplace(checkpoint->tensors[i].info.name, i);
    return checkpoint;
  }

 private:
  Json config_;
  io::SourceKind kind_;
  std::map<std::string, io::TensorInfo> tensors_;
};

// hidden 64, intermediate 96, 4 heads, 2 KV heads, head_dim 16 (qwen3: 32), vocabulary 128.
inline Json tiny_config(const std::string& model_type, int layers = 2) {
  Json config = {{"model_type", model_type}, {"hidden_size", 64},
                 {"intermediate_size", 96},  {"num_hidden_layers", layers},
                 {"num_attention_heads", 4}, {"num_key_value_heads", 2},
                 {"vocab_size", 128},        {"tie_word_embeddings", false},
                 {"torch_dtype", "bfloat16"}};
  if (model_type.starts_with("qwen3")) config["head_dim"] = 32;
  if (model_type == "qwen3_moe")
    config.update({{"num_experts", 3},
                   {"moe_intermediate_size", 32},
                   {"decoder_sparse_step", 1},
                   {"mlp_only_layers", Json::array()}});
  if (model_type == "mixtral") config["num_local_experts"] = 3;
  return config;
}

inline FakeCheckpoint tiny_hf(const std::string& model_type, int layers = 2) {
  FakeCheckpoint fake(tiny_config(model_type, layers));
  const bool qwen3 = model_type.starts_with("qwen3");
  const uint64_t d = qwen3 ? 32 : 16;
  fake.add("model.embed_tokens.weight", {128, 64}).add("lm_head.weight", {128, 64});
  fake.add("model.norm.weight", {64});
  for (int l = 0; l < layers; ++l) {
    const std::string layer = "model.layers." + std::to_string(l) + ".";
    const std::string attention = layer + "self_attn.";
    fake.add(attention + "q_proj.weight", {4 * d, 64})
        .add(attention + "k_proj.weight", {2 * d, 64});
    fake.add(attention + "v_proj.weight", {2 * d, 64})
        .add(attention + "o_proj.weight", {64, 4 * d});
    fake.add(layer + "input_layernorm.weight", {64});
    fake.add(layer + "post_attention_layernorm.weight", {64});
    if (qwen3) fake.add(attention + "q_norm.weight", {d}).add(attention + "k_norm.weight", {d});
    if (model_type == "qwen2")
      fake.add(attention + "q_proj.bias", {4 * d})
          .add(attention + "k_proj.bias", {2 * d})
          .add(attention + "v_proj.bias", {2 * d});
    if (model_type == "mixtral") {
      fake.add(layer + "block_sparse_moe.gate.weight", {3, 64});
      for (int e = 0; e < 3; ++e) {
        const std::string expert = layer + "block_sparse_moe.experts." + std::to_string(e) + ".";
        fake.add(expert + "w1.weight", {96, 64}).add(expert + "w3.weight", {96, 64});
        fake.add(expert + "w2.weight", {64, 96});
      }
      continue;
    }
    if (model_type != "qwen3_moe") {
      fake.add(layer + "mlp.gate_proj.weight", {96, 64})
          .add(layer + "mlp.up_proj.weight", {96, 64});
      fake.add(layer + "mlp.down_proj.weight", {64, 96});
      continue;
    }
    fake.add(layer + "mlp.gate.weight", {3, 64});
    for (int e = 0; e < 3; ++e) {
      const std::string expert = layer + "mlp.experts." + std::to_string(e) + ".";
      fake.add(expert + "gate_proj.weight", {32, 64}).add(expert + "up_proj.weight", {32, 64});
      fake.add(expert + "down_proj.weight", {64, 32});
    }
  }
  return fake;
}

// The same models as llama.cpp names them, matrices in dtype and vectors in F32.
inline FakeCheckpoint tiny_gguf(const std::string& model_type,
                                numerics::DType dtype = numerics::DType::kQ8_0, int layers = 2) {
  FakeCheckpoint fake(tiny_config(model_type, layers), io::SourceKind::kGguf);
  const bool qwen3 = model_type.starts_with("qwen3");
  const uint64_t d = qwen3 ? 32 : 16;
  const auto f32 = numerics::DType::kF32;
  fake.add("token_embd.weight", {128, 64}, dtype).add("output.weight", {128, 64}, dtype);
  fake.add("output_norm.weight", {64}, f32);
  for (int l = 0; l < layers; ++l) {
    const std::string layer = "blk." + std::to_string(l) + ".";
    fake.add(layer + "attn_q.weight", {4 * d, 64}, dtype);
    fake.add(layer + "attn_k.weight", {2 * d, 64}, dtype);
    fake.add(layer + "attn_v.weight", {2 * d, 64}, dtype);
    fake.add(layer + "attn_output.weight", {64, 4 * d}, dtype);
    fake.add(layer + "attn_norm.weight", {64}, f32).add(layer + "ffn_norm.weight", {64}, f32);
    if (qwen3)
      fake.add(layer + "attn_q_norm.weight", {d}, f32).add(layer + "attn_k_norm.weight", {d}, f32);
    if (model_type == "qwen2")
      fake.add(layer + "attn_q.bias", {4 * d}, f32)
          .add(layer + "attn_k.bias", {2 * d}, f32)
          .add(layer + "attn_v.bias", {2 * d}, f32);
    if (model_type == "qwen3_moe" || model_type == "mixtral") {
      const uint64_t width = model_type == "mixtral" ? 96 : 32;
      fake.add(layer + "ffn_gate_inp.weight", {3, 64}, f32);
      fake.add(layer + "ffn_gate_exps.weight", {3, width, 64}, dtype);
      fake.add(layer + "ffn_up_exps.weight", {3, width, 64}, dtype);
      fake.add(layer + "ffn_down_exps.weight", {3, 64, width}, dtype);
    } else {
      fake.add(layer + "ffn_gate.weight", {96, 64}, dtype);
      fake.add(layer + "ffn_up.weight", {96, 64}, dtype);
      fake.add(layer + "ffn_down.weight", {64, 96}, dtype);
    }
  }
  return fake;
}

}  // namespace sluice::families
