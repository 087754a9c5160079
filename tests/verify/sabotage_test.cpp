// Damage of every kind that a bug, a disk or a hand could do to an output. Each must be found, and
// the finding must name the tensor or the file. Where a converter's own bug is played, the digests
// in sluice.json are forged to agree with it.
#include <gmock/gmock.h>

#include "verify/outputs.h"

namespace sluice::verify {
namespace {

using numerics::Encoder;
using test::Files;
using test::Job;
using test::kIndex;
using test::kShard;

struct Sample {
  explicit Sample(const test::ModelBuilder& model) : job(test::job_of(model)) {
    files = test::converted(job);
  }
  Job job;
  Files files;
};

const Sample& llama() {
  static const Sample sample(test::tiny_llama({.layers = 2}));
  return sample;
}
const Sample& moe() {
  static const Sample sample(test::tiny_moe({.layers = 1}));
  return sample;
}
const Sample& gguf() {
  static const Sample sample(test::tiny_gguf({.layers = 1}));
  return sample;
}

// Some finding's subject contains the name; and not everything is reported as broken.
void expect_named(const Sample& sample, const Files& files, const std::string& name) {
  SCOPED_TRACE(name);
  const auto report = test::verify_files(sample.job, files);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_FALSE(report->passed());
  const bool named = std::ranges::any_of(report->findings, [&](const Finding& finding) {
    return finding.subject.find(name) != std::string::npos;
  });
  EXPECT_TRUE(named) << test::findings_text(*report);
}

// Only that tensor (or file) is blamed.
void expect_only(const Sample& sample, const Files& files, const std::string& name) {
  expect_named(sample, files, name);
  const auto report = test::verify_files(sample.job, files);
  ASSERT_TRUE(report);
  for (const Finding& finding : report->findings)
    EXPECT_NE(finding.subject.find(name), std::string::npos)
        << finding.subject << ": " << finding.message;
}

// The first module with that encoder; nullptr where the plan has none.
const allocate::PlannedTensor* planned_with(const Sample& sample, Encoder encoder) {
  for (const allocate::PlannedTensor& tensor : sample.job.plan.data().tensors)
    if (tensor.quantizable && tensor.encoder == encoder) return &tensor;
  return nullptr;
}

void swap_rows(Files& files, const std::string& tensor, uint64_t rows, uint64_t a, uint64_t b,
               uint64_t count = 1) {
  const std::span<char> bytes = test::tensor_bytes(files, tensor);
  const uint64_t row = bytes.size() / rows;
  std::swap_ranges(bytes.begin() + static_cast<ptrdiff_t>(a * row),
                   bytes.begin() + static_cast<ptrdiff_t>((a + count) * row),
                   bytes.begin() + static_cast<ptrdiff_t>(b * row));
}

const std::vector<std::string>& parts_of(bool quantized) {
  static const std::vector<std::string> affine = {".weight", ".scales", ".biases"},
                                        plain = {".weight"};
  return quantized ? affine : plain;
}

TEST(Sabotage, SamplesHoldEveryEncoder) {
  for (const Encoder encoder : {Encoder::kParity, Encoder::kBest, Encoder::kCast}) {
    EXPECT_NE(planned_with(llama(), encoder), nullptr);
  }
  EXPECT_NE(planned_with(gguf(), Encoder::kLossless), nullptr);
}

TEST(Sabotage, OneFlippedBitOfEveryEncoder) {
  for (const Sample* sample : {&llama(), &moe(), &gguf()}) {
    for (const Encoder encoder :
         {Encoder::kParity, Encoder::kBest, Encoder::kLossless, Encoder::kCast}) {
      const allocate::PlannedTensor* tensor = planned_with(*sample, encoder);
      if (tensor == nullptr) continue;
      for (const std::string& part : parts_of(encoder != Encoder::kCast)) {
        for (const bool last : {false, true}) {
          Files files = sample->files;
          const std::span<char> bytes = test::tensor_bytes(files, tensor->path + part);
          char& byte = last ? bytes.back() : bytes.front();
          byte = static_cast<char>(byte ^ (last ? 0x80 : 1));
          expect_only(*sample, files, tensor->path);
        }
      }
    }
  }
}

// As a wrong encoder would: the digests agree with what was written.
TEST(Sabotage, AWrongCodeWithAgreeingDigests) {
  for (const Sample* sample : {&llama(), &gguf()}) {
    for (const Encoder encoder :
         {Encoder::kParity, Encoder::kBest, Encoder::kLossless, Encoder::kCast}) {
      const allocate::PlannedTensor* tensor = planned_with(*sample, encoder);
      if (tensor == nullptr) continue;
      for (const std::string& part : parts_of(encoder != Encoder::kCast)) {
        Files files = sample->files;
        const std::span<char> bytes = test::tensor_bytes(files, tensor->path + part);
        bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
        test::forge_digests(files, tensor->tensor_name());
        expect_only(*sample, files, tensor->path);
      }
    }
  }
}

TEST(Sabotage, ANormIsGuarded) {
  for (const std::string name : {"model.norm.weight", "model.layers.1.input_layernorm.weight"}) {
    Files files = llama().files;
    test::tensor_bytes(files, name)[0] ^= 1;
    expect_only(llama(), files, name);
    test::forge_digests(files, name);
    expect_only(llama(), files, name);
  }
}

// Rows exchanged in weight, scales and biases alike: what a wrong q/k permutation writes.
TEST(Sabotage, SwappedRows) {
  for (const Sample* sample : {&llama(), &gguf()}) {
    for (const std::string projection : {"q_proj", "k_proj"}) {
      const std::string path = "model.layers.0.self_attn." + projection;
      const auto& module =
          sample->job.map.modules[test::module_index(sample->job.map, path + ".weight")];
      const bool quantized = sample->job.plan.find(path + ".weight")->format.bits > 0;
      Files files = sample->files;
      for (const std::string& part : parts_of(quantized))
        swap_rows(files, path + part, module.rows(), 1, 16);
      expect_only(*sample, files, path);
      test::forge_digests(files, path + ".weight");
      expect_only(*sample, files, path);
    }
  }
}

TEST(Sabotage, SwappedExperts) {
  for (const std::string projection : {"gate_proj", "up_proj", "down_proj"}) {
    const std::string path = "model.layers.0.mlp.switch_mlp." + projection;
    const auto& module = moe().job.map.modules[test::module_index(moe().job.map, path + ".weight")];
    const bool quantized = moe().job.plan.find(path + ".weight")->format.bits > 0;
    const uint64_t rows = module.rows() / 4;
    Files files = moe().files;
    for (const std::string& part : parts_of(quantized))
      swap_rows(files, path + part, module.rows(), rows, 2 * rows, rows);
    expect_only(moe(), files, path);
    const auto report = test::verify_files(moe().job, files);
    EXPECT_THAT(test::findings_text(*report), ::testing::HasSubstr("expert 1, row 0"));
  }
}

// However much of one tensor is broken, the others are still named.
TEST(Sabotage, ManyFindingsOfOneTensorHideNoOther) {
  Files files = llama().files;
  for (const std::string name : {"model.embed_tokens", "model.layers.0.self_attn.v_proj"})
    for (char& byte : test::tensor_bytes(files, name + ".weight"))
      byte = static_cast<char>(byte ^ 0x11);
  test::tensor_bytes(files, "model.norm.weight")[0] ^= 1;
  for (const std::string name :
       {"model.embed_tokens", "model.layers.0.self_attn.v_proj", "model.norm.weight"})
    expect_named(llama(), files, name);
  const auto report = test::verify_files(llama().job, files);
  EXPECT_LE(report->findings.size(), kFindingsMax);
  EXPECT_GT(report->finding_count, report->findings.size());
  EXPECT_THAT(test::findings_text(*report), ::testing::HasSubstr("more like this)"));
  for (const unsigned workers : {1u, 4u}) {
    const auto again = test::verify_files(llama().job, files, workers);
    EXPECT_EQ(again->findings, report->findings) << "threads show";
    EXPECT_EQ(again->finding_count, report->finding_count);
  }
}

// The shard again with its tensors edited by name and bytes.
using Tensors = std::vector<std::pair<io::TensorInfo, std::string>>;

Tensors tensors_of(const Files& files) {
  const auto bytes = std::as_bytes(std::span(files.at(kShard)));
  const auto source = io::memory_source(kShard, {bytes.begin(), bytes.end()});
  const auto header = io::read_safetensors_header(*source, 0);
  SLUICE_CHECK(header.has_value());
  Tensors tensors;
  for (const io::StoredTensor& tensor : header->tensors)
    tensors.emplace_back(tensor.info, files.at(kShard).substr(tensor.offset, tensor.bytes));
  return tensors;
}

std::string shard_of(const Tensors& tensors) {
  std::vector<io::TensorInfo> infos;
  for (const auto& [info, bytes] : tensors) infos.push_back(info);
  std::string shard = io::layout_safetensors(infos).header;
  for (const auto& [info, bytes] : tensors) shard += bytes;
  return shard;
}

TEST(Sabotage, TheTestsOwnShardIsTheSame) {
  EXPECT_TRUE(shard_of(tensors_of(llama().files)) == llama().files.at(kShard));
}

TEST(Sabotage, MissingTensor) {
  const Tensors whole = tensors_of(llama().files);
  for (const size_t gone : {size_t{0}, size_t{1}, size_t{2}, whole.size() - 1}) {
    Tensors tensors = whole;
    const std::string name = tensors[gone].first.name;
    tensors.erase(tensors.begin() + static_cast<ptrdiff_t>(gone));
    Files files = llama().files;
    files[kShard] = shard_of(tensors);
    expect_named(llama(), files, name);
    test::edit_json(files, kIndex, [&](Json& index) { index["weight_map"].erase(name); });
    expect_named(llama(), files, name);
  }
}

TEST(Sabotage, ExtraTensor) {
  Tensors tensors = tensors_of(llama().files);
  tensors.emplace_back(io::TensorInfo{"model.layers.7.extra.weight", numerics::DType::kU8, {4}},
                       "abcd");
  Files files = llama().files;
  files[kShard] = shard_of(tensors);
  expect_named(llama(), files, "model.layers.7.extra.weight");
}

TEST(Sabotage, RenamedTensor) {
  Tensors tensors = tensors_of(llama().files);
  const std::string name = tensors[3].first.name;
  tensors[3].first.name += "x";
  Files files = llama().files;
  files[kShard] = shard_of(tensors);
  expect_named(llama(), files, name);
}

TEST(Sabotage, WrongTypeOrShape) {
  Tensors tensors = tensors_of(llama().files);
  for (auto& [info, bytes] : tensors)
    if (info.name == "model.norm.weight") info.dtype = numerics::DType::kF16;
  Files files = llama().files;
  files[kShard] = shard_of(tensors);
  expect_only(llama(), files, "model.norm.weight");
  tensors = tensors_of(llama().files);
  for (auto& [info, bytes] : tensors)
    if (info.name == "model.norm.weight") info.shape = {2, 64};
  files[kShard] = shard_of(tensors);
  expect_only(llama(), files, "model.norm.weight");
}

TEST(Sabotage, AnotherWeightFile) {
  Files files = llama().files;
  const Tensors extra = {{{"extra", numerics::DType::kU8, {1}}, "x"}};
  files["model-extra.safetensors"] = shard_of(extra);
  expect_named(llama(), files, "extra");
  expect_named(llama(), files, "weight files");

  files = llama().files;
  files["model2.safetensors"] = files.at(kShard);
  expect_named(llama(), files, "model.norm.weight");

  files = llama().files;
  files["modelx.safetensors"] = "not safetensors at all";
  expect_named(llama(), files, "modelx.safetensors");

  // A loader does not read these.
  files = llama().files;
  files["adapter.safetensors"] = "whatever";
  files["model.safetensors.bak"] = "whatever";
  const auto report = test::verify_files(llama().job, files);
  ASSERT_TRUE(report);
  EXPECT_TRUE(report->passed()) << test::findings_text(*report);
}

// Sound for any reader, but larger than it should be.
TEST(Sabotage, OverBudget) {
  Files files = llama().files;
  std::string& shard = files.at(kShard);
  uint64_t header = 0;
  std::memcpy(&header, shard.data(), 8);
  shard.insert(8 + header, 64, ' ');
  header += 64;
  std::memcpy(shard.data(), &header, 8);
  expect_only(llama(), files, "weight files");
}

TEST(Sabotage, MetadataOfAShard) {
  Files files = llama().files;
  std::string& shard = files.at(kShard);
  shard.replace(shard.find("\"mlx\""), 5, "\"np2\"");
  expect_only(llama(), files, kShard);
}

TEST(Sabotage, TruncatedShard) {
  const size_t size = llama().files.at(kShard).size();
  for (const size_t left : {size_t{0}, size_t{7}, size_t{100}, size / 2, size - 1}) {
    Files files = llama().files;
    files.at(kShard).resize(left);
    expect_named(llama(), files, kShard);
  }
  Files files = llama().files;
  files.at(kShard) += 'x';
  expect_named(llama(), files, kShard);
  files.erase(kShard);
  expect_named(llama(), files, "model.norm.weight");
}

TEST(Sabotage, Config) {
  const auto edited = [](const auto& edit) {
    Files files = llama().files;
    test::edit_json(files, "config.json", edit);
    return files;
  };
  const auto both = [](Json& config, const auto& edit) {
    edit(config["quantization"]);
    edit(config["quantization_config"]);
  };
  const std::string override_path = [&] {
    const Json config = *parse_json(llama().files.at("config.json"), "c");
    for (const auto& [key, value] : config.at("quantization").items())
      if (value.is_object()) return key;
    SLUICE_CHECK(false);
  }();
  // A wrong global width hits some tensor that relies on it.
  expect_named(llama(), edited([&](Json& config) {
                 both(config, [](Json& q) { q["bits"] = q["bits"] == 4 ? 8 : 4; });
               }),
               "model.");
  expect_named(llama(), edited([&](Json& config) {
                 both(config, [&](Json& q) { q.erase(override_path); });
               }),
               override_path);
  expect_named(llama(), edited([&](Json& config) {
                 both(config, [&](Json& q) { q[override_path]["group_size"] = 1024; });
               }),
               override_path);
  expect_named(llama(), edited([&](Json& config) {
                 both(config, [&](Json& q) { q["model.layers.9.mlp"] = {{"bits", 4}}; });
               }),
               "config.json");
  expect_named(llama(),
               edited([&](Json& config) { both(config, [&](Json& q) { q["mode"] = "mxfp4"; }); }),
               "model.");
  expect_only(llama(), edited([](Json& config) { config["quantization_config"]["bits"] = 7; }),
              "config.json");
  expect_named(llama(), edited([](Json& config) {
                 config.erase("quantization");
                 config.erase("quantization_config");
               }),
               "model.");
  for (const std::string key : {"hidden_size", "rms_norm_eps", "vocab_size", "model_type"}) {
    expect_only(llama(), edited([&](Json& config) { config[key] = 77; }), "config.json");
    expect_only(llama(), edited([&](Json& config) { config.erase(key); }), "config.json");
  }
  expect_only(llama(), edited([](Json& config) { config["rope_scaling"] = {{"factor", 2}}; }),
              "config.json");
  expect_only(llama(), edited([](Json& config) { config["torch_dtype"] = "float16"; }),
              "config.json");
  for (const std::string text : {"", "{", "[]", "7", "null"}) {
    Files files = llama().files;
    files["config.json"] = text;
    expect_named(llama(), files, "config.json");
  }
}

TEST(Sabotage, Index) {
  const auto edited = [](const auto& edit) {
    Files files = llama().files;
    test::edit_json(files, kIndex, edit);
    return files;
  };
  const std::string name = "model.norm.weight";
  expect_named(llama(), edited([&](Json& index) { index["weight_map"].erase(name); }), name);
  expect_only(llama(), edited([&](Json& index) { index["weight_map"][name] = "model-2"; }), name);
  expect_only(llama(), edited([&](Json& index) { index["weight_map"][name] = 5; }), name);
  expect_only(llama(), edited([&](Json& index) { index["weight_map"]["x"] = kShard; }), kIndex);
  expect_only(llama(), edited([&](Json& index) { index["metadata"]["total_size"] = 5; }), kIndex);
  expect_only(llama(), edited([&](Json& index) { index.erase("metadata"); }), kIndex);
  expect_only(llama(), edited([&](Json& index) { index["weight_map"] = 5; }), kIndex);
  for (const std::string text : {"", "{", "[]", "null"}) {
    Files files = llama().files;
    files[kIndex] = text;
    expect_named(llama(), files, kIndex);
  }
  Files files = llama().files;
  files.erase(kIndex);
  expect_named(llama(), files, kIndex);
}

TEST(Sabotage, Sidecars) {
  Files files = llama().files;
  files.at("tokenizer.json")[3] ^= 1;
  expect_only(llama(), files, "tokenizer.json");
  files.erase("tokenizer.json");
  expect_only(llama(), files, "tokenizer.json");
}

TEST(Sabotage, Record) {
  const auto edited = [](const auto& edit) {
    Files files = llama().files;
    test::edit_json(files, "sluice.json", edit);
    return files;
  };
  const std::string name = planned_with(llama(), Encoder::kBest)->tensor_name();
  const std::string digest(32, '0');
  for (const std::string key : {"source_xxh3", "weight_xxh3", "scales_xxh3", "biases_xxh3"}) {
    const std::string path = name.substr(0, name.rfind('.'));
    expect_only(llama(), edited([&](Json& r) { r["modules"][name][key] = digest; }), path);
    expect_only(llama(), edited([&](Json& r) { r["modules"][name][key] = "nonsense"; }), path);
    expect_only(llama(), edited([&](Json& r) { r["modules"][name].erase(key); }), path);
  }
  for (const std::string key : {"squared_error", "squared_weight", "error_max"}) {
    expect_only(llama(), edited([&](Json& r) {
                  r["modules"][name][key] = r["modules"][name][key].get<double>() * (1 + 1e-15);
                }),
                name);
    expect_only(llama(), edited([&](Json& r) { r["modules"][name][key] = "big"; }), name);
  }
  expect_only(llama(), edited([&](Json& r) { r["modules"][name]["shard"] = "model-9"; }), name);
  expect_only(llama(), edited([&](Json& r) { r["modules"].erase(name); }), name);
  expect_only(llama(), edited([&](Json& r) { r["modules"]["ghost"] = r["modules"][name]; }),
              "ghost");
  expect_only(llama(), edited([&](Json& r) { r["modules"][name] = 5; }), name);
  expect_only(llama(), edited([&](Json& r) { r["source"]["files"] = 5; }), "sluice.json");
  expect_only(llama(), edited([&](Json& r) { r["source"] = 5; }), "sluice.json");
  expect_only(llama(), edited([&](Json& r) { r["dropped"] = {"lm_head.weight"}; }), "sluice.json");
  expect_named(llama(), edited([&](Json& r) { r["modules"] = 5; }), name);
}

TEST(Sabotage, ARecordThatCannotBeTrustedIsAnError) {
  const auto refuse = [](const auto& edit) {
    Files files = llama().files;
    test::edit_json(files, "sluice.json", edit);
    EXPECT_FALSE(test::verify_files(llama().job, files));
  };
  refuse([](Json& r) { r["version"] = 2; });
  refuse([](Json& r) { r["block_elements"] = 4096; });
  refuse([](Json& r) { r.erase("plan"); });
  refuse(
      [](Json& r) { r["plan"]["budget_bytes"] = r["plan"]["budget_bytes"].get<uint64_t>() + 1; });
  refuse([](Json& r) { r["plan"]["tensors"][1]["encoder"] = "parity"; });
  refuse([](Json& r) { r["plan"] = 5; });
  refuse([](Json& r) { r = 5; });
  Files files = llama().files;
  for (size_t left = 0; left + 2 < files.at("sluice.json").size(); left += 997) {
    Files cut = files;
    cut.at("sluice.json").resize(left);
    EXPECT_FALSE(test::verify_files(llama().job, cut)) << left;
  }
}

}  // namespace
}  // namespace sluice::verify
