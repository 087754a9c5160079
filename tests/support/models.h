// Checkpoints that live in memory, with bytes: small models of real families for the tests of the
// preparation stages, and single tensors for the tests of the stream engine.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/cpu.h"
#include "families/recipe.h"
#include "io/checkpoint.h"
#include "io/fault.h"
#include "numerics/dtype.h"

namespace sluice::test {

// Deterministic on every machine and standard library; roughly Gaussian, standard deviation 1.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits();                 // 64 random bits
  uint64_t below(uint64_t limit);  // in [0, limit)
  float normal();
  std::vector<float> normals(uint64_t count, float scale);

 private:
  uint64_t state_;
};

// A number from the environment, or another; printed, so that a failure can be repeated.
uint64_t number_from(const char* name, uint64_t otherwise);

// A new file with that content.
void write_text(io::Storage& storage, const std::string& path, std::string_view text);

// Every instruction set of this machine that kernels exist for, and the widest of them.
std::vector<SimdLevel> simd_levels();
SimdLevel widest_simd();

// The durable folder "work" of a storage in memory.
void make_work_folder(io::MemoryStorage& storage);

// Wraps the one source of a checkpoint, for faults and counters.
using WrapSource = std::function<std::shared_ptr<io::ByteSource>(std::shared_ptr<io::ByteSource>)>;

// A checkpoint of one file, "model.safetensors". Values; build() may be called again after changes.
class ModelBuilder {
 public:
  explicit ModelBuilder(Json config, io::SourceKind kind = io::SourceKind::kHuggingFace)
      : config_(std::move(config)), kind_(kind) {}

  // values: as many as the shape holds; dtype a plain float.
  ModelBuilder& add(const std::string& name, numerics::DType dtype, numerics::Shape shape,
                    std::span<const float> values);
  ModelBuilder& add_bytes(const std::string& name, numerics::DType dtype, numerics::Shape shape,
                          std::vector<std::byte> bytes);
  ModelBuilder& remove(const std::string& name);
  ModelBuilder& add_sidecar(const std::string& name, std::string text);

  Json& config() { return config_; }
  std::vector<std::byte>& bytes(const std::string& name) { return tensors_.at(name).bytes; }
  const numerics::Shape& shape(const std::string& name) const {
    return tensors_.at(name).info.shape;
  }

  std::shared_ptr<const io::Checkpoint> build(const WrapSource& wrap = {}) const;
  // The same model as files in an existing folder.
  void write(const std::string& folder) const;

 private:
  struct Tensor {
    io::TensorInfo info;
    std::vector<std::byte> bytes;
  };
  std::vector<std::byte> file_bytes(std::vector<io::StoredTensor>& stored) const;

  Json config_;
  io::SourceKind kind_;
  std::map<std::string, Tensor> tensors_;
  std::map<std::string, std::string> sidecars_;
};

struct TinyOptions {
  numerics::DType dtype = numerics::DType::kBF16;
  uint64_t vocab = 64;
  int layers = 2;
  uint64_t seed = 1;
  uint64_t wide = 1;  // feed-forward widths, times
};

// hidden 128, intermediate 96 (down_proj takes group 32 alone), 4 heads of 32, 2 KV heads, untied;
// norms, sidecars tokenizer.json and tokenizer_config.json.
ModelBuilder tiny_llama(const TinyOptions& options = {});
// Qwen3-MoE with 4 experts of 64, one tensor per expert.
ModelBuilder tiny_moe(const TinyOptions& options = {});
// Latent attention with 8 experts of 64 in 2 groups and a shared one from the second layer on, yarn
// scaling; "deepseek_v3", or a family of the same layout, "deepseek_v2", or "deepseek_v32" or
// "glm_moe_dsa" with an indexer that chooses 12 tokens.
ModelBuilder tiny_latent(const TinyOptions& options = {},
                         const std::string& model_type = "deepseek_v3");
// The same with random Q4_0 blocks for the matrix of that name in every layer.
ModelBuilder with_blocks(ModelBuilder model, const std::string& parameter);
// nemotron_h: Mamba2 mixers whose state has the sizes of the following's, attention, and a layer
// each of experts and of a feed-forward part. qwen3_next, qwen3_5 or qwen3_5_moe: every second
// layer with gated attention, the others linear with 2 key heads of 24 and 4 value heads of 40;
// experts as tiny_moe's and a shared one of 32. As transformers writes it: norms less one.
ModelBuilder tiny_hybrid(const std::string& family, const TinyOptions& options = {});
// The llama as GGUF: matrices in Q4_0 blocks, q and k interleaved, vectors F32. dtype is ignored.
ModelBuilder tiny_gguf(const TinyOptions& options = {});

// One module per tensor, in order of name; those of two and more axes are quantizable.
families::ModelMap plain_map(const io::Checkpoint& checkpoint, numerics::DType dtype);

// map_model, which must succeed.
families::ModelMap map_of(const io::Checkpoint& checkpoint, std::string_view dtype = "");

// Module index by tensor name.
uint32_t module_index(const families::ModelMap& map, std::string_view tensor_name);

}  // namespace sluice::test
